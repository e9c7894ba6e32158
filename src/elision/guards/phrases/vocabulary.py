"""What the tokens of a lexicon come to in the normal forms, sorted for look-up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, Final
from weakref import WeakKeyDictionary

from elision.guards.phrases.normal import SEP, N_b, ends_inside, fold, word_starts, words_apart

if TYPE_CHECKING:
    from torch import Tensor

    from elision.contract import Lexicon

_AFTER_SEP: Final = chr(ord(SEP) + 1)
_AFTER_ALL: Final = chr(0x10FFFF)


def ids(tokens: Iterable[int]) -> Tensor:
    """Return *tokens* as a tensor, shape ``(n,)``, int64."""
    import torch

    return torch.tensor(list(tokens), dtype=torch.long)


class Pieces:
    """The normalised pieces of a vocabulary in one form, sorted; tokens that write none left out.

    Args:
        pieces: What each token comes to.
        more: Other readings of single tokens.

    Attributes:
        tokens: The tokens in the order of their pieces, shape ``(n,)``, int64.
        longest: Symbols of the longest piece.
    """

    def __init__(self, pieces: Sequence[str], more: Iterable[tuple[str, int]] = ()) -> None:
        ordered = sorted((piece, token) for token, piece in enumerate(pieces) if piece)
        ordered = sorted([*ordered, *more]) if more else ordered
        self._keys = [piece for piece, _ in ordered]
        self._openings = {piece[:n] for piece in set(self._keys) for n in range(1, len(piece) + 1)}
        self.tokens = ids(token for _, token in ordered)
        self.longest = max(map(len, self._keys), default=0)

    def opening(self, rest: str, *, closed: bool) -> tuple[int, int]:
        """Return the range of pieces that begin with *rest*.

        Args:
            rest: What is still missing of a phrase.
            closed: Whether *rest* must end the piece or be followed by a `SEP` in it. `SEP` sorts
                before every other symbol, hence one range serves that as well.
        """
        if rest not in self._openings:  # true of most, and cheaper to ask than to search
            return 0, 0
        low = bisect_left(self._keys, rest)
        end = rest + (_AFTER_SEP if closed else _AFTER_ALL)
        return low, bisect_left(self._keys, end, lo=low)

    def distinct(self) -> Iterator[tuple[str, list[int]]]:
        """Yield every different piece with the tokens that write it."""
        tokens = self.tokens.tolist()
        for piece, group in groupby(range(len(tokens)), key=self._keys.__getitem__):
            yield piece, [tokens[index] for index in group]


def _begins_with_capital(text: str) -> bool:
    first = next((char for char in text if fold(char)), "")
    return first.isupper()


class Vocabulary:
    """What the tokens of a lexicon come to in N and N_b. Immutable; one per lexicon.

    A token that ends inside a character counts with the whole characters before that; the rest of
    the character is the next token's affair.

    Attributes:
        bounded_pieces: What each token comes to in N_b.
        plain_pieces: Likewise in N.
        apart: Whether a word begins inside a word somewhere in a token.
        inside: Whether a capital behind a token would begin a word in the middle of one; None for
            tokens that leave that as it was.
        whole: Whether each token is whole characters.
        capital: Whether each token begins with a capital.
        continues: Whether each token begins by continuing a character, shape ``(n,)``, bool.
    """

    _of: ClassVar[WeakKeyDictionary[Lexicon, Vocabulary]] = WeakKeyDictionary()

    def __init__(self, lexicon: Lexicon) -> None:
        heads = [
            lexicon.write(b"", token)[0] if text is None else text
            for token, text in enumerate(lexicon.texts)
        ]
        self.bounded_pieces = [N_b(head) for head in heads]
        self.plain_pieces = [piece.replace(SEP, "") for piece in self.bounded_pieces]
        self.apart = bytearray(bool(word_starts(head)) for head in heads)
        self._apart = [
            (piece, token)
            for token, head in enumerate(heads)
            if self.apart[token]
            for piece in words_apart(head)
            if piece != self.bounded_pieces[token]
        ]
        self.inside = [
            ends_inside(head) if piece else None
            for head, piece in zip(heads, self.bounded_pieces, strict=True)
        ]
        self.whole = bytearray(text is not None for text in lexicon.texts)
        self.capital = bytearray(map(_begins_with_capital, heads))
        self.continues = ids([0] * len(lexicon)).bool()
        self.continues[ids(lexicon.continuing)] = True

    @cached_property
    def plain(self) -> Pieces:
        """The pieces in N, sorted."""
        return Pieces(self.plain_pieces)

    @cached_property
    def bounded(self) -> Pieces:
        """The pieces in N_b, sorted; those with a word inside a word also as two."""
        return Pieces(self.bounded_pieces, self._apart)

    @classmethod
    def of(cls, lexicon: Lexicon) -> Vocabulary:
        """Return the vocabulary of *lexicon*, made once for as long as the lexicon lives."""
        try:
            made = cls._of.get(lexicon)
        except TypeError:  # cannot be hashed or referred to weakly: nothing to remember it by
            return cls(lexicon)
        return made or cls._of.setdefault(lexicon, cls(lexicon))
