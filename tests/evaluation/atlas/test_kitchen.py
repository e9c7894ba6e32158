"""Cooking games: generated here, played by a cook that must be told how a kitchen works."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest

from elision.agents.atlas.student import Attempt
from elision.agents.atlas.task import Task
from elision.agents.atlas.tools import Action
from elision.errors import MissingExtraError
from elision.evaluation.atlas.cook import HEAT, MOST_STEPS, OPEN, RECIPE, SKILLS, recipe
from elision.evaluation.atlas.kitchen import LEVELS, KitchenWorld

PAGE = """You open the copy of "Cooking" and start reading:

Recipe #1
Gather all following ingredients and follow the directions to prepare this tasty meal.

Ingredients:
  block of cheese
  yellow bell pepper

Directions:
  dice the block of cheese
  roast the yellow bell pepper
  prepare meal
"""
ALL = frozenset(skill.name for skill in SKILLS)


def test_a_page_of_the_cookbook_is_read() -> None:
    items, directions = recipe(PAGE)
    assert items == {"block of cheese", "yellow bell pepper"}
    assert directions == (("dice", "block of cheese"), ("roast", "yellow bell pepper"))
    assert recipe("There is nothing to read.") == (frozenset(), ())


def test_without_textworld_it_says_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(MissingExtraError, match=r"elision\[bench\]"):
        KitchenWorld(tmp_path, n_games=1, n_held_out=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KitchenWorld]:
    pytest.importorskip("textworld", reason="textworld is not installed")
    made = KitchenWorld(tmp_path_factory.mktemp("games"), n_games=2, n_held_out=1)
    yield made
    made.close()


def played(world: KitchenWorld, task: Task, skills: frozenset[str], seed: str = "s") -> Attempt:
    play = world.play(task, skills, seed)
    actions = (Action(n, m.tool, m.args, m.ok, m.seen) for n, m in enumerate(play.moves, 1))
    return Attempt(play.output, tuple(actions))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_games_are_a_curriculum_that_can_be_learned(world: KitchenWorld) -> None:
    assert len(world.trained) == 2 * len(LEVELS)
    assert len(world.held_out) == len(LEVELS)
    assert {task.id for task in world.trained}.isdisjoint(task.id for task in world.held_out)
    levels = [str(task.id)[0] for task in world.order(3)]
    assert levels == sorted(levels)

    means = []
    for n in range(len(SKILLS) + 1):
        won = [
            world.grade(task, played(world, task, frozenset(skill.name for skill in some)))
            for some in combinations(SKILLS, n)
            for task in world.trained
        ]
        means.append(fmean(won))
    assert means[0] < 0.5
    assert means[-1] == 1
    assert means == sorted(means)

    for task in (*world.trained, *world.held_out):
        needed = frozenset(skill.name for skill in world.needs(task))
        assert world.grade(task, played(world, task, needed)) == 1
        assert len(world.play(task, ALL, "s").moves) <= MOST_STEPS
    assert world.needs(world.trained[0])[0] is RECIPE

    hardest = world.trained[-1]
    lost = played(world, hardest, frozenset({RECIPE.name, OPEN.name}))
    assert 0 <= world.grade(hardest, lost) < 1
    assert HEAT in world.needs(hardest)
    assert world.play(hardest, ALL, "s") == world.play(hardest, ALL, "s")
