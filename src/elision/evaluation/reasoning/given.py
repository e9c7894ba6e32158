"""Given answers of one item, read on the engine's thread by every method that still lacks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from elision.contract import Plan, Request, Sampling
from elision.evaluation.reasoning.data import Choice
from elision.evaluation.reasoning.methods import Method, label
from elision.evaluation.reasoning.reading import Reading, Sight
from elision.evaluation.tofu.sheet import Sheet
from elision.middleware.engines.causal import CausalModel, Prompt
from elision.middleware.engines.job import context_for
from elision.middleware.engines.local import LocalEngine


def look(
    engine: LocalEngine, item: Choice, methods: Sequence[Method],
    shares: Mapping[str, float | None], sheet: Sheet, *, seed: int,
) -> dict[str, Mapping[str, Any]]:  # fmt: skip
    """Return what each of *methods* makes of the item's options, by the method's name.

    Every row of scores is computed once, whatever number of methods reads it; a method whose
    values *sheet* has reads nothing.

    Args:
        engine: Its model reads, on its own thread, as one turn among others.
        item: What is read.
        methods: All of them.
        shares: Realised usage of what a method copies; None where it copies none.
        sheet: What is known already, and gets what is found.
        seed: Keys what a recipe draws for itself, together with the item's place.

    Returns:
        ``logps`` in nats and ``n_tokens`` of every option; ``greedy``, whether the right one is
        what greedy decoding writes; ``entropy_nats`` over its tokens; ``notes`` over all options.
    """
    keys = {m.name: f"{label(m.name, shares[m.name])}/{item.index}" for m in methods}
    lacking = [method for method in methods if sheet.get(keys[method.name]) is None]
    if lacking:
        found = engine.borrow(
            lambda model: _read(model, item, lacking, shares, seed + item.index)
        ).result()
        for name, row in found.items():
            sheet.put(keys[name], row)
    return {name: sheet.get(key) or {} for name, key in keys.items()}


def _read(
    model: CausalModel, item: Choice, methods: Sequence[Method],
    shares: Mapping[str, float | None], seed: int,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    request = Request(kind="text", prompt=item.prompt, sampling=Sampling(seed=seed))
    sights: dict[str, list[Sight]] = {method.name: [] for method in methods}
    for option in item.options:
        reading = Reading(model, request, option)
        told = Prompt(reading.prompt_ids, item.prompt)
        context = context_for(Plan(request=request), told, model, assistants=())
        for method in methods:
            recipes = method.reading(item, share=shares[method.name])
            sights[method.name].append(reading.walk(recipes, context))
    return {name: _row(item, seen) for name, seen in sights.items()}


def _row(item: Choice, sights: Sequence[Sight]) -> dict[str, Any]:
    notes = dict[str, float]()
    for sight in sights:
        for key, value in sight.notes.items():
            notes[key] = notes.get(key, 0.0) + value
    return {
        "logps": [sight.logp for sight in sights],
        "n_tokens": [sight.n_tokens for sight in sights],
        "greedy": sights[item.gold].greedy,
        "entropy_nats": sights[item.gold].entropy_nats,
        "notes": notes,
    }
