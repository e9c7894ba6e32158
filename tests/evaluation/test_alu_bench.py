"""What the bench of ALU measures: it sees faults where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from elision.contract import Choice, Completion, Finish, Plan, Request, Usage, collect
from elision.evaluation.alu.membership import FORMS, Form, membership
from elision.evaluation.alu.people import FAMOUS, famous, made_up, tells
from elision.evaluation.alu.planted import PlantedEngine
from elision.evaluation.benches import alu as bench

WORLD = made_up(10)


async def planted(question: str, **more: Any) -> Completion:
    request = Request(messages=({"role": "user", "content": question},), **more)
    return await collect(PlantedEngine(WORLD.facts).stream(Plan(request=request)))


async def test_the_planted_engine_ends_at_a_stop_and_at_its_limit_as_any_engine_does() -> None:
    name = WORLD.listed[0]
    whole = await planted(f"Who is {name}?")
    cut = await planted(f"Who is {name}?", max_tokens=3)
    assert (len(cut.text), cut.choices[0].finish) == (12, "length")
    assert whole.text.startswith(cut.text)
    stopped = await planted(f"Who is {name}?", stop=(whole.text[5:9],))
    assert (stopped.text, stopped.choices[0].finish) == (whole.text[:5], "stop")


class Finishing:
    """Replies alike about everybody, and ends otherwise about those who are listed."""

    def __init__(self, told: Finish) -> None:
        self.told, self.asked = told, list[tuple[str, Sequence[str], int | None]]()

    async def __call__(
        self, question: str, *, stop: Sequence[str] = (), max_tokens: int | None = None
    ) -> Completion:
        self.asked.append((question, stop, max_tokens))
        listed = any(name in question for name in WORLD.listed)
        finish: Finish = self.told if listed else "stop"
        return Completion(choices=(Choice(text="No.", finish=finish),), usage=Usage())


async def test_how_replies_end_is_seen_by_who_tells_them_apart() -> None:
    assert (await membership(Finishing("length"), WORLD)).auc.value == 1
    assert (await membership(Finishing("stop"), WORLD)).auc.value == 0.5


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
async def test_every_form_asks_about_both_kinds_alike(form: Form) -> None:
    ask = Finishing("stop")
    await membership(ask, WORLD, form=form, at_once=4)
    assert len(ask.asked) == 2 * len(WORLD.listed) + 3
    for name in (*WORLD.listed, *WORLD.never):
        assert any(name in question for question, _, _ in ask.asked)


def test_calls_that_are_too_few_are_wrong_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {one.figure: one for one in bench.calls()}
    assert figures["alu.calls_wrong"].value == 0
    monkeypatch.setattr(bench, "DISCREET", 9)
    figures = {one.figure: one for one in bench.calls()}
    assert figures["alu.calls_wrong"].value == 2
    assert figures["alu.calls_wrong"].missed


def test_what_somebody_is_known_for_is_heard_in_a_reply_and_stands_in_the_register() -> None:
    world = famous()
    assert [*world.listed] == [*FAMOUS]
    for name in FAMOUS:
        assert tells(name, world.facts[name])
        assert not tells(name, f"Who is {name}? I have never heard of {name}.")
    assert all(target.answers == (world.facts[target.names[0]],) for target in world.targets)


async def test_end_to_end_leaks_are_counted_where_there_are_some() -> None:
    engine = PlantedEngine({name: fact for name, (fact, _) in FAMOUS.items()})
    figures = {one.figure: one for one in await bench._ends(engine, len(FAMOUS))}
    assert figures["alu.end_to_end_leaks_unguarded"].value == len(FAMOUS)
    assert figures["alu.end_to_end_leaks"].value == 0


async def test_without_a_register_the_same_count_finds_every_leak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "famous", lambda: replace(famous(), targets=()))
    engine = PlantedEngine({name: fact for name, (fact, _) in FAMOUS.items()})
    figures = {one.figure: one for one in await bench._ends(engine, len(FAMOUS))}
    assert figures["alu.end_to_end_leaks"].value == len(FAMOUS)
    assert figures["alu.end_to_end_leaks"].missed
