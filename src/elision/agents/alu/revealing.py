"""Puts registered names back where a reply names those who stood in for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

from elision.agents.alu.overlay import overlaid, recoded
from elision.agents.alu.pseudonyms import PARTICLES, is_plain
from elision.guards.detection.check import Checker
from elision.guards.targets import ForgetTarget

_INFLECTED: Final = 5
"""Letters from which an invented word may have an ending of up to three more."""
_BETWEEN: Final = r"[\s\-.'’·]{1,3}"
_SENTENCE_ENDS: Final = (".", "!", "?", "\n", "“", '"')
_ROUNDS: Final = 8
_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0eff]")


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
    may_return: bool


class Revealing:
    """The way back for one conversation.

    Args:
        covers: Whose names were hidden.
        may_say: Whether a text may leave.
    """

    def __init__(self, covers: tuple[Cover, ...], may_say: Callable[[str], bool]) -> None:
        self._covers = covers
        self._may_say = may_say
        pairs = [(new, old, it) for it in covers for old, new in it.words]
        self._owners = {new.casefold(): (old, it) for new, old, it in pairs if not is_plain(new)}
        self._titles = [it for it in covers if any(is_plain(new) for _, new in it.words)]

    def __repr__(self) -> str:
        return f"Revealing({len(self._covers)} names)"

    def revealed(self, reply: str) -> str:
        """Return *reply* with the registered names in it, or with what is said in their place."""
        said = self._revealed(reply, plainly=True)
        return said if self._may_say(said) else self._revealed(reply, plainly=False)

    def _revealed(self, reply: str, *, plainly: bool) -> str:
        """Return it with names word by word, then those turned, spelled out or encoded.

        Args:
            reply: What the model said.
            plainly: Whether names may stand in it; only those that ever may.
        """
        return self._turned_back(self._named(reply, plainly=plainly), plainly=plainly)

    def _named(self, reply: str, *, plainly: bool) -> str:
        for cover in self._titles:
            may_stand = plainly and cover.may_return
            pattern = re.compile(_loose(cover.stand_in), re.IGNORECASE)
            reply = pattern.sub(partial(_title, reply, cover, may_stand), reply)
        if self._run is None:
            return reply
        return self._run.sub(partial(self._of_run, reply, plainly), reply)

    def _of_run(self, reply: str, plainly: bool, match: re.Match[str]) -> str:
        """Return what stands for a run of invented words in *reply*."""
        assert self._word is not None
        owners = [self._owner(found)[1] for found in self._word.finditer(match[0])]
        if plainly and all(cover.may_return for cover in owners):
            return self._word.sub(self._one, match[0])
        return _said(owners[0], reply, match.start())

    @cached_property
    def _word(self) -> re.Pattern[str] | None:
        words = sorted(self._owners, key=len, reverse=True)
        return re.compile("|".join(map(_bounded, words)), re.IGNORECASE) if words else None

    @cached_property
    def _run(self) -> re.Pattern[str] | None:
        """One invented word, or several, particles of names between them."""
        if self._word is None:
            return None
        word, small = f"(?:{self._word.pattern})", "|".join(map(re.escape, sorted(PARTICLES)))
        between = rf"{_BETWEEN}(?:(?:{small}){_BETWEEN})?"
        return re.compile(rf"{word}(?:{between}{word})*", re.IGNORECASE)

    def _owner(self, found: re.Match[str]) -> tuple[str, Cover]:
        shown = found[0].casefold()
        new = max((new for new in self._owners if shown.startswith(new)), key=len)
        return self._owners[new]

    def _one(self, found: re.Match[str]) -> str:
        old, cover = self._owner(found)
        new = next(new for it, new in cover.words if it == old)
        return overlaid(found[0][: len(new)], new, old) + found[0][len(new) :]

    def _turned_back(self, reply: str, *, plainly: bool) -> str:
        for _ in range(_ROUNDS):
            hits = self._checker.check_text(reply).hits
            if not hits:
                break
            hit = max(hits, key=lambda it: it.end - it.start)
            start, end, cover = hit.start, hit.end, self._covers[int(hit.target_id)]
            shown, instead = reply[start:end], cover.says
            if ">" in hit.level:
                named = partial(self._named, plainly=plainly)
                start, end, shown = recoded(reply, start, end, named)
                instead = shown if shown != reply[start:end] else instead
            elif plainly and cover.may_return:
                instead = overlaid(shown, cover.stand_in, cover.name)
            reply = reply[:start] + instead + reply[end:]
        return reply

    @cached_property
    def _checker(self) -> Checker:
        return Checker.compile(
            ForgetTarget(title="-", id=str(n), kind="person", names=(cover.stand_in,))
            for n, cover in enumerate(self._covers)
        )


def _said(cover: Cover, reply: str, at: int) -> str:
    """Return what is said instead of a name at character *at*."""
    before = reply[:at].rstrip(" ")
    is_inside = before and not before.endswith(_SENTENCE_ENDS)
    return cover.says if is_inside else cover.says[:1].upper() + cover.says[1:]


def _title(reply: str, cover: Cover, may_stand: bool, match: re.Match[str]) -> str:
    if may_stand:
        return overlaid(match[0], cover.stand_in, cover.name)
    return _said(cover, reply, match.start())


def _bounded(word: str) -> str:
    """Return the pattern of one invented word: whole, or with an ending where it is long."""
    if _UNSPACED.search(word):
        return re.escape(word)
    ending = r"\w{0,3}" if len(word) >= _INFLECTED else ""
    return rf"(?<!\w){re.escape(word)}{ending}(?!\w)"


def _loose(name: str) -> str:
    """Return the pattern of a whole name, whatever stands between its words."""
    return rf"(?<!\w){_BETWEEN.join(map(re.escape, name.split()))}(?!\w)"
