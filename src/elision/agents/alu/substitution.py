"""Asks about somebody invented in a registered one's place, and puts the name back in the reply.

What a model says of a name that never existed is what it says when it knows nothing. So a reply
about a registered name is drawn from just that: it is asked about an invented name. What still
tells: a name that is itself a phrase cannot be put back; and a question that means somebody without
naming him is asked as it stands (`elision.agents.alu.pipeline` rewrites its answer).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import choice
from typing import Final

from elision.agents.alu.name_parts import BEGINNINGS, ENDINGS, GIVEN
from elision.agents.alu.overlay import overlaid, recoded
from elision.agents.alu.pseudonyms import Digest, Part, Pseudonyms, is_plain
from elision.agents.alu.revealing import Cover, Revealing
from elision.contract import Message
from elision.guards.detection.check import Checker, CheckHit
from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget, Kind

SAYS: Final[Mapping[Kind, str]] = {
    "person": "that person", "organisation": "that organisation", "work": "that work",
}  # fmt: skip
"""By kind, what a reply says where a name must not stand; other kinds have no names to hide."""
WORD: Final = re.compile(r"[^\s\-.,;:!?'’·()\"/&]+")
_TITLES: Final = frozenset("dr herr frau lady lord madam miss mr mrs ms prof professor sir".split())
_BEFORE: Final = re.compile(r"(?:^|(?P<ends>[.!?:\n\"“])\s*|\s)(?P<word>[^\W\d_]+)[.\s]*\s$")
_LEAST: Final = 3
"""Letters of a word that stands for a whole name where it stands alone."""
_ROUNDS: Final = 32
"""A check reports 16 places of a name; so many times it is asked for more."""


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

    def reveal(self, reply: str) -> str:
        """Return *reply* with the names put back; ``that person`` where one must not stand."""
        if self._back is None:
            return reply
        revealed = self._back.revealed(reply)  # also where nothing is hidden: it takes as long
        return revealed if self.n_names else reply


class Substituter:
    """A tenant's targets as names to be hidden. Immutable; holds for one epoch.

    Args:
        targets: Those in force.
        checker: Compiled from them.
        digest: Keyed by the tenant; so one name is always asked about under the same other one,
            whoever asks, and nobody can tell under which.
    """

    def __init__(
        self, targets: Sequence[ForgetTarget], checker: Checker, *, digest: Digest
    ) -> None:
        self._targets = {it.id: it for it in targets if it.kind in SAYS}
        self._checker = checker
        taken = (N(word) for it in self._targets.values() for word in _words_of(it))
        self._pseudonyms = Pseudonyms(digest, taken=frozenset(taken))

    def __repr__(self) -> str:
        return f"Substituter({len(self._targets)} targets)"

    def hide(self, messages: Sequence[Message]) -> Substitution:
        """Return *messages* with every registered name replaced; blocks for the check of them all.

        Names are found in every spelling that `Checker` knows. Once a name was found, a word of it
        that stands alone counts for it too, wherever it stands. Case, separators and disguise stay.
        Where none is found it takes about as long.
        """
        covers: dict[tuple[str, str], Cover] = {}
        hidden = [_with_text(m, lambda text: self._hidden(text, covers)) for m in messages]
        if not covers:
            return self._idle(messages)
        lone = _Lone([*covers.values()])
        hidden = [_with_text(message, lone.hidden) for message in hidden]
        back = Revealing(tuple(covers.values()), self._may_say)
        return Substitution(tuple(hidden), len(covers), back)

    def _idle(self, messages: Sequence[Message]) -> Substitution:
        """Return *messages* as they are, after the work that hiding a name would have been."""
        # A new name every time: of one that is known, half of the work would be remembered.
        name = " ".join(choice(words).title() + choice(ENDINGS) for words in (GIVEN, BEGINNINGS))
        cover = self._covered(ForgetTarget(title="-", kind="person", names=(name,)), name)
        assert cover is not None
        for message in messages:
            _with_text(message, lambda text: self._hidden(text, {}))
            _with_text(message, _Lone([cover]).hidden)
        return Substitution(tuple(messages), 0, Revealing((cover,), self._may_say))

    def _may_say(self, text: str) -> bool:
        return self._checker.check_text(text).verdict == "allow"

    def _hidden(self, text: str, covers: dict[tuple[str, str], Cover]) -> str:
        for _ in range(_ROUNDS):
            pieces = _apart(self._pieces(text, covers))
            if not pieces:
                break
            for start, end, instead in reversed(pieces):
                text = text[:start] + instead + text[end:]
        return text

    def _pieces(
        self, text: str, covers: dict[tuple[str, str], Cover]
    ) -> Iterator[tuple[int, int, str]]:
        """Yield the spans at which a name stands, each with what is to stand there."""
        for hit in self._checker.check_text(text).hits:
            cover = self._cover(hit)
            if cover is None:
                continue
            if ">" in hit.level and not hit.level.startswith("atbash"):
                piece = recoded(text, hit.start, hit.end, lambda said: self._hidden(said, covers))
            else:
                shown = text[hit.start : hit.end]
                piece = hit.start, hit.end, overlaid(shown, cover.name, cover.stand_in)
            if piece[2] != text[piece[0] : piece[1]]:
                covers[cover.target_id, cover.name] = cover
                yield piece

    def _cover(self, hit: CheckHit) -> Cover | None:
        target = self._targets.get(hit.target_id)
        if target is None:
            return None
        if hit.what == "phrase":
            name = target.phrases[hit.phrase].text
            if not _is_name(name, target):
                return None
        else:
            name = target.names[hit.phrase]
        return self._covered(target, name)

    def _covered(self, target: ForgetTarget, name: str) -> Cover | None:
        words: list[tuple[str, str]] = []
        found = WORD.findall(name)

        def invent(match: re.Match[str]) -> str:
            part: Part = "given" if match.start() == 0 and len(found) > 1 else "family"
            plain = target.kind != "person"
            new = _cased(match[0], self._pseudonyms.word(match[0], part, plain=plain))
            if N(new) != N(match[0]):
                words.append((match[0], new))
            return new

        stand_in = WORD.sub(invent, name)
        if not words:
            return None
        may_return = self._may_say(name) and all(self._may_say(old) for old, _ in words)
        return Cover(target.id, name, stand_in, tuple(words), SAYS[target.kind], may_return)


class _Lone:
    """Hides words of names that were found, where they stand alone."""

    def __init__(self, covers: Sequence[Cover]) -> None:
        self._instead = {
            old: new
            for cover in covers
            for old, new in cover.words
            if len(old) >= _LEAST and N(old) not in common_words() and not is_plain(new)
        }
        words = "|".join(map(re.escape, sorted(self._instead, key=len, reverse=True)))
        self._pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)") if words else None

    def hidden(self, text: str) -> str:
        """Return *text* with each of these words replaced, unless it is another name's."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._one(text, found), text)

    def _one(self, text: str, found: re.Match[str]) -> str:
        after = text[found.end() :].lstrip(" ")[:1]
        joins = text[found.end() : found.end() + 1] == " " and after.isupper()
        if joins or _is_behind_a_name(text[: found.start()]):
            return found[0]
        return self._instead[found[0]]


def _is_behind_a_name(before: str) -> bool:
    """Return whether *before* ends with a capitalised word that begins no sentence."""
    match = _BEFORE.search(before[-64:])
    if match is None or not match["word"][0].isupper():
        return False
    is_first = match["ends"] is not None or not before[-64:][: match.start("word")].strip()
    return not is_first and match["word"].casefold() not in _TITLES


def _words_of(target: ForgetTarget) -> Iterator[str]:
    for name in target.names:
        yield from WORD.findall(name)


def _is_name(phrase: str, target: ForgetTarget) -> bool:
    """Return whether a phrase is what its target is called, not something said about it."""
    return N(phrase) in {N(target.title), *map(N, target.names)}


def _cased(old: str, new: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _apart(pieces: Iterator[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Return those of *pieces* that do not overlap, in order; of two that do, the longer."""
    kept: list[tuple[int, int, str]] = []
    for piece in sorted(pieces, key=lambda it: (it[0] - it[1], it[0])):
        if all(piece[1] <= start or end <= piece[0] for start, end, _ in kept):
            kept.append(piece)
    return sorted(kept)


def _with_text(message: Message, change: Callable[[str], str]) -> Message:
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": change(content)}
    if not isinstance(content, list | tuple):
        return message
    parts = [
        {**part, "text": change(str(part.get("text", "")))} if part.get("type") == "text" else part
        for part in content
    ]
    return {**message, "content": parts}
