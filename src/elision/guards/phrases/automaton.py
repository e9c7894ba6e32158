"""Aho-Corasick: where every pattern ends, in one pass, however many patterns there are.

Written here rather than taken from a library because the product with a vocabulary needs what the
kept libraries hide: states that can be named, stored and compared, their depth, and the failure
links between them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from elision.guards.phrases.normal import SEP

ROOT: Final = 0
_BITS: Final = 21  # of a code point; the state stands above them


class Automaton:
    """All patterns as one trie with failure links. Immutable once built.

    A state stands for the longest end of what was read that begins a pattern. A `SEP` read right
    after a `SEP` changes nothing, so pieces of a text, each collapsed by itself, read like the
    whole; for that every pattern with a `SEP` in it must begin with one.

    Args:
        patterns: Non-empty normal forms; their indices are the pattern ids. Equal ones are fine.

    Source:
        Aho and Corasick 1975, Communications of the ACM 18(6).
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._goto: dict[int, int] = {}
        self._ids: dict[int, list[int]] = {}
        self._after_sep = bytearray(1)
        self._depth = array("i", [0])
        self._parent = array("i", [0])
        self._symbol = array("i", [0])
        for index, pattern in enumerate(patterns):
            self._ids.setdefault(self._insert(pattern), []).append(index)
        self._order = sorted(range(len(self._depth)), key=self._depth.__getitem__)
        self._fail = self._failures()
        self._match = self.nearest(self._ids)
        self._growing = self.nearest(set(self._parent))

    def __len__(self) -> int:
        """Return the number of states, the root included."""
        return len(self._depth)

    def _insert(self, pattern: str) -> int:
        state = ROOT
        for char in pattern:
            key = state << _BITS | ord(char)
            following = self._goto.get(key)
            if following is None:
                following = self._goto[key] = len(self._depth)
                self._depth.append(self._depth[state] + 1)
                self._parent.append(state)
                self._symbol.append(ord(char))
                self._after_sep.append(char == SEP)
            state = following
        return state

    def _failures(self) -> array[int]:
        fail = self._fail = array("i", bytes(4 * len(self._depth)))
        for state in self._order:
            if self._depth[state] > 1:
                fail[state] = self._step(fail[self._parent[state]], self._symbol[state])
        return fail

    def nearest(self, marked: dict[int, list[int]] | set[int]) -> array[int]:
        """Return, for every state, the nearest of *marked* on its failure chain, or the root.

        The chain begins with the state itself; a marked root is not told from none.
        """
        found = array("i", bytes(4 * len(self._depth)))
        for state in self._order:
            found[state] = state if state in marked else found[self._fail[state]]
        return found

    def _step(self, state: int, code: int) -> int:
        goto, fail = self._goto, self._fail
        while True:
            following = goto.get(state << _BITS | code)
            if following is not None:
                return following
            if not state:
                return ROOT
            state = fail[state]

    def step(self, state: int, symbol: str) -> int:
        """Return the state after *symbol*."""
        if symbol == SEP and self._after_sep[state]:
            return state
        return self._step(state, ord(symbol))

    def read(self, state: int, symbols: str) -> int:
        """Return the state after all of *symbols*."""
        if symbols and symbols[0] == SEP and self._after_sep[state]:
            symbols = symbols[1:]
        step = self._step
        for symbol in symbols:
            state = step(state, ord(symbol))
        return state

    def outputs(self, state: int) -> Iterator[int]:
        """Yield the ids of the patterns that end in *state*, the longest first."""
        state = self._match[state]
        while state:
            yield from self._ids[state]
            state = self._match[self._fail[state]]

    def matches(self, state: int) -> bool:
        """Return whether any pattern ends in *state*."""
        return bool(self._match[state])

    def depth(self, state: int) -> int:
        """Return how many symbols *state* stands for."""
        return self._depth[state]

    def growing(self, state: int) -> int:
        """Return how many of the last symbols may yet grow into a longer pattern."""
        return self._depth[self._growing[state]]

    def failure(self, state: int) -> int:
        """Return the state of the longest proper end of *state*'s string that begins a pattern."""
        return self._fail[state]

    def path(self, pattern: str) -> list[int]:
        """Return the states of *pattern*'s prefixes, from the root (the empty one) on."""
        states = [ROOT]
        for char in pattern:
            states.append(self._goto[states[-1] << _BITS | ord(char)])
        return states
