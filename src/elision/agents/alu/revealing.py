"""Puts registered names back where a reply names those who stood in for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Final

from elision.agents.alu.covering import Cover
from elision.agents.alu.lone import is_behind_a_name
from elision.agents.alu.overlay import overlaid, recoded, respelt
from elision.agents.alu.pseudonyms import PARTICLES, is_given, is_plain
from elision.guards.detection.check import Checker, CheckHit
from elision.guards.targets import ForgetTarget

_INFLECTED: Final = 5
"""Letters from which an invented word may have an ending of up to three more."""
_BETWEEN: Final = r"[\s\-.'’·*_]{1,5}"
_SENTENCE_ENDS: Final = (".", "!", "?", "\n", "“", '"')
_ROUNDS: Final = 8
_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0eff]")
_UNSPACED_END: Final = re.compile(rf"{_UNSPACED.pattern}{{1,4}}\W*$")
_LAST: Final = re.compile(r"\s*\S+\s*$")
_NAME: Final = r"[^\W\d_a-z][^\W\d_]*"
_COMMA: Final = r"(?:[,;]\s*(?:(?:and|or|und|y|et)\s+)?|\n\W*)"
_BEFORE: Final = re.compile(rf"(?:\b{_NAME}{_COMMA}){{1,2}}$")
_AFTER: Final = re.compile(rf"(?:{_COMMA}{_NAME}\b){{1,2}}")


def without_last_word(text: str) -> str:
    """Return *text*, that was broken off, without its last word: it may be half of a name."""
    if _UNSPACED_END.search(text):
        return _UNSPACED_END.sub("", text)
    return _LAST.sub("", text)


class Revealing:
    """The way back for one conversation.

    A word that was invented comes back wherever it stands. A given name that others bear as well
    does not where it is part of another name, or one of a list. Words of which titles are made come
    back together only.

    Args:
        covers: Whose names were hidden.
        may_say: Whether a text may leave.
        asked: What the model was asked, the names hidden.
    """

    def __init__(
        self,
        covers: tuple[Cover, ...],
        may_say: Callable[[str], bool],
        asked: Sequence[str] = (),
    ) -> None:
        self._covers = covers
        self._may_say = may_say
        pairs = [(new, old) for it in covers for old, new in it.words if not is_plain(new)]
        self._old = {new.casefold(): (new, old) for new, old in pairs}
        self._titles = [it for it in covers if any(is_plain(new) for _, new in it.words)]
        self._asked = "\n".join(asked)
        self._known: dict[tuple[str, bool], str] = {}

    def __repr__(self) -> str:
        return f"Revealing({len(self._covers)} names)"

    def revealed(self, reply: str, *, cut: bool = False) -> str:
        """Return *reply* with the registered names in it, or with what is said in their place.

        Args:
            reply: What the model said.
            cut: Whether it was broken off: then it may end with the beginning of a title.
        """
        said = self._revealed(reply, plainly=True, cut=cut)
        return said if self._may_say(said) else self._revealed(reply, plainly=False, cut=cut)

    def _revealed(self, reply: str, *, plainly: bool, cut: bool) -> str:
        """Return it with names word by word, then those turned, spelled out or encoded.

        Args:
            reply: What the model said.
            plainly: Whether names may stand in it; only those that ever may.
            cut: See `revealed`.
        """
        if cut:
            reply = self._whole_end(reply, plainly=plainly)
        return self._turned_back(self._named(reply, plainly=plainly), plainly=plainly)

    def _whole_end(self, reply: str, *, plainly: bool) -> str:
        """Return *reply*, at whose end the beginning of a title may stand, with the right one."""
        for cover in self._titles:
            new, old = cover.stand_in.split(), cover.name.split()
            for n in range(len(new) - 1, 0, -1):
                found = re.search(rf"{_loose(' '.join(new[:n]))}\W*$", reply, re.IGNORECASE)
                if found is not None and new[:n] != old[:n]:
                    may_stand = plainly and cover.may_return
                    instead = " ".join(old[:n]) if may_stand else _said(cover, reply, found.start())
                    return reply[: found.start()] + instead
        return reply

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
        if (match[0], plainly) in self._known:
            return self._known[match[0], plainly]
        assert self._word is not None
        news = [self._new(found[0]) for found in self._word.finditer(match[0])]
        if len(news) == 1 and not self._is_his(news[0], reply, match):
            return match[0]
        owners = self._owners(frozenset(news))
        if not plainly or not all(cover.may_return for cover in owners):
            return _said(owners[0], reply, match.start())
        written = self._word.sub(self._one, match[0])
        if len(news) > 1:
            self._known[match[0], plainly] = written
        return written

    def _is_his(self, new: str, reply: str, match: re.Match[str]) -> bool:
        """Return whether a word that stands alone is meant as the name of who was asked about."""
        if not match[0][0].isupper() and self._old[new][0][0].isupper():
            return match[0] in self._asked
        if not is_given(new):
            return True
        before, after = reply[max(0, match.start() - 80) : match.start()], reply[match.end() :][:80]
        follows = re.match(r" ([^\W\d_]\w*)", after)
        if follows and follows[1][0].isupper() and f"{match[0]} {follows[1]}" not in self._asked:
            return False
        if is_behind_a_name(before):
            return f"{before.split()[-1]} {match[0]}" in self._asked
        return not _is_listed(before, after)

    @cached_property
    def _word(self) -> re.Pattern[str] | None:
        words = sorted(self._old, key=len, reverse=True)
        return re.compile("|".join(map(_bounded, words)), re.IGNORECASE) if words else None

    @cached_property
    def _run(self) -> re.Pattern[str] | None:
        """One invented word, or several, particles of names between them."""
        if self._word is None:
            return None
        word, small = f"(?:{self._word.pattern})", "|".join(map(re.escape, sorted(PARTICLES)))
        between = rf"{_BETWEEN}(?:(?:{small}|\w\.){_BETWEEN})?"
        return re.compile(rf"{word}(?:{between}{word})*", re.IGNORECASE)

    def _new(self, shown: str) -> str:
        small = shown.casefold()
        return max((new for new in self._old if small.startswith(new)), key=len)

    def _owners(self, news: frozenset[str]) -> Sequence[Cover]:
        """Return those in whose name all of these words stand; if nobody's, of each word."""
        named = [({new.casefold() for _, new in it.words}, it) for it in self._covers]
        return [it for words, it in named if news <= words] or [
            it for words, it in named if news & words
        ]

    def _one(self, found: re.Match[str]) -> str:
        new, old = self._old[self._new(found[0])]
        return overlaid(found[0][: len(new)], new, old) + found[0][len(new) :]

    def _turned_back(self, reply: str, *, plainly: bool) -> str:
        for _ in range(_ROUNDS):
            parts, at = [], 0
            for start, end, instead in self._turned(reply, plainly):
                if start >= at:
                    parts += [reply[at:start], instead]
                    at = end
            if not parts:
                break
            reply = "".join([*parts, reply[at:]])
        return reply

    def _turned(self, reply: str, plainly: bool) -> Iterator[tuple[int, int, str]]:
        """Yield where an invented name stands in disguise, with what is to stand there.

        What is spelled in a way that nothing can be put in its place stays: letters are not hidden.
        """
        hits = self._checker.check_text(reply).hits
        for hit in sorted(hits, key=lambda it: (it.start, -it.end)):
            piece = self._piece(reply, hit, self._covers[int(hit.target_id)], plainly)
            if piece[2] != reply[piece[0] : piece[1]]:
                yield piece

    def _piece(
        self, reply: str, hit: CheckHit, cover: Cover, plainly: bool
    ) -> tuple[int, int, str]:
        shown, may_stand = reply[hit.start : hit.end], plainly and cover.may_return
        spelt = respelt(reply, hit.start, hit.end, cover.stand_in, cover.name)
        if spelt is not None:
            return spelt if may_stand else (*spelt[:2], cover.says)
        if ">" in hit.level:
            return recoded(reply, hit.start, hit.end, partial(self._named, plainly=plainly))
        instead = overlaid(shown, cover.stand_in, cover.name) if may_stand else cover.says
        return hit.start, hit.end, instead

    @cached_property
    def _checker(self) -> Checker:
        return Checker.compile(
            ForgetTarget(title="-", id=str(n), kind="person", names=(cover.stand_in,))
            for n, cover in enumerate(self._covers)
        )


def _is_listed(before: str, after: str) -> bool:
    """Return whether at least two more of a list of names stand around a name."""
    found = _BEFORE.search(before), _AFTER.match(after)
    # Two commas or lines on one side, or one on each.
    return sum(len(re.findall(_COMMA, it[0])) for it in found if it is not None) > 1


def _said(cover: Cover, reply: str, at: int) -> str:
    """Return what is said instead of a name at character *at*."""
    before = reply[max(0, at - 80) : at].rstrip(" ")
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
    ending = r"[^\W\d_]{0,3}" if len(word) >= _INFLECTED else ""
    if is_given(word):
        ending = "s?"
    return rf"(?<![^\W\d_]){re.escape(word)}{ending}(?![^\W\d_])"


def _loose(name: str) -> str:
    """Return the pattern of a whole name, whatever stands between its words."""
    return rf"(?<!\w){_BETWEEN.join(map(re.escape, name.split()))}(?!\w)"
