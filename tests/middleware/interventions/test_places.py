"""Every recipe of the house has a place of its own in the chain, or shares it and commutes."""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from inspect import isclass
from itertools import combinations
from typing import Any

import torch

from elision.contract import Here, Stage
from elision.guards.phrases.mask import PhrasePenalty
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.patterns import Owner
from elision.guards.phrases.product import Product
from elision.guards.targets import Phrase
from elision.middleware.interventions import INTERVENTIONS, LogitBias
from elision.testing import byte_lexicon
from elision.testing.laws import awkward_rows, check_commute

from .test_laws import context

ALIKE = {
    # They leave every row as it is:
    frozenset({"PhraseCount", "CurateRefusal"}),
    frozenset({"VerbatimWatch", "AccumulatedWatch"}),
    # One of them does:
    frozenset({"Repetition", "PaperGuard"}),
    frozenset({"VerbatimMask", "EncodedWatch"}),
    # Both add what does not depend on the row:
    frozenset({"LogitBias", "PhrasePenalty"}),
}
"""Recipes that share a place and commute."""


def test_no_two_recipes_of_the_house_share_a_place_but_those_known_to_commute() -> None:
    at: dict[tuple[Stage, int], set[str]] = defaultdict(set)
    for cls in recipe_classes("elision.guards", "elision.middleware.interventions"):
        for stage in stages(cls):
            at[stage, int(default(cls, "rank"))].add(cls.__name__)
    assert sum(map(len, at.values())) > len(INTERVENTIONS)
    shared = {frozenset(pair) for names in at.values() for pair in combinations(sorted(names), 2)}
    assert shared == ALIKE


def recipe_classes(*packages: str) -> Iterator[type[Any]]:
    for package in map(importlib.import_module, packages):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations." in found.name:
                continue  # Alembic alone can import it
            module = importlib.import_module(found.name)
            for cls in filter(isclass, vars(module).values()):
                own = cls.__module__ == module.__name__
                if own and hasattr(cls, "stage") and hasattr(cls, "begin"):
                    yield cls


def default(cls: type[Any], name: str) -> Any:
    """Return what *name* is unless it is given; a slot hides it on the class."""
    given_as = {f.name: f.default for f in fields(cls)} if is_dataclass(cls) else {}
    return given_as.get(name, getattr(cls, name))


def stages(cls: type[Any]) -> tuple[Stage, ...]:
    """Return the stages at which it may stand: a property tells it of an object alone."""
    stage = default(cls, "stage")
    return (Stage.MIXER, Stage.ENTROPY) if isinstance(stage, property) else (stage,)


def test_a_bias_and_a_soft_phrase_commute() -> None:
    owner = Owner("t", 0, "restrict", False)
    product = Product(PatternSet([(owner, Phrase(text="male"))]), byte_lexicon())
    soft, rows = PhrasePenalty(product=product), awkward_rows(259)
    bias, tokens = LogitBias(bias={ord("e"): 2.5, 3: -1.0}), tuple(b"mal")
    check_commute(bias, soft, context(259), rows, tokens=tokens)
    session = soft.begin(context(259)).advance(tokens[0]).advance(tokens[1]).advance(tokens[2])
    assert not torch.equal(session.adjust(rows[0], Here(rows[0])), rows[0])
