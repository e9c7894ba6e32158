"""Automaton times vocabulary: which tokens would complete a phrase from where the text stands.

No trie over the vocabulary is needed. A token completes a phrase in one of two ways: its piece
begins with the rest of a phrase whose beginning the text ends in (a range in the sorted pieces,
attached to the state of that beginning), or it holds a whole phrase (the same tokens everywhere).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from elision.guards.phrases.automaton import ROOT, Automaton
from elision.guards.phrases.normal import SEP, N, N_b, words_apart
from elision.guards.phrases.pattern_set import PatternSet, Reading
from elision.guards.phrases.patterns import Pattern
from elision.guards.phrases.recent import Recent
from elision.guards.phrases.vocabulary import Pieces, Vocabulary, ids

if TYPE_CHECKING:
    from torch import Tensor

    from elision.contract import Lexicon

PRODUCT_BYTES: Final = 64 << 20
"""What the masks that a product remembers may hold together."""
_NOTHING: Final[frozenset[int]] = frozenset()
_Key: TypeAlias = tuple[tuple[object, ...], frozenset[int]]


class Blocked(NamedTuple):
    """Tokens that must not come next.

    Attributes:
        ids: Their ids, each once, shape ``(n,)``, int64, on the CPU.
        top: The largest id; -1 if there is none.
    """

    ids: Tensor
    top: int


class _Side:
    """One automaton times one form of the vocabulary."""

    def __init__(self, automaton: Automaton, patterns: Sequence[Pattern], pieces: Pieces) -> None:
        self.automaton = automaton
        self._patterns = patterns
        self._tokens = pieces.tokens
        self._ranges: dict[int, list[tuple[int, int, int]]] = {}
        for pattern in patterns:
            self._attach(pattern, pieces)
        self._hot = automaton.nearest(set(self._ranges))
        self.holding = self._holders(pieces)

    def _attach(self, pattern: Pattern, pieces: Pieces) -> None:
        """Hang the ranges of every rest of *pattern* on the state of its beginning."""
        text = pattern.text
        path = self.automaton.path(text)
        for cut in range(max(1, len(text) - pieces.longest), len(text)):
            rest = text[cut:]
            self._attach_one(path[cut], pieces.opening(rest, closed=pattern.closed), pattern)
            if text[cut - 1] == SEP:  # the text ends in SEP: one more, in the piece, adds nothing
                again = pieces.opening(SEP + rest, closed=pattern.closed)
                self._attach_one(path[cut], again, pattern)

    def _attach_one(self, state: int, span: tuple[int, int], pattern: Pattern) -> None:
        if span[0] < span[1]:
            self._ranges.setdefault(state, []).append((*span, pattern.owner))

    def _holders(self, pieces: Pieces) -> dict[int, frozenset[int]]:
        """Return the tokens that hold a whole phrase, each with the owners of those."""
        shortest = min((len(pattern.text) for pattern in self._patterns), default=0)
        found: dict[int, frozenset[int]] = {}
        if not shortest:
            return found
        for piece, tokens in pieces.distinct():
            if len(piece) >= shortest and (owners := frozenset(self._completed(ROOT, piece))):
                for token in tokens:
                    found[token] = found.get(token, _NOTHING) | owners
        return found

    def _completed(self, state: int, piece: str) -> Iterator[int]:
        """Yield the owners of the patterns that *piece*, read from *state*, completes."""
        automaton = self.automaton
        for at, symbol in enumerate(piece, start=1):
            state = automaton.step(state, symbol)
            if automaton.matches(state):
                ends = piece[at : at + 1] in {"", SEP}
                for index in automaton.outputs(state):
                    pattern = self._patterns[index]
                    if ends or not pattern.closed:
                        yield pattern.owner

    def completes(self, state: int, piece: str, excluded: Set[int]) -> bool:
        """Return whether *piece*, read from *state*, completes a phrase."""
        return any(owner not in excluded for owner in self._completed(state, piece))

    def completed(self, state: int, excluded: Set[int]) -> bool:
        """Return whether a phrase ends in *state*."""
        outputs = self.automaton.outputs(state)
        return any(self._patterns[index].owner not in excluded for index in outputs)

    def hot(self, state: int) -> int:
        """Return the nearest state on *state*'s failure chain that has rests of its own."""
        return self._hot[state]

    def rests(self, state: int, excluded: Set[int]) -> list[Tensor]:
        """Return the tokens that complete a phrase begun before them, in parts without overlap."""
        spans = set[tuple[int, int]]()
        state = self._hot[state]
        while state:
            spans.update(r[:2] for r in self._ranges[state] if r[2] not in excluded)
            state = self._hot[self.automaton.failure(state)]
        return [self._tokens[low:high] for low, high in _apart(spans)]


class Product:
    """The phrases of one role times one vocabulary: follows a text, tells the blocked tokens.

    Immutable but for its bounded memory of masks; safe to share between threads.

    Args:
        patterns: The phrases.
        lexicon: The tokens.
        entries: Masks remembered at most.
        limit_bytes: What they may hold together.
    """

    def __init__(
        self,
        patterns: PatternSet,
        lexicon: Lexicon,
        *,
        entries: int = 4096,
        limit_bytes: int = PRODUCT_BYTES,
    ) -> None:
        self.patterns = patterns
        self.lexicon = lexicon
        self._vocabulary = vocabulary = Vocabulary.of(lexicon)
        self._plain = _Side(patterns.plain, patterns.plain_patterns, vocabulary.plain)
        self._bounded = _Side(patterns.bounded, patterns.bounded_patterns, vocabulary.bounded)
        self._masks = Recent[_Key, Blocked](entries=entries, limit_bytes=limit_bytes)
        self._completions = Recent["bytes", "list[tuple[int, str]]"](entries=256)
        self._capital = ids(vocabulary.capital).bool()
        self._held = Recent["frozenset[int]", "Tensor"](entries=64)

    def __repr__(self) -> str:
        return f"Product({self.patterns!r}, {len(self.lexicon)} tokens)"

    def begin(self, before: str) -> Reading:
        """Return the reading after *before*, the text that the reply continues."""
        return self.patterns.read(self.patterns.start, before)

    def advance(self, reading: Reading, token: int) -> Reading:
        """Return the reading after *token*."""
        words = self._vocabulary
        known = not reading.pending and 0 <= token < len(words.whole) and words.whole[token]
        if not known or words.apart[token]:
            text, pending = self.lexicon.write(reading.pending, token)
            return self.patterns.read(reading, text)._replace(pending=pending)
        plain = self._plain.automaton.read(reading.plain, words.plain_pieces[token])
        inside = words.inside[token]
        inside = reading.inside if inside is None else inside
        if not self.patterns.bounded_patterns:
            return Reading(plain, reading.bounded, inside=inside)
        apart = reading.inside and bool(words.capital[token])
        piece = words.bounded_pieces[token]
        states = self.patterns.read_bounded(reading.bounded, reading.behind, piece, apart=apart)
        return Reading(plain, *states, inside)

    def blocked(self, reading: Reading, excluded: frozenset[int] = _NOTHING) -> Blocked:
        """Return the tokens that would complete a phrase if they came next.

        A phrase that needs a word boundary counts as complete if it ends with the token or before
        a separator in it; whether the token after that goes on with the word is not waited for.

        Args:
            reading: Where the text stands.
            excluded: Owners whose phrases do not count in this request.
        """
        key = self._key(reading), excluded
        mask = self._masks.get(key)
        if mask is None:
            found = self._find(reading, excluded).clone()  # not a view that keeps more alive
            mask = Blocked(found, int(found.max()) if len(found) else -1)
            self._masks.put(key, mask, n_bytes=512 + 8 * len(found))
        return mask

    def _key(self, reading: Reading) -> tuple[object, ...]:
        """Return what of *reading* the blocked tokens depend on: states that own no rests do not.

        While bytes wait for their character, that is all of it.
        """
        if reading.pending:
            return reading
        hot, states = self._bounded.hot, (reading.bounded, *reading.behind)
        found = {hot(state) for state in states}
        if reading.inside and self.patterns.bounded_patterns:
            step = self._bounded.automaton.step
            found.update(-hot(step(state, SEP)) for state in states)
        return self._plain.hot(reading.plain), frozenset(found)

    def begun(self, reading: Reading) -> int:
        """Return how many letters at the end of the text may begin a phrase, a few more at most."""
        bounded = self._bounded.automaton.growing
        depths = map(bounded, (reading.bounded, *reading.behind))
        return max(self._plain.automaton.growing(reading.plain), *depths)

    def piece(self, token: int) -> str:
        """Return what *token* comes to in N_b, a character's half nothing."""
        pieces = self._vocabulary.bounded_pieces
        return pieces[token] if 0 <= token < len(pieces) else ""

    def completed(self, reading: Reading, excluded: frozenset[int] = _NOTHING) -> bool:
        """Return whether a phrase is complete if the text ends at *reading*."""
        return self._plain.completed(reading.plain, excluded) or any(
            self._bounded.completed(state, excluded) for state in (reading.bounded, *reading.behind)
        )

    def _find(self, reading: Reading, excluded: frozenset[int]) -> Tensor:
        """Return the blocked tokens, uncached."""
        if reading.pending:
            return self._find_pending(reading, excluded)
        rests, states = self._bounded.rests, (reading.bounded, *reading.behind)
        found = [*self._plain.rests(reading.plain, excluded), self._holding(excluded)]
        for state in states:
            found += rests(state, excluded)
        if reading.inside:
            for state in states:
                words = _united(rests(self._bounded.automaton.step(state, SEP), excluded))
                found.append(words[self._capital[words]])
        return _united(found)

    def _find_pending(self, reading: Reading, excluded: frozenset[int]) -> Tensor:
        """Return the blocked tokens while bytes wait for their character.

        Only a continuing token can complete it, and those are tried one by one. Before any other
        the bytes become U+FFFD, which is a separator.
        """
        continues = self._vocabulary.continues
        broken = self.patterns.read(reading._replace(pending=b""), "\ufffd")
        others = self._find(broken, excluded)
        completing = ids(
            token
            for token, text in self._completing(reading.pending)
            if self._completes(reading, text, excluded)
        )
        return _united([others[~continues[others]], completing])

    def _completing(self, pending: bytes) -> list[tuple[int, str]]:
        """Return what the tokens that may complete *pending* write then."""
        found = self._completions.get(pending)
        if found is None:
            written = ((t, self.lexicon.write(pending, t)[0]) for t in self.lexicon.continuing)
            found = [(token, text) for token, text in written if N_b(text)]
            self._completions.put(pending, found)
        return found

    def _completes(self, reading: Reading, text: str, excluded: Set[int]) -> bool:
        """Return whether *text*, read from *reading*, completes a phrase."""
        plain = self._plain.completes(reading.plain, N(text), excluded)
        return plain or any(
            self._bounded.completes(state, piece, excluded)
            for piece in words_apart(text, inside=reading.inside)
            for state in (reading.bounded, *reading.behind)
        )

    def _holding(self, excluded: frozenset[int]) -> Tensor:
        """Return the tokens that hold a whole phrase: blocked wherever the text stands."""
        found = self._held.get(excluded)
        if found is None:
            sides = (self._plain.holding, self._bounded.holding)
            found = ids({t for side in sides for t, owners in side.items() if owners - excluded})
            self._held.put(excluded, found)
        return found


def _united(parts: Sequence[Tensor]) -> Tensor:
    """Return the tokens of all *parts*, each once."""
    import torch

    filled = [part for part in parts if len(part)]
    return torch.unique(torch.cat(filled)) if filled else ids(())


def _apart(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield *spans* with overlapping ones united."""
    start = end = 0
    for low, high in sorted(spans):
        if low > end:
            if start < end:
                yield start, end
            start, end = low, high
        else:
            start, end = (low, high) if start == end else (start, max(end, high))
    if start < end:
        yield start, end
