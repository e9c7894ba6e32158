"""What followed the last time: continuations of the longest suffixes that have occurred before.

Replies repeat their prompts, and themselves. The text is indexed the way deflate indexes its
window: for a few lengths n, the latest place at which each n-gram ended and, from every place, the
one before it that ended the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

ORDERS: Final = (8, 4, 2, 1)
"""Lengths of the n-grams that are indexed, longest first; between them matches are extended."""
LONGEST: Final = 16
"""Tokens up to which a match is measured."""
WINDOW: Final = 16_384
"""Latest tokens that are indexed, at least; twice as many at most. About 0.5 kB each."""


class Successor(NamedTuple):
    """A token that followed a suffix of some context.

    Attributes:
        token: What followed.
        length: Tokens of the longest suffix it followed, at most `LONGEST`.
        n_seen: How often it was seen to follow, among the places looked at.
    """

    token: int
    length: int
    n_seen: int


class Spine:
    """The text of one reply and its prompt, indexed by n-grams.

    Lives for one reply. Taking in a token costs a few dictionary entries, and so does taking one
    back; memory is bounded by `WINDOW`.

    Args:
        prompt: The tokens before the reply.

    Source:
        He, Chen et al. 2023 (REST, arXiv:2311.08252) and Saxena 2023 (prompt lookup) for drafting
        from text; Oliaro et al. 2024 (suffix decoding, arXiv:2411.04975) for several
        continuations weighed by how often they were seen; hash chains after RFC 1951, section 4.
        Ours: one index for all of it, that a rewind takes back.
    """

    __slots__ = ("_before", "_heads", "_prompt", "_reply", "_text")

    def __init__(self, prompt: Sequence[int]) -> None:
        self._prompt = prompt
        self._reply: list[int] = []
        self._index(list(prompt[-WINDOW:]))

    def __repr__(self) -> str:
        return f"<Spine of {len(self._text)} tokens>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a spine holds a reply's text and is never persisted")

    def follow(self, reply: Sequence[int]) -> None:
        """Take in *reply* as it stands now: what is new, and what was taken back."""
        own = self._reply
        kept = len(own) if list(reply[: len(own)]) == own else _n_shared(own, reply)
        if kept < len(own):
            self._cut(kept)
        for token in reply[kept:]:
            self._append(token)
        own.extend(reply[kept:])
        if len(self._text) > 2 * WINDOW:
            self._index(self._text[-WINDOW:])

    def context(self, n: int) -> list[int]:
        """Return the last *n* tokens of the text; all, if there are fewer."""
        return self._text[-n:]

    def successors(self, context: Sequence[int], *, most: int) -> list[Successor]:
        """Return what followed the longest suffixes of *context*, the longest match first.

        Equal lengths come latest first; a token's length is that of its longest match.

        Args:
            context: The last tokens of a text, real or supposed; `LONGEST` of them are looked at.
            most: Places to look at.
        """
        found: dict[int, list[int]] = {}
        for place, length in self._matches(context, most).items():
            token = self._text[place + 1]
            known = found.get(token)
            if known is None:
                found[token] = [length, place, 1]
            else:
                known[2] += 1
                if (length, place) > (known[0], known[1]):
                    known[0], known[1] = length, place
        order = sorted(found.items(), key=lambda item: item[1][:2], reverse=True)
        return [Successor(token, length, n_seen) for token, (length, _, n_seen) in order]

    def _matches(self, context: Sequence[int], most: int) -> dict[int, int]:
        """Return where suffixes of *context* end in the text, and how long they are."""
        found: dict[int, int] = {}
        text, n_text = self._text, len(self._text)
        for order, heads, before in zip(ORDERS, self._heads, self._before, strict=True):
            if len(context) < order:
                continue
            place = heads.get(tuple(context[-order:]), -1)
            n_left = most - len(found)
            while place >= 0 and n_left > 0:
                if place not in found and place + 1 < n_text:
                    found[place] = _extended(text, place, context, order)
                place = before[place]
                n_left -= 1
        return found

    def _index(self, text: list[int]) -> None:
        self._text: list[int] = []
        self._heads: list[dict[tuple[int, ...], int]] = [{} for _ in ORDERS]
        self._before: list[list[int]] = [[] for _ in ORDERS]
        for token in text:
            self._append(token)

    def _append(self, token: int) -> None:
        text = self._text
        text.append(token)
        place = len(text) - 1
        for order, heads, before in zip(ORDERS, self._heads, self._before, strict=True):
            gram = tuple(text[-order:])  # shorter than the order at the beginning: matches nothing
            before.append(heads.get(gram, -1))
            heads[gram] = place

    def _cut(self, n_kept: int) -> None:
        """Take back all but the first *n_kept* tokens of the reply."""
        n_back = len(self._reply) - n_kept
        del self._reply[n_kept:]
        if n_back >= len(self._text):  # the index has left that part of the text behind
            self._index([*self._prompt, *self._reply][-WINDOW:])
            return
        for _ in range(n_back):
            self._pop()

    def _pop(self) -> None:
        for order, heads, before in zip(ORDERS, self._heads, self._before, strict=True):
            gram, place = tuple(self._text[-order:]), before.pop()
            if place < 0:
                del heads[gram]
            else:
                heads[gram] = place
        self._text.pop()


def _extended(text: list[int], place: int, context: Sequence[int], length: int) -> int:
    """Return how far *context* agrees with the text that ends at *place*, backwards."""
    limit = min(len(context), place + 1, LONGEST)
    while length < limit and text[place - length] == context[-1 - length]:
        length += 1
    return length


def _n_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
