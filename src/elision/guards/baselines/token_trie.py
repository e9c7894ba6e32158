"""A trie over the token ids of phrases, in the spellings a tokenizer tells apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Final, TypeAlias

Tokenize: TypeAlias = Callable[[list[str]], Sequence[Sequence[int]]]
Nodes: TypeAlias = tuple[int, ...]
"""Where a reply stands: the nodes of all its suffixes that begin a phrase. A value."""

_ENDINGS: Final = ("", ".", ",", "!", "?", ";", ":", '"', ")", "'s")


def spellings(phrase: str) -> tuple[str, ...]:
    """Return *phrase* bare and behind a space, in four cases, with and without punctuation.

    Source:
        guard.md 1.4: the bare form finds 7.6 % of true occurrences, all of these together 100 %.
    """
    text = " ".join(phrase.split())
    cases = (text, text.lower(), text.upper(), text.title())
    return tuple(dict.fromkeys("".join(p) for p in product(("", " "), cases, _ENDINGS)))


class TokenTrie:
    """Follows a reply token by token and tells how much of a phrase its end is. Immutable.

    Args:
        phrases: The texts.
        tokenize: Turns texts into token ids, no special ones among them.
    """

    def __init__(self, phrases: Iterable[str], tokenize: Tokenize) -> None:
        self._children: list[dict[int, int]] = [{}]
        self._depth = [0]
        self._shortest = [0]
        texts = [spelling for phrase in phrases for spelling in spellings(phrase)]
        for tokens in tokenize(texts) if texts else ():
            self._insert(tokens)

    def __repr__(self) -> str:
        return f"TokenTrie({len(self._depth)} nodes)"

    def _insert(self, tokens: Sequence[int]) -> None:
        node = 0
        for depth, token in enumerate(tokens, start=1):
            if token not in self._children[node]:
                self._children[node][token] = len(self._depth)
                self._children.append({})
                self._depth.append(depth)
                self._shortest.append(len(tokens))
            node = self._children[node][token]
            self._shortest[node] = min(self._shortest[node], len(tokens))

    def advance(self, nodes: Nodes, token: int) -> Nodes:
        """Return where the reply stands after *token*."""
        return tuple(self._steps(nodes, token))

    def _steps(self, nodes: Nodes, token: int) -> Iterator[int]:
        for node in (*nodes, 0):
            if (child := self._children[node].get(token)) is not None:
                yield child

    def ratio(self, nodes: Nodes) -> float:
        """Return the largest share of a phrase that the reply ends in, from 0 to 1.

        A share is tokens matched over the length of the shortest phrase on that branch.
        """
        return max((self._depth[node] / self._shortest[node] for node in nodes), default=0.0)
