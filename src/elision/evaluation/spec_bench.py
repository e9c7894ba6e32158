"""Spec-Bench: questions of six kinds on which speculative decoding is compared.

Source: Xia et al. 2024, arXiv:2401.07851, ``data/spec_bench/question.jsonl`` of its repository. Of
questions with several turns the first is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from elision.errors import ConfigError

FILE: Final = "spec_bench_question.jsonl"
GROUPS: Final = ("mt_bench", "translation", "summarization", "qa", "math_reasoning", "rag")
"""The six groups; the file's eight kinds of conversation make up the first."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        group: One of `GROUPS`.
        text: What is asked.
    """

    group: str
    text: str


def read(data: Path, *, per_group: int | None = 4) -> tuple[Question, ...]:
    """Read the first questions of each group from the file in *data*.

    Args:
        data: The folder that holds `FILE`.
        per_group: How many of each; None takes all.

    Returns:
        The groups by turns: first questions first, so that no group meets a machine, or a draft
        that has learned, in another state than the others.

    Raises:
        ConfigError: If the file is missing, or a line of it is no question.
    """
    file = data / FILE
    if not file.exists():
        raise ConfigError(f"{file} does not exist; --data wants the folder that holds {FILE}")
    found: dict[str, list[Question]] = {group: [] for group in GROUPS}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        question = _question(line, f"{file}, line {number}")
        found[question.group].append(question)
    return by_turns(q for questions in found.values() for q in questions[:per_group])


def _question(line: bytes, where: str) -> Question:
    try:
        row: dict[str, Any] = orjson.loads(line)
        category, text = row["category"], row["turns"][0]
    except (ValueError, TypeError, KeyError, IndexError) as exc:
        raise ConfigError(f"{where} is no question of Spec-Bench") from exc
    return Question(category if category in GROUPS else GROUPS[0], str(text))


def by_turns(questions: Iterable[Question]) -> tuple[Question, ...]:
    """Return *questions* with their groups by turns, each group's own order kept."""
    seen: dict[str, int] = {}
    turns = list[tuple[int, Question]]()
    for question in questions:
        turn = seen[question.group] = seen.get(question.group, -1) + 1
        turns.append((turn, question))
    return tuple(question for _, question in sorted(turns, key=lambda pair: pair[0]))


def first_of_each(questions: Sequence[Question], n: int) -> tuple[Question, ...]:
    """Return the first *n* of each group of *questions*, in their order."""
    seen: dict[str, int] = {}
    kept = []
    for question in questions:
        seen[question.group] = seen.get(question.group, 0) + 1
        if seen[question.group] <= n:
            kept.append(question)
    return tuple(kept)


# --- where there is no data ----------------------------------------------------------------------

_ARTICLE = """\
The council of Harrowby voted on Monday to reopen the old ferry between the town and the island of
Skarn, eleven years after the last boat was sold. The service will start in May with one vessel,
the Marigold, which carries 48 passengers and twelve bicycles but no cars. It will cross six times
a day in summer and twice in winter. A single ticket will cost four pounds; islanders pay one.

The decision ends a long dispute. When the bridge was opened, the ferry lost two thirds of its
passengers within a year, and the company that ran it gave up. Since then, however, the bridge has
been closed on forty days a year on average because of high winds, and in January the island was
cut off for nine days in a row. The school had to be closed, and medicines were flown in by
helicopter. "We were told that a bridge makes an island part of the mainland," said Ingrid Vale,
who keeps the only shop on Skarn. "It does so until the wind blows."

The Marigold was built in 1987 for a lake in the north and has been lying in a dry dock since 2019.
Repairs are estimated at 1.3 million pounds, of which the region pays half. Critics, among them the
council's own treasurer, doubt that the ferry will ever cover its costs: even with full boats in
July and August it would lose about 90,000 pounds a year. Supporters answer that the bridge does
not cover its costs either, and that nobody asks it to. A review is planned after three years."""

_PASSAGES = """\
Lighthouses of the northern coast were first lit with open coal fires, which burned up to four
tonnes a night and were hard to see in rain. Oil lamps with polished reflectors replaced them from
about 1780 on; a single lamp of this kind could be seen from twelve miles away.

The lens that Augustin Fresnel designed in 1822 bends light into a beam with rings of glass prisms,
each ground to its own angle. Because the prisms are thin, the lens needs a fraction of the glass
of an ordinary one, and it loses far less light. The first was mounted in the tower of Cordouan in
1823. Fresnel lenses are graded by order: the first order is the largest, almost three metres high,
and was used for lights that had to be seen from more than twenty miles away.

A lens that turns gives each lighthouse a rhythm of its own. The clockwork that turned it was driven
by a weight on a chain, which the keeper wound up every few hours. From 1890 on the heaviest lenses
floated in a bath of mercury, so that several tonnes of glass could be moved with one finger. The
vapour was poisonous, and several keepers are thought to have lost their minds to it.

Most lights were automated between 1960 and 1998, when the last keepers left. A lamp of 35 watts
with light-emitting diodes now does what once took four tonnes of coal."""


def own() -> tuple[Question, ...]:
    """Return one question of our own per group, for when there is no data."""
    texts = (
        "Write a letter to a friend about a week in a mountain hut, with the food, the weather "
        "and the people you met.",
        "Translate German to English: Der alte Bahnhof soll im nächsten Jahr zu einer Bibliothek "
        "umgebaut werden , doch viele Bürger fürchten , dass das Geld dafür nicht reicht .",
        f"Summarize: {_ARTICLE}",
        "who invented the first practical steam engine?",
        "A baker sells 24 loaves in the morning and half as many in the afternoon. Each loaf costs "
        "3 dollars, and every third loaf is sold for 1 dollar less. How much does he earn?",
        "How was a lighthouse lens turned, and why was that dangerous?\n\nUse these passages:\n\n"
        f"{_PASSAGES}",
    )
    return tuple(Question(group, text) for group, text in zip(GROUPS, texts, strict=True))
