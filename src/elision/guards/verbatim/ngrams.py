"""Protected n-grams, and where a text stands among them.

A passage is known by its runs of n words and of n letters, both in normal form. What is kept are
Bloom filters over these runs; and over shorter runs, its *openings*: only behind an opening can
the next token complete a protected run, so on ordinary text nothing else need be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

from elision.errors import ConfigError
from elision.guards.phrases.normal import SEP, N, N_b
from elision.guards.verbatim.bloom import BloomFilter

WORDS: Final = 8
LETTERS: Final = 40
"""Length of a protected run, in words and in letters (guard.md 2.3)."""
USUAL_LETTERS: Final = 16
"""Letters that a token writes at most, but for a few that are looked at one by one."""
USUAL_WORDS: Final = 2
"""Likewise words that a token writes a part of."""
OPENING_ERROR: Final = 1e-4
"""An opening that is none costs time, nothing else."""


class Tail(NamedTuple):
    """The end of a text, as far as a run may reach back into it. A value.

    Attributes:
        words: The last whole words, in normal form.
        word: The letters of the word that may still go on.
        letters: The last letters, separators left out.
    """

    words: tuple[str, ...] = ()
    word: str = ""
    letters: str = ""

    @property
    def ended(self) -> tuple[str, ...]:
        """The last words, the one that may go on taken as ended."""
        return (*self.words, self.word) if self.word else self.words


class Grams:
    """The protected runs of some passages. Immutable; holds no text.

    Args:
        passages: The texts.
        key: Of the digests; see `BloomFilter`.
        n_words: Length of a run in words, at least 4.
        n_letters: Length of a run in letters, more than `USUAL_LETTERS`.

    Attributes:
        n_words: See above.
        n_letters: See above.

    Raises:
        ConfigError: If a run is too short to have openings.

    Source:
        MemFree decoding: Ippolito et al. 2023, arXiv:2210.17546. Ours: runs of normal form instead
        of token ids, and openings.
    """

    def __init__(
        self,
        passages: Iterable[str],
        *,
        key: bytes,
        n_words: int = WORDS,
        n_letters: int = LETTERS,
    ) -> None:
        if n_words < 4 or n_letters <= USUAL_LETTERS:
            raise ConfigError(
                f"runs of {n_words} words or {n_letters} letters are too short; "
                f"the least are 4 and {USUAL_LETTERS + 1}"
            )
        self.n_words, self.n_letters = n_words, n_letters
        self._n_opening_words = n_words - USUAL_WORDS
        self._n_opening_letters = n_letters - USUAL_LETTERS
        spelled = [N_b(text).strip(SEP) for text in passages]
        by_words = [_word_runs(form, n_words) for form in spelled]
        by_letters = [_runs(form.replace(SEP, ""), n_letters) for form in spelled]
        self._runs = BloomFilter(chain(*by_words, *by_letters), key=key)
        self._openings = BloomFilter(
            chain.from_iterable(map(self._opening_runs, spelled)), key=key, error=OPENING_ERROR
        )

    def __repr__(self) -> str:
        return f"Grams({len(self._runs)} runs)"

    def __len__(self) -> int:
        """Return how many runs are protected, repeated ones counted as often as they occur."""
        return len(self._runs)

    @property
    def n_bytes(self) -> int:
        """Memory of the filters."""
        return self._runs.n_bytes + self._openings.n_bytes

    def _opening_runs(self, form: str) -> Iterator[str]:
        letters = form.replace(SEP, "")
        if len(letters) >= self.n_letters:
            yield from _runs(letters, self._n_opening_letters)
            yield from _runs(letters, USUAL_LETTERS)
        if form.count(SEP) + 1 >= self.n_words:
            yield from _word_runs(form, self._n_opening_words)
            yield from _word_runs(form, USUAL_WORDS)

    def read(self, tail: Tail, text: str) -> Tail:
        """Return the tail after *text*."""
        form = N_b(text)
        if not form:
            return tail
        letters = (tail.letters + form.replace(SEP, ""))[1 - self.n_letters :]
        *ended, word = (tail.word + form).split(SEP)
        if not ended:
            return Tail(tail.words, word, letters)
        words = (*tail.words, *filter(None, ended))
        return Tail(words[1 - self.n_words :], word, letters)

    def opens(self, tail: Tail) -> bool:
        """Return whether a usual token behind *tail* may complete a run; see `unusual`."""
        n_letters, n_words = self._n_opening_letters, self._n_opening_words
        letters = tail.letters[-n_letters:]
        if len(letters) == n_letters and letters in self._openings:
            return True
        ends = {tail.words[-n_words:], tail.ended[-n_words:]}
        return any(len(words) == n_words and SEP.join(words) in self._openings for words in ends)

    def completes(self, tail: Tail, text: str) -> bool:
        """Return whether *text* behind *tail* completes a run; its end counts as a word's end."""
        form = N_b(text)
        return self._completes_letters(tail, form) or self._completes_words(tail, form)

    def completes_letters(self, tail: Tail, text: str) -> bool:
        """Return whether *text* behind *tail* completes a run of letters."""
        return self._completes_letters(tail, N_b(text))

    def _completes_letters(self, tail: Tail, form: str) -> bool:
        new = form.replace(SEP, "")
        if not new or len(tail.letters) + len(new) < self.n_letters:
            return False
        if not self._may_complete(tail, new):
            return False
        letters = (tail.letters + new)[1 - self.n_letters - len(new) :]
        return any(run in self._runs for run in _runs(letters, self.n_letters))

    def _may_complete(self, tail: Tail, new: str) -> bool:
        """Return whether a run may end in *new*: one look-up in the place of one per letter."""
        if len(new) > USUAL_LETTERS or self._n_opening_letters < USUAL_LETTERS:
            return True
        # Such a run goes over the first new letter, and far enough back from it.
        return tail.letters[1 - USUAL_LETTERS :] + new[0] in self._openings

    def _completes_words(self, tail: Tail, form: str) -> bool:
        return any(run in self._runs for run in self._new_word_runs(tail, form))

    def _new_word_runs(self, tail: Tail, form: str) -> Iterator[str]:
        """Yield the runs of words that end in *form*."""
        pieces = (tail.word + form).split(SEP)
        # A word that ended before the text is not the text's deed.
        n_new = sum(map(bool, pieces)) - (form[:1] in {"", SEP} and bool(tail.word))
        words = (*tail.words, *filter(None, pieces))
        for end in range(len(words) - n_new + 1, len(words) + 1):
            if end >= self.n_words:
                yield SEP.join(words[end - self.n_words : end])

    def completed(self, tail: Tail) -> bool:
        """Return whether a run of words ends with *tail*, should the text end there."""
        words = tail.ended[-self.n_words :]
        return len(words) == self.n_words and SEP.join(words) in self._runs

    def unusual(self, pieces: Sequence[str]) -> tuple[int, ...]:
        """Return the tokens that may complete a run though nothing opens it.

        Those write more than `USUAL_LETTERS` or `USUAL_WORDS`, and a part of a passage that long.

        Args:
            pieces: What each token writes, in N_b.
        """
        return tuple(token for token, piece in enumerate(pieces) if self._is_unusual(piece))

    def _is_unusual(self, piece: str) -> bool:
        if len(piece) <= USUAL_LETTERS and piece.count(SEP) < USUAL_WORDS:
            return False
        letters = piece.replace(SEP, "")
        if any(run in self._openings for run in _runs(letters, USUAL_LETTERS)):
            return len(letters) > USUAL_LETTERS
        # The first word may go on one that stands before the token.
        words = piece.split(SEP)[1:]
        return any(run in self._openings for run in _runs_of(list(filter(None, words))))


def _runs(letters: str, length: int) -> Iterator[str]:
    for start in range(len(letters) - length + 1):
        yield letters[start : start + length]


def _runs_of(words: Sequence[str], length: int = USUAL_WORDS) -> Iterator[str]:
    for start in range(len(words) - length + 1):
        yield SEP.join(words[start : start + length])


def _word_runs(form: str, length: int) -> Iterator[str]:
    return _runs_of(form.split(SEP), length)


def is_brief(text: str, *, n_words: int = WORDS, n_letters: int = LETTERS) -> bool:
    """Return whether *text* is too short to have a protected run: no passage but a phrase."""
    form = N_b(text).strip(SEP)
    return form.count(SEP) + 1 < n_words and len(N(text)) < n_letters
