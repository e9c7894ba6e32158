"""Asks about somebody invented in a registered one's place, and puts the name back in the reply.

What a model says of a name that never existed is what it says when it knows nothing. So a reply
about a registered name is drawn from just that: it is asked about an invented name. What still
tells: a name that is itself a phrase cannot be put back; and a question that means somebody without
naming him is asked as it stands (`elision.agents.alu.pipeline` rewrites its answer).
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from secrets import choice
from typing import Final, TypeAlias

from elision.agents.alu.covering import SAYS, WORD, Cover, Covering, as_written, permitted
from elision.agents.alu.lone import Lone
from elision.agents.alu.name_parts import BEGINNINGS, ENDINGS, GIVEN
from elision.agents.alu.overlay import overlaid, recoded
from elision.agents.alu.parts import Near, Parts
from elision.agents.alu.pseudonyms import Digest, Pseudonyms
from elision.agents.alu.revealing import Revealing
from elision.agents.alu.words import words_of
from elision.contract import Message
from elision.guards.detection.check import Checker, CheckHit
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget

_ROUNDS: Final = 32
"""A check reports 16 places of a name in disguise; so many times it is asked for more."""
_BETWEEN: Final = r"[\s\-.'’·_]{0,3}"
_LIKE_A_NAME: Final = re.compile(r"\b[^\W\d_a-z]\w+ [^\W\d_a-z]\w+")
_MOST_NAMES: Final = 24
"""Names of one conversation from which on more of them that are registered take longer."""
_Piece: TypeAlias = tuple[int, int, str]
_Covers: TypeAlias = dict[tuple[str, str], Cover]


@dataclass(frozen=True, slots=True)
class Substitution:
    """A conversation in which no registered name stands, and the way back.

    Attributes:
        messages: What the model is asked.
        n_names: Registered names that were found.
    """

    messages: tuple[Message, ...] = field(repr=False)
    n_names: int = 0
    _back: Revealing | None = field(default=None, repr=False)

    def reveal(self, reply: str, *, cut: bool = False) -> str:
        """Return *reply* with the names put back; ``that person`` where one must not stand.

        Args:
            reply: What the model said.
            cut: Whether it was broken off; its last word should be gone, which may be half a name.
        """
        if self._back is None:
            return reply
        # Also where nothing is hidden: it takes as long.
        revealed = self._back.revealed(reply, cut=cut)
        return revealed if self.n_names else reply


class Substituter:
    """A tenant's targets as names to be hidden. Immutable; holds for one epoch.

    Args:
        targets: Those in force; of targets that only observe nothing is hidden.
        checker: Compiled from them.
        digest: Keyed by the tenant; so one name is always asked about under the same other one,
            whoever asks, and nobody can tell under which.
    """

    def __init__(
        self, targets: Sequence[ForgetTarget], checker: Checker, *, digest: Digest
    ) -> None:
        acting = [it for it in targets if it.state == "active" and it.action != "observe"]
        self._targets = {it.id: it for it in acting if it.kind in SAYS}
        self._checker = checker
        self._parts = Parts(self._targets.values())
        taken = (
            N(word)
            for it in self._targets.values()
            for name in it.names
            for word in WORD.findall(name)
        )
        self._pseudonyms = Pseudonyms(digest, taken=frozenset(taken))

    def __repr__(self) -> str:
        return f"Substituter({len(self._targets)} targets)"

    def hide(self, messages: Sequence[Message]) -> Substitution:
        """Return *messages* with every registered name replaced; blocks for the check of them all.

        Names are found in every spelling that `Checker` knows, and where their parts stand near one
        another. Once a name was found, a word of it that stands alone counts for it too, wherever
        it stands. Case, separators and disguise stay. Text parts beside each other become one.
        Where nothing is found the same is done with a name that is drawn for it.
        """
        merged = [_merged(message) for message in messages]
        texts = [text for message in merged for text in _texts_of(message)]
        said = frozenset(word.form for text in texts for word in words_of(text))
        covering = Covering(self._pseudonyms, said)
        covers: _Covers = {}
        hidden = self._hidden_all(texts, covering, covers)
        _spend(covering, texts, len(covers))
        permits = permitted([*covers.values()], self._may_say)
        back = Revealing(as_written(permits, texts), self._may_say, hidden)
        if all(cover.target_id == _NOBODY for cover in covers.values()):
            return Substitution(tuple(merged), 0, back)
        rest = iter(hidden)
        return Substitution(tuple(_with_texts(m, rest) for m in merged), len(covers), back)

    def _hidden_all(self, texts: list[str], covering: Covering, covers: _Covers) -> list[str]:
        for places in (self._parts.whole, self._parts.near):
            texts = self._replaced(texts, places(texts), covering, covers)
        if not covers:
            covers[_NOBODY, ""] = _nobody(covering)
        once = [self._rest(text, covering, covers) for text in texts]
        plain, lone = _Plain(covers.values()), Lone([*covers.values()])
        return [lone.hidden(plain.hidden(text)) for text in once]

    def _may_say(self, text: str) -> bool:
        return self._checker.check_text(text).verdict == "allow"

    def _rest(self, text: str, covering: Covering, covers: _Covers) -> str:
        for _ in range(_ROUNDS):
            pieces = _apart(self._pieces(text, covering, covers))
            if not pieces:
                break
            text = _Plain(covers.values()).hidden(_put(text, pieces))
        return text

    def _pieces(self, text: str, covering: Covering, covers: _Covers) -> Iterator[_Piece]:
        """Yield the spans at which a name stands, each with what is to stand there."""
        for hit in self._checker.check_text(text).hits:
            cover = self._cover(hit, covering)
            if cover is None:
                continue
            if ">" in hit.level and not hit.level.startswith("atbash"):
                inner = partial(self._rest, covering=covering, covers=covers)
                piece = recoded(text, hit.start, hit.end, inner)
            else:
                shown = text[hit.start : hit.end]
                piece = hit.start, hit.end, _written(shown, cover)
            if piece[2] != text[piece[0] : piece[1]]:
                covers[cover.target_id, cover.name] = cover
                yield piece

    def _cover(self, hit: CheckHit, covering: Covering) -> Cover | None:
        target = self._targets.get(hit.target_id)
        if target is None:
            return None
        if hit.what == "phrase":
            name = target.phrases[hit.phrase].text
            if not _is_name(name, target):
                return None
        else:
            name = target.names[hit.phrase]
        return covering.cover(target, name)

    def _replaced(
        self, texts: list[str], places: Iterable[Near], covering: Covering, covers: _Covers
    ) -> list[str]:
        """Return *texts* with other words at *places*."""
        pieces: list[list[_Piece]] = [[] for _ in texts]
        known: dict[
            tuple[str, str, str], str
        ] = {}  # so that a hundred mentions take as long as one
        for found in places:
            cover = covering.cover(found.target, found.name)
            if cover is not None:
                covers[cover.target_id, cover.name] = cover
                shown = texts[found.at][found.start : found.end]
                key = shown, cover.target_id, cover.name
                if key not in known:
                    known[key] = _written(shown, cover)
                pieces[found.at].append((found.start, found.end, known[key]))
        return [_put(text, _apart(them)) for text, them in zip(texts, pieces, strict=True)]


_NOBODY: Final = ""
"""Id of a target that is drawn where none was found."""


def _nobody(covering: Covering) -> Cover:
    # A new name every time: of one that is known, part of the work would be remembered.
    name = " ".join(choice(words).title() + choice(ENDINGS) for words in (GIVEN, BEGINNINGS))
    drawn = covering.cover(ForgetTarget(title="-", kind="person", names=(name,)), name)
    assert drawn is not None
    return replace(drawn, target_id=_NOBODY)


def _spend(covering: Covering, texts: Sequence[str], n_covers: int) -> None:
    """Invent as many names as may stand in *texts*, so that it takes as long whoever they are."""
    n_names = sum(1 for text in texts for _ in _LIKE_A_NAME.finditer(text))
    for _ in range(min(n_names, _MOST_NAMES) - n_covers):
        _nobody(covering)


class _Plain:
    """Hides names that were found wherever they are written plainly, however often."""

    def __init__(self, covers: Iterable[Cover]) -> None:
        self._names = {N(cover.name): cover for cover in covers}
        names = sorted((cover.name for cover in self._names.values()), key=len, reverse=True)
        spelled = (_BETWEEN.join(map(re.escape, WORD.findall(name))) for name in names)
        self._pattern = re.compile(
            "|".join(rf"(?<![^\W_]){one}(?![^\W_])" for one in spelled), re.IGNORECASE
        )
        self._written: dict[str, str] = {}

    def hidden(self, text: str) -> str:
        return self._pattern.sub(self._one, text)

    def _one(self, found: re.Match[str]) -> str:
        shown = found[0]
        if shown not in self._written:
            cover = self._names.get(N(shown))
            self._written[shown] = shown if cover is None else _written(shown, cover)
        return self._written[shown]


def _written(shown: str, cover: Cover) -> str:
    """Return the invented name, or a word of it, as *shown* writes the registered one."""
    new = {N(old): new for old, new in cover.words}
    forms = {N(word) for word in WORD.findall(shown)}
    if {*new} <= forms or (len(forms) == 1 and forms <= {*new}):
        return WORD.sub(lambda it: overlaid(it[0], it[0], new.get(N(it[0]), it[0])), shown)
    return overlaid(shown, cover.name, cover.stand_in)


def _is_name(phrase: str, target: ForgetTarget) -> bool:
    """Return whether a phrase is what its target is called, not something said about it."""
    return N(phrase) in {N(target.title), *map(N, target.names)}


def _apart(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Return those of *pieces* that do not overlap, in order; of two that do, the longer."""
    kept: list[_Piece] = []
    for piece in sorted({*pieces}, key=lambda it: (it[0] - it[1], it)):
        at = bisect(kept, piece)
        before, after = kept[max(0, at - 1) : at], kept[at : at + 1]
        if all(it[1] <= piece[0] for it in before) and all(piece[1] <= it[0] for it in after):
            kept.insert(at, piece)
    return kept


def _put(text: str, pieces: Iterable[_Piece]) -> str:
    parts, at = [], 0
    for start, end, instead in pieces:
        parts += [text[at:start], instead]
        at = end
    return "".join([*parts, text[at:]])


def _merged(message: Message) -> Message:
    """Return *message* with text parts that stand beside each other as one: so a model reads it."""
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return message
    parts: list[Message] = []
    for part in content:
        if parts and part.get("type") == parts[-1].get("type") == "text":
            parts[-1] = {**parts[-1], "text": f"{parts[-1].get('text', '')}{part.get('text', '')}"}
        else:
            parts.append(part)
    return {**message, "content": parts}


def _texts_of(message: Message) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list | tuple):
        yield from (str(part.get("text", "")) for part in content if part.get("type") == "text")


def _with_texts(message: Message, texts: Iterator[str]) -> Message:
    """Return *message* with its texts replaced by the next of *texts*."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": next(texts)}
    if not isinstance(content, list | tuple):
        return message
    parts = [
        {**part, "text": next(texts)} if part.get("type") == "text" else part for part in content
    ]
    return {**message, "content": parts}
