"""What the check claims, in small: every transform that the suite says is caught, is caught."""

from __future__ import annotations

import ast
from pathlib import Path
from random import Random

import pytest

import elision
from elision.evaluation.benches.detect import author_names
from elision.guards.detection.check import Checker
from elision.guards.targets import ForgetTarget, Phrase
from elision.testing.attacks import TRANSFORMS

NAMES = author_names()
CHECKER = Checker.compile(
    ForgetTarget(id=name, title="an author", kind="person", phrases=(Phrase(text=name),))
    for name in NAMES
)
CLAIMED = sorted(name for name, it in TRANSFORMS.items() if it.enforced != "unclaimed")


@pytest.mark.parametrize("transform", CLAIMED)
def test_a_claimed_transform_is_caught(transform: str) -> None:
    written = {name: TRANSFORMS[transform].apply(name, Random(3)) for name in NAMES}
    found = [
        name
        for name, text in written.items()
        if any(hit.target_id == name for hit in CHECKER.check_text(f"Here:\n{text}\nMore?").hits)
    ]
    assert len(found) >= 19


def test_most_of_the_list_is_claimed() -> None:
    assert len(CLAIMED) >= 0.85 * len(TRANSFORMS)


def prose() -> list[str]:
    """Return the sentences of this package's own docstrings."""
    found = list[str]()
    for file in sorted(Path(elision.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                found += (ast.get_docstring(node) or "").split(". ")
    return sorted({text for text in found if len(text) >= 40})


def test_ordinary_sentences_are_not_flagged() -> None:
    sentences = Random(0).sample(prose(), 300)
    named = [text for text in sentences if any(name in text for name in NAMES)]
    flagged = [text for text in sentences if CHECKER.check_text(text).hits]
    assert flagged == named
