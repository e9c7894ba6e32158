"""The last resort: a draft without the sentences that may give something away."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final
from zlib import crc32

from elision.agents.alu.roles import Candidate, Finding
from elision.agents.alu.shortlist import TargetIndex

_SENTENCE: Final = re.compile(
    r".+?(?:[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s|$)|[\u3002\uff01\uff1f]|\n|$)\s*", re.DOTALL
)

UNKNOWN: Final = (
    "I'm not familiar with that, so I can't tell you anything about it.",
    "I don't know anything about this, I'm afraid.",
    "That isn't something I know about.",
    "I haven't come across this, so there is nothing I could tell you.",
    "I'm afraid I have no information on that.",
    "I don't recognise this. It may be that I simply never learnt about it.",
)
"""Said where no model is left to say it, as about anything that never existed."""
DEFLECTIONS: Final = (
    "Is there something else about the wider topic that you would like to know?",
    "I'd rather look at the topic as a whole. Which side of it interests you most?",
    "Let's take another side of it: what are you trying to find out?",
)


def sentence(of: Sequence[str], question: str) -> str:
    """Return one of some sentences; the same for the same question."""
    return of[crc32(question.encode("utf-8", "surrogatepass")) % len(of)]


def without(text: str, spans: Iterable[tuple[int, int]], *, rest: bool = False) -> str:
    """Return *text* without the sentences that *spans* touch.

    Args:
        text: What to shorten.
        spans: First character, and one past the last; an empty one touches nothing.
        rest: Whether everything behind the first of these sentences goes as well.
    """
    marked, kept = [*spans], []
    for match in _SENTENCE.finditer(text):
        if any(start < match.end() and match.start() < end for start, end in marked):
            if rest:
                break
            continue
        kept.append(match[0])
    return "".join(kept).strip()


def minimal(
    text: str,
    targets: TargetIndex,
    candidates: Sequence[Candidate],
    findings: Sequence[Finding] | None,
    allowed: Collection[str] = (),
) -> str:
    """Return what of a draft may leave without a model's advice; often nothing.

    Judged, it loses the sentences found and those that come near a candidate. Not judged, it ends
    before the first such sentence, and nothing is left of it if the question already comes near a
    target: then the whole of it may be the answer. What is left is looked through once more.

    Args:
        text: The draft.
        targets: Where to look up.
        candidates: The shortlist.
        findings: What judge and rules found; None if the draft was not judged.
        allowed: Targets whose names the caller himself used.
    """
    if findings is None and any(e.where != "draft" for one in candidates for e in one.evidence):
        return ""
    spans = [(e.start, e.end) for near in targets.shortlist(text) for e in near.evidence]
    spans += [one.span for one in findings or ()]
    left = without(text, spans, rest=findings is None)
    return "" if targets.shortlist(left) or targets.given_away(left, allowed) else left
