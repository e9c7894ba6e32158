"""Which entries say the same, and which say the contrary."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from elision.memory.learning.packing import SAME

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors
    from elision.memory.learning.entries import Entry, EntryDraft

LIKE: Final = 0.85
"""Cosine above which two entries speak of the same matter (atlas_memory.md 2.7)."""
_NEGATION: Final = re.compile(
    r"\b(?:not|no|never|avoid|without|skip|stop|refrain|cannot)\b|n['\u2019]t\b"
)


def is_negative(imperative: str) -> bool:
    """Return whether *imperative* says not to do something: an odd number of English negations."""
    return len(_NEGATION.findall(imperative.casefold())) % 2 == 1


def repeats(draft: EntryDraft, vector: Vectors | None, entry: Entry) -> bool:
    """Return whether *draft* says to the same audience, of the same tasks, what *entry* says.

    That is the same cue, tool and polarity, and a cosine above `SAME`. Where a vector is missing,
    the very same words. The spec leaves the cue aside; then the same advice, found right for
    another kind of task, would stay tied to the first.

    Args:
        draft: The newer one.
        vector: Of its text, length 1; None if unknown.
        entry: The older one, with its vector.
    """
    if draft.audience != entry.audience or draft.handle != entry.handle:
        return False
    if (draft.cue.type, draft.cue.pattern) != (entry.cue.type, entry.cue.pattern):
        return False
    if is_negative(draft.imperative) != is_negative(entry.imperative):
        return False
    if vector is None or entry.vector is None:
        return _folded(draft.text) == _folded(entry.text)
    return float(vector @ entry.vector) > SAME


def contradicts(one: Entry, other: Entry) -> bool:
    """Return whether two entries advise against each other for the same cue.

    They speak of the same matter (the same cue, a cosine above `LIKE`), and either name different
    tools or differ in polarity; "use A" and "not B" agree. Without vectors none contradict.
    """
    if _matter(one) != _matter(other) or one.vector is None or other.vector is None:
        return False
    tools = None not in (one.handle, other.handle) and one.handle != other.handle
    polarity = is_negative(one.imperative) != is_negative(other.imperative)
    return tools is not polarity and float(one.vector @ other.vector) > LIKE


def parties(entries: Iterable[Entry]) -> tuple[tuple[Entry, ...], ...]:
    """Divide *entries* so that those that contradict each other, directly or not, are together.

    Returns:
        Parties of one or more, each by id; ordered by the first id. The order of *entries* does
        not matter.
    """
    matters: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.id):
        matters[_matter(entry)].append(entry)
    found = [party for matter in matters.values() for party in _divided(matter)]
    return tuple(sorted(found, key=lambda party: party[0].id))


def _divided(entries: Sequence[Entry]) -> list[tuple[Entry, ...]]:
    """Return the connected components of *entries* under `contradicts`."""
    found: list[list[Entry]] = []
    for entry in entries:
        against = [p for p in found if any(contradicts(entry, other) for other in p)]
        found = [p for p in found if not any(p is one for one in against)]
        found.append([*(one for p in against for one in p), entry])
    return [tuple(sorted(party, key=lambda entry: entry.id)) for party in found]


def _matter(entry: Entry) -> tuple[str, ...]:
    """Return what two entries must share to contradict: audience and cue.

    Semantic cues are worded freely; whether they mean the same, the vectors say.
    """
    cue = entry.cue
    pattern = "" if cue.type == "semantic" else _folded(cue.pattern)
    return entry.audience, cue.type, pattern


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
