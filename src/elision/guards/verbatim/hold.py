"""Verbatim protection for engines that only speak text."""

from __future__ import annotations

from collections.abc import Iterator

from elision.contract import ALLOW, REFUSE, Verdict
from elision.guards.phrases.normal import SEP, fold
from elision.guards.phrases.unescape import Char, Json, Plain, Source
from elision.guards.verbatim.ngrams import Grams, Tail


class VerbatimHold:
    """Ends one stream of text where it would complete a protected run.

    Feed it what arrives; send on what it returns. The same text leaves whatever the pieces. A
    word that may complete a run is held until it ends.

    Args:
        grams: The runs.
        before: The text in which a run may have begun; see `opening`.
        json: Whether the text is JSON source; see `HoldBack`.
    """

    def __init__(self, grams: Grams, *, before: str = "", json: bool = False) -> None:
        self._grams = grams
        self._tail = grams.read(Tail(), before)
        self._source: Source = Json() if json else Plain()
        self._text = ""  # what has come and not left
        self._mark = 0  # raw position where it begins
        self._safe = 0  # raw position up to which it may leave
        self._word_at: int | None = None  # where the reply's part of the last word begins
        self._refused = False

    @property
    def held(self) -> int:
        """Raw characters that have come and not left."""
        return len(self._text)

    def feed(self, text: str) -> tuple[str, Verdict]:
        """Take in *text*; return what may leave now, and `ALLOW` or, once a run is there, `REFUSE`.

        With `REFUSE` comes what stands before the letters that completed the run; from then on
        nothing.
        """
        self._text += "" if self._refused else text
        return self._take(self._source.read(text), at_end=False)

    def finish(self) -> tuple[str, Verdict]:
        """Return what may leave at the end of the text, and the verdict on it; see `feed`."""
        return self._take(self._source.finish(), at_end=True)

    def _take(self, chars: Iterator[Char], *, at_end: bool) -> tuple[str, Verdict]:
        if self._refused:
            return "", REFUSE
        found = any(self._completes(char) for char in chars) or (at_end and self._ends_run())
        if at_end and not found:
            self._safe = self._mark + len(self._text)
        n_chars = max(0, self._safe - self._mark)
        out, self._text = self._text[:n_chars], self._text[n_chars:]
        self._mark += len(out)
        if found:
            self._refused, self._text = True, ""
            return out, REFUSE
        return out, ALLOW

    def _completes(self, char: Char) -> bool:
        """Take in one character; return whether a run is complete with it."""
        symbols = fold(char.value)
        if SEP in symbols and self._ends_run():
            return True
        if self._grams.completes_letters(self._tail, char.value):
            return True
        self._tail = self._grams.read(self._tail, char.value)
        if SEP in symbols:
            self._word_at = None
        elif symbols and self._word_at is None:
            self._word_at = char.start
        opened = self._word_at is not None and self._grams.opens(self._tail)
        if not opened or self._word_at is None:
            self._safe = char.end
        return False

    def _ends_run(self) -> bool:
        """Return whether a run of words is complete if the last word ends here."""
        return self._word_at is not None and self._grams.completed(self._tail)
