"""The invented names of one conversation: no two alike, and no word of it that the caller wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from elision.agents.alu.pseudonyms import Part, Pseudonyms
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget, Kind

SAYS: Final[Mapping[Kind, str]] = {
    "person": "that person", "organisation": "that organisation", "work": "that work",
}  # fmt: skip
"""By kind, what a reply says where a name must not stand; other kinds have no names to hide."""
WORD: Final = re.compile(r"[^\s\-.,;:!?'’·()\"/&]+")
_DRAWS: Final = 64


@dataclass(frozen=True, slots=True)
class Cover:
    """A registered name, and the one that stands in for it.

    Attributes:
        target_id: Whose it is.
        name: The registered name.
        stand_in: The invented one.
        words: Its words that changed: the registered and the invented one.
        says: What a reply says in its place where it must not stand.
        may_return: Whether it may stand in a reply: neither it nor a word of it is a phrase.
    """

    target_id: str
    name: str = field(repr=False)
    stand_in: str = field(repr=False)
    words: tuple[tuple[str, str], ...] = field(repr=False)
    says: str
    may_return: bool = True


def permitted(covers: Sequence[Cover], may_say: Callable[[str], bool]) -> tuple[Cover, ...]:
    """Return *covers* with what may return of them; where all may, at the price of one check.

    Args:
        covers: Any.
        may_say: Whether a text may leave.
    """
    if may_say("\n".join(text for cover in covers for text in _said_by(cover))):
        return tuple(covers)
    return tuple(replace(it, may_return=all(map(may_say, _said_by(it)))) for it in covers)


def as_written(covers: Sequence[Cover], texts: Iterable[str]) -> tuple[Cover, ...]:
    """Return *covers* whose registered words have the accents that *texts* write them with.

    A caller who left an accent out would know from one in the reply that the name is known.
    """
    olds = {N(old) for cover in covers for old, _ in cover.words}
    spelled = {N(word): word for text in texts for word in WORD.findall(text) if N(word) in olds}
    return tuple(
        replace(
            it, words=tuple((_spelled(old, spelled.get(N(old), old)), new) for old, new in it.words)
        )
        for it in covers
    )


def _spelled(old: str, shown: str) -> str:
    return old if shown.casefold() == old.casefold() else _cased(old, shown.casefold())


def _said_by(cover: Cover) -> tuple[str, ...]:
    return cover.name, *(old for old, _ in cover.words)


class Covering:
    """Invents names for one conversation.

    Args:
        pseudonyms: The tenant's.
        said: Normal forms of the conversation's words; none of them is invented.
    """

    def __init__(self, pseudonyms: Pseudonyms, said: frozenset[str]) -> None:
        self._pseudonyms = pseudonyms
        self._used = {*said}
        self._known: dict[tuple[str, Part, bool], str] = {}
        self._covers: dict[tuple[str, str], Cover | None] = {}

    def cover(self, target: ForgetTarget, name: str) -> Cover | None:
        """Return what stands in for *name*; None if no word of it tells anybody apart."""
        key = target.id, name
        if key not in self._covers:
            self._covers[key] = self._cover(target, name)
        return self._covers[key]

    def _cover(self, target: ForgetTarget, name: str) -> Cover | None:
        words: list[tuple[str, str]] = []
        found = WORD.findall(name)

        def invent(match: re.Match[str]) -> str:
            part: Part = "given" if match.start() == 0 and len(found) > 1 else "family"
            new = _cased(match[0], self._word(match[0], part, target.kind != "person"))
            if N(new) != N(match[0]):
                words.append((match[0], new))
            return new

        stand_in = WORD.sub(invent, name)
        if not words:
            return None
        return Cover(target.id, name, stand_in, tuple(words), SAYS[target.kind])

    def _word(self, old: str, part: Part, plain: bool) -> str:
        """Return what stands for *old* in this conversation, for every name that has it."""
        key = N(old), part, plain
        if key not in self._known:
            self._known[key] = self._drawn(old, part, plain)
        return self._known[key]

    def _drawn(self, old: str, part: Part, plain: bool) -> str:
        new = ""
        for draw in range(_DRAWS):
            # A caller may have written every given name there is, and every ordinary word.
            late = draw >= _DRAWS // 2
            new = self._pseudonyms.word(
                old, "family" if late else part, plain=plain and not late, draw=draw
            )
            if N(new) == N(old) or N(new) not in self._used:
                break
        self._used.add(N(new))
        return new


def _cased(old: str, new: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new
