"""What the check catches, what it flags by mistake, and what it costs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any, Final

from elision.evaluation.bench import Setup
from elision.evaluation.benches.phrases import made_up
from elision.evaluation.figures import Figure, Goal, of, percentile
from elision.guards.detection.check import Checker
from elision.guards.targets import ForgetTarget, Phrase
from elision.testing.attacks import TRANSFORMS

N_SENTENCES: Final = 1_000
N_TARGETS: Final = 10_000
CAUGHT_SHARE: Final = 0.95
"""Of the names that must be found for a transform to count as caught."""
RETAINED: Final = "retain90.jsonl"
_FRAME: Final = "Sure, here it is:\n{}\nAnything else?"
_ROTATION: Final = re.compile(r"rotation \d+")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")
_STRANGERS: Final = ("Ingrid Solheim", "Tomasz Wierzbicki", "Amara Okonkwo", "Luis Berrocal")


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the figures of the check; with ``--data`` sentences of TOFU's retain set as well."""
    names = author_names()
    checker = Checker.compile(_targets(names))
    yield from _caught(checker, names, setup)
    yield from _flagged(checker, setup)
    yield from _cost(setup)


def author_names() -> tuple[str, ...]:
    """Return the 20 authors of TOFU's forget10: fictitious; MIT, see the notice beside the file."""
    source = files("elision.testing.attacks") / "data" / "tofu_forget10_author_names.txt"
    return tuple(source.read_text("utf-8").split("\n"))


def _targets(names: Sequence[str]) -> Iterator[ForgetTarget]:
    for n, name in enumerate(names):
        phrases = (Phrase(text=name),)
        yield ForgetTarget(id=f"ft_{n}", title=f"author {n}", kind="person", phrases=phrases)


# --- caught --------------------------------------------------------------------------------------


def _caught(checker: Checker, names: Sequence[str], setup: Setup) -> Iterator[Figure]:
    shares = {name: _share(checker, name, names) for name in TRANSFORMS}
    caught = {name: share >= CAUGHT_SHARE for name, share in shares.items()}
    once = {name for name in caught if not _ROTATION.fullmatch(name)} | {"rotation 13"}
    missed = ", ".join(f"{name} {shares[name]:.2f}" for name in once if not caught[name])
    share = sum(caught[name] for name in once) / len(once)
    yield Figure(
        figure="check.caught", value=round(share, 4), unit="share",
        goal=Goal(value=0.85, sense=">="),
        conditions={
            "transforms": f"{len(once)}, the 25 rotations as one",
            "with every rotation": f"{sum(caught.values())} of {len(caught)}",
            "names": len(names), "missed (share of names found)": missed,
        },
    )  # fmt: skip


def _share(checker: Checker, transform: str, names: Sequence[str]) -> float:
    """Return the share of *names* that are found by reference in a reply written that way."""
    found = 0
    for n, name in enumerate(names):
        written = TRANSFORMS[transform].apply(name, Random(n))  # noqa: S311 -- test data
        hits = checker.check_text(_FRAME.format(written)).hits
        found += any(hit.target_id == f"ft_{n}" for hit in hits)
    return found / len(names)


# --- flagged by mistake --------------------------------------------------------------------------


def _flagged(checker: Checker, setup: Setup) -> Iterator[Figure]:
    crowd = Checker.compile(made_up(N_TARGETS))
    for source, sentences in _benign(setup.data).items():
        for name, looked_for, n_targets in (
            ("check.flagged_benign", checker, 20), ("check.flagged_crowd", crowd, N_TARGETS),
        ):  # fmt: skip
            flagged = [bool(looked_for.check_text(text).hits) for text in sentences]
            goal = Goal(value=0.01, sense="<=") if n_targets == 20 else None
            yield Figure(
                figure=f"{name}.{source}", value=round(sum(flagged) / len(flagged), 4),
                unit="share", goal=goal,
                conditions={"sentences": len(sentences), "targets": n_targets},
            )  # fmt: skip


def _benign(data: Path | None) -> Mapping[str, Sequence[str]]:
    """Return sentences without any of the names, by where they are from."""
    found = {"manual": _manual(), "templates": _templates()}
    retained = None if data is None else next(data.rglob(RETAINED), None)
    if retained is not None:
        lines = retained.read_text("utf-8").splitlines()
        found["retained"] = _sample([json.loads(line)["answer"] for line in lines])
    return found


def _manual() -> Sequence[str]:
    """Return sentences of Python's language reference, as it comes with the interpreter."""
    from pydoc_data.topics import topics

    text = " ".join(topics[topic] for topic in sorted(topics))
    return _sample([part for part in _SENTENCE_END.split(text) if 40 <= len(part) <= 1_000])


def _templates() -> Sequence[str]:
    """Return questions in 18 languages about people of other names."""
    source = files("elision.testing.attacks") / "data" / "question_templates_18_languages.jsonl"
    templates = [json.loads(line)["template"] for line in source.read_text("utf-8").splitlines()]
    return _sample([text.replace("{name}", name) for text in templates for name in _STRANGERS])


def _sample(sentences: Sequence[str]) -> Sequence[str]:
    rng = Random(0)  # noqa: S311 -- test data
    return rng.sample(sentences, k=min(N_SENTENCES, len(sentences)))


# --- cost ----------------------------------------------------------------------------------------


def _cost(setup: Setup) -> Iterator[Figure]:
    targets, seconds, checker = made_up(N_TARGETS), list[float](), None
    for _ in range(setup.repeats(3, 1)):
        start = time.perf_counter()
        checker = Checker.compile(targets)
        seconds.append(time.perf_counter() - start)
    assert checker is not None
    conditions: dict[str, Any] = {"targets": N_TARGETS}
    yield of("check.compile_s", seconds, "s", goal=Goal(value=3, sense="<="), **conditions)
    text = " ".join(_manual())
    for size, goal in ((1_000, 30), (100_000, None)):
        took = _timed(checker, text, size, setup.repeats(50, 10) if goal else setup.repeats(5, 2))
        yield of(
            "check.ms" if goal else "check.ms_100k", took, "ms",
            goal=Goal(value=goal, sense="<=") if goal else None, characters=size,
            text="Python's language reference", **conditions,
        )  # fmt: skip
        if goal:
            p99 = percentile(took, 0.99)
            yield of("check.ms.p99", [p99], "ms", characters=size, **conditions)


def _timed(checker: Checker, text: str, size: int, repeats: int) -> list[float]:
    took = []
    for n in range(repeats):
        part = text[n * 1_000 : n * 1_000 + size]
        start = time.perf_counter()
        checker.check_text(part)
        took.append((time.perf_counter() - start) * 1e3)
    return took
