"""Views: the pieces of a prompt that the gate compares with what must not be asked for.

A question loses itself in a long prompt: of 400 paraphrased questions behind six paragraphs of
other matter the whole prompt gives away five, its sentences and windows all of them (guard.md 1.5).
Every view is a slice of the prompt as it stands, or of a plain reading of what was obfuscated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice, pairwise, zip_longest
from typing import Final, NamedTuple, TypeAlias

from elision.guards.gate.spans import Document, Salience, Span, are_covered, distinct

Readings: TypeAlias = Callable[[str], Iterable[str]]
# A sentence ends behind its stop, at a line's end, and before "2." or "(b)" that enumerate.
_SENTENCE_END = re.compile(
    r"(?<=[.!?\u2026])\s+|(?<=[.!?\u2026][\"'\u201d\u2019)\]])\s+|(?<=[\u3002\uff01\uff1f])"
    r"|[\r\n\u2028\u2029]+|(?<=\s)(?=(?:\(?(?:\d{1,2}|[a-z])[.)]|\(?[A-Z]\))\s)"
)
_CLAUSE_END = re.compile(r"(?<=[:;])\s+")
_ENUMERATOR = re.compile(r"\s*\(?(?:\d{1,2}|[A-Za-z])[.)]\s+|\s*[-*\u2022]\s+")

LEAST_WORDS: Final = 3
"""Words of a sentence that is worth a view; what is shorter lies in a window or a joint view."""
LEAST_SALIENT: Final = 16
"""Views that are kept for what looks like a probe, however long the prompt."""
_MAX_READINGS: Final = 64


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the final prompt: whoever it is from, the model reads it.

    Attributes:
        role: ``system``, ``user``, ``assistant``, ``tool`` ...
        text: Its text; left out of the ``repr``.
    """

    role: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPolicy:
    """How a prompt is cut.

    Attributes:
        words: Words of a window.
        stride: Words from one window to the next.
        joint_words: Longest sentence, turn, pair of turns or prompt that is a view as a whole:
            what is longer tells a sentence encoder little, and its windows cover it.
        max_views: Most views of one prompt.
    """

    words: int = 24
    stride: int = 8
    joint_words: int = 64
    max_views: int = 64


class Views(NamedTuple):
    """The views of one prompt.

    Attributes:
        texts: All different, white space made even.
        covered: Whether every word of the prompt and of its readings stands in one of them.
        documents: What was searched for views: the prompt, then its readings.
    """

    texts: tuple[str, ...]
    covered: bool
    documents: tuple[str, ...]


def no_readings(text: str) -> Iterable[str]:
    """Read nothing into *text*."""
    return ()


def make_views(
    turns: Sequence[Turn],
    *,
    policy: ViewPolicy | None = None,
    readings: Readings = no_readings,
    salience: Salience | None = None,
) -> Views:
    """Return the views of the prompt that *turns* make up.

    They are: the whole prompt, each user's turn, each with the turn before it, and the prompt up
    to it; every sentence of three words, also between colons and enumerators; windows; and the
    same of every plain reading of an obfuscated turn. Hence the views of a conversation's
    beginning are among those of its continuation, and what was found once is found again, as
    long as there are no more than `ViewPolicy.max_views`.

    Beyond that the joint views of the last turn come first, then the sentences and windows whose
    words weigh most, then windows at even distances. Linear in the prompt's length.

    Args:
        turns: All messages, in order.
        policy: How to cut.
        readings: Gives the plausible plain readings of a text.
        salience: What to look for if not everything can be a view.

    Source:
        GUARD's gate on whole prompts (arXiv:2505.13312); the views are guard.md 1.6.4, with
        joint views of up to 64 words where the spec sets no bound.
    """
    policy = policy or ViewPolicy()
    turns = [turn for turn in turns if turn.text.strip()]
    documents, complete = _documents(turns, readings)
    joint = list(_joint(turns, documents[0], policy))
    parts = [span for document in documents for span in _parts(document, policy)]
    windows = [span for document in documents for span in _windows(document, turns, policy)]
    chosen = distinct(documents, [*joint, *parts, *windows])
    if len(chosen) > policy.max_views:
        weights = [document.weights(salience or {}) for document in documents]
        ordered = distinct(documents, _selected(joint, parts, windows, weights, policy))
        chosen = dict(islice(ordered.items(), policy.max_views))
    covered = complete and are_covered(documents, chain.from_iterable(chosen.values()))
    return Views(tuple(chosen), covered, tuple(document.text for document in documents))


def _documents(turns: Sequence[Turn], readings: Readings) -> tuple[list[Document], bool]:
    text = "\n".join(turn.text for turn in turns)
    room = 4 * len(text) + 4096
    found: dict[str, None] = {text: None}
    for turn in turns:
        for reading in readings(turn.text):
            if reading in found:
                continue
            room -= len(reading)
            if room < 0 or len(found) > _MAX_READINGS:
                return [Document(n, text) for n, text in enumerate(found)], False
            found[reading] = None
    return [Document(n, text) for n, text in enumerate(found)], True


def _ends(turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """Return where each turn begins and ends in the joined prompt."""
    ends = list(accumulate((len(turn.text) + 1 for turn in turns), initial=0))
    return [(start, end - 1) for start, end in pairwise(ends)]


def _joint(turns: Sequence[Turn], prompt: Document, policy: ViewPolicy) -> Iterator[Span]:
    """Yield the joint views, those that end with the last turn first."""
    places = _ends(turns)
    asked = [n for n, turn in enumerate(turns) if turn.role == "user" or n == len(turns) - 1]
    for n in reversed(asked):
        for start in dict.fromkeys((0, places[n][0], places[max(n - 1, 0)][0])):
            span = prompt.within(start, places[n][1])
            if span and span.last - span.first <= policy.joint_words:
                yield span


def _parts(document: Document, policy: ViewPolicy) -> Iterator[Span]:
    """Yield the sentences, and the parts of those that have a colon or an enumerator."""
    if document.index:  # a reading is a turn's; the prompt as a whole is among the joint views
        yield from _fitting(document, [(0, len(document.text))], policy, least=1)
    for start, end in _split(_SENTENCE_END, document.text, 0, len(document.text)):
        clauses = list(_split(_CLAUSE_END, document.text, start, end))
        spans = [(start, end)] if len(clauses) < 2 else [(start, end), *clauses]
        marked = _ENUMERATOR.match(document.text, start, end)
        yield from _fitting(document, spans if not marked else [(marked.end(), end)], policy)


def _split(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(text, start, end):
        if match.start() > start:
            yield start, match.start()
        start = match.end()
    if start < end:
        yield start, end


def _fitting(
    document: Document,
    places: Iterable[tuple[int, int]],
    policy: ViewPolicy,
    *,
    least: int = LEAST_WORDS,
) -> Iterator[Span]:
    for start, end in places:
        span = document.within(start, end)
        if span and least <= span.last - span.first <= policy.joint_words:
            yield span


def _windows(document: Document, turns: Sequence[Turn], policy: ViewPolicy) -> Iterator[Span]:
    """Yield the windows: at even distances, and one at the end of every user's turn."""
    n_words = len(document)
    if n_words <= policy.words:
        return
    for first in range(0, n_words - policy.words + 1, policy.stride):
        yield document.words(first, first + policy.words)
    ends = [n_words]
    if not document.index:
        places = zip(turns, _ends(turns), strict=True)
        spans = [document.within(0, end) for turn, (_, end) in places if turn.role == "user"]
        ends += [span.last for span in spans if span and span.last > policy.words]
    for last in ends:
        yield document.words(last - policy.words, last)


def _selected(
    joint: list[Span],
    parts: list[Span],
    windows: list[Span],
    weights: list[list[float]],
    policy: ViewPolicy,
) -> list[Span]:
    """Return the candidates in the order in which they deserve a view."""

    def weight(span: Span) -> float:
        sums = weights[span.document]
        return sums[span.last] - sums[span.first]

    first = joint[:3]
    room = policy.max_views - len(first)
    n_needed = -(-sum(len(sums) - 1 for sums in weights) // policy.words) + len(weights)
    n_salient = max(room - n_needed, min(LEAST_SALIENT, room // 2))
    weighty = (span for span in (*parts, *windows) if weight(span) > 0)
    heavy = sorted(weighty, key=weight, reverse=True)[:n_salient]
    spread = _spread(windows, room - len(heavy))
    return [*first, *heavy, *spread, *parts, *joint, *windows]


def _spread(windows: list[Span], room: int) -> list[Span]:
    """Return windows that cover everything, or as many of them as there is *room* for."""
    needed: list[Span] = []
    ordered = sorted(windows)
    for span, following in zip_longest(ordered, ordered[1:]):
        reached = needed[-1].last if needed and needed[-1].document == span.document else 0
        if following is None or following.document != span.document or following.first > reached:
            needed.append(span)
    if len(needed) <= room:
        return needed
    return [needed[n * len(needed) // room] for n in range(room)]
