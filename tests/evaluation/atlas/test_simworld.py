"""The made-up world, and what scripted students know."""

from __future__ import annotations

import asyncio
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.agents.atlas.gates import BROAD
from elision.agents.atlas.scan import scan
from elision.agents.atlas.specific import is_of_one_case
from elision.agents.atlas.student import Attempt, Brief
from elision.evaluation.atlas import cook, investigators
from elision.evaluation.atlas.simworld import EASY, ENTRIES, SimWorld
from elision.evaluation.atlas.skills import Skill, chance, known, n_tokens
from elision.evaluation.atlas.world import Oracle, ScriptedStudent
from elision.memory.learning.entries import LONGEST
from elision.memory.learning.packing import Advice, render

WORLD = SimWorld(200)
ONE, TWO = Skill("one", "Do the first thing."), Skill("two", "Do the second thing.")


# Skills


@given(st.lists(st.sampled_from([ONE, TWO])), st.text(max_size=30))
def test_a_student_knows_what_it_is_told_and_nothing_else(told: list[Skill], noise: str) -> None:
    texts = [noise, *(skill.instruction.upper() for skill in told)]
    assert known([ONE, TWO], texts) == {skill.name for skill in told}


def test_luck_is_the_same_whatever_is_told() -> None:
    lucky = known([ONE, TWO], [], by_luck=0.5, seed="s")
    assert known([ONE, TWO], [ONE.instruction], by_luck=0.5, seed="s") == lucky | {"one"}
    assert known([ONE, TWO], [], by_luck=1.0, seed="s") == {"one", "two"}
    rate = fmean(bool(known([ONE], [], by_luck=0.3, seed=str(n))) for n in range(2000))
    assert rate == pytest.approx(0.3, abs=0.04)


def test_chances_are_spread_over_the_unit_interval() -> None:
    drawn = [chance("s", str(n)) for n in range(2000)]
    assert min(drawn) >= 0
    assert max(drawn) < 1
    assert fmean(drawn) == pytest.approx(0.5, abs=0.03)
    assert chance("ab", "c") != chance("a", "bc")


@pytest.mark.parametrize(
    "skill",
    [*investigators.SKILLS, *cook.SKILLS, *(entry.skill for entry in ENTRIES)],
    ids=lambda skill: skill.name,
)
def test_an_instruction_can_be_an_entry_and_survives_being_rendered(skill: Skill) -> None:
    assert len(skill.instruction) <= LONGEST["imperative"]
    assert not is_of_one_case(skill.instruction)
    assert scan(skill.instruction, tenant="t") == ()
    advice = Advice(
        id="a", version=1, cue="c", imperative=skill.instruction, token_len=1, value=0.0
    )
    assert skill.told_by(render([advice], b"secret"))


# The world


def test_the_world_is_seeded() -> None:
    again, other = SimWorld(200), SimWorld(200, seed=1)
    assert [task.tags for task in again.trained] == [task.tags for task in WORLD.trained]
    assert [task.tags for task in other.trained] != [task.tags for task in WORLD.trained]
    assert WORLD.order(3) == again.order(3) != WORLD.order(4)
    assert {task.id for task in WORLD.trained}.isdisjoint(task.id for task in WORLD.held_out)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.skill.name)
def test_effects_have_the_sign_of_the_gain_and_no_cue_is_too_broad(entry: object) -> None:
    planted = next(one for one in ENTRIES if one is entry)
    effect = WORLD.effect(planted, propensity=0.7)
    assert (effect > 0) == (planted.gain > 0)
    assert (effect < 0) == (planted.gain < 0)
    share = fmean(planted.tag in task.tags for task in WORLD.trained)
    assert 0.2 < share < BROAD


def test_comparing_tasks_praises_the_entry_that_fires_on_the_easy_ones() -> None:
    confounded = next(entry for entry in ENTRIES if entry.tag == EASY)
    assert WORLD.effect(confounded, propensity=0.7) == 0
    assert WORLD.bias(confounded, propensity=0.7) > 0.3


def test_successes_come_as_often_as_the_world_says() -> None:
    skills = frozenset(ENTRIES[n].skill.name for n in (0, 3))
    rewards = [
        WORLD.grade(task, Attempt(WORLD.play(task, skills, f"{n}:{task.id}").output))
        for n in range(10)
        for task in WORLD.trained
    ]
    expected = fmean(WORLD.p_success(task, skills) for task in WORLD.trained)
    assert fmean(rewards) == pytest.approx(expected, abs=0.03)


# The roles


def test_a_student_that_reads_a_skill_takes_fewer_tokens_for_its_task() -> None:
    helps = ENTRIES[0]
    task = next(t for t in WORLD.trained if helps.tag in t.tags)
    student = ScriptedStudent(WORLD, by_luck=0.0, seed=0)
    bare = asyncio.run(student.attempt(task, Brief()))
    told = asyncio.run(student.attempt(task, Brief(guidance=(helps.skill.instruction,))))
    assert len(told.actions) < len(bare.actions)
    assert total(told) < total(bare)


def test_advice_that_does_not_help_costs_what_it_takes_to_read() -> None:
    task = WORLD.trained[0]
    student = ScriptedStudent(WORLD, by_luck=0.0, seed=0)
    noise = "Something else entirely."
    bare = asyncio.run(student.attempt(task, Brief()))
    told = asyncio.run(student.attempt(task, Brief(advice=noise)))
    assert told.output == bare.output
    assert total(told) - total(bare) == len(bare.actions) * n_tokens(noise)


def total(attempt: Attempt) -> int:
    return sum(row.tokens_in + row.tokens_out for row in attempt.spent)


def test_the_oracle_names_the_next_missing_skill_and_is_paid_for_it() -> None:
    oracle = Oracle(WORLD)
    task = next(t for t in WORLD.trained if len(WORLD.needs(t)) == 2)
    first, second = WORLD.needs(task)
    wrong, right = Attempt("wrong"), Attempt(f"right {task.id}")
    said = asyncio.run(oracle.validate(task, wrong, Brief()))
    assert (said.valid, said.guidance) == (False, first.instruction)
    said = asyncio.run(oracle.validate(task, wrong, Brief(advice=first.instruction)))
    assert said.guidance == second.instruction
    passed = asyncio.run(oracle.validate(task, right, Brief()))
    assert (passed.valid, passed.guidance) == (True, "")
    assert all(row.role == "teacher" and row.tokens_in > 0 for row in passed.spent)
