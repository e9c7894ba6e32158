"""Hold-back for encodings: no text leaves that can still decode to a phrase."""

from __future__ import annotations

from collections.abc import Iterator

from elision.contract import ALLOW, REFUSE, Verdict
from elision.guards.encoded.encoded import Encoded
from elision.guards.encoded.reader import EncodedReader
from elision.guards.phrases.tracker import Span
from elision.guards.phrases.unescape import Char, Json, Plain, Source


class EncodedHold:
    """Guards one stream of text behind a `HoldBack`, against what that does not see.

    Nothing can be chosen otherwise here: a target that restricts is refused.

    Args:
        encoded: The phrases.
        user_text: The caller's own words, for phrases that allow echo.
        before: The text that the reply continues.
        json: Whether the text is JSON source: then the values of its strings are what is read, and
            a phrase is refused, never redacted.

    Attributes:
        n_redacted: Spans replaced so far.
        n_observed: Phrases counted so far.
    """

    def __init__(
        self, encoded: Encoded, *, user_text: str = "", before: str = "", json: bool = False
    ) -> None:
        self._encoded = encoded
        self._readers = tuple(
            EncodedReader(phrases, excluded=phrases.patterns.echoed(user_text))
            for phrases in encoded.sets
        )
        for reader in self._readers:
            reader.skip(before)
        self._source: Source = Json() if json else Plain()
        self._redacts = not json
        self._tail = ""
        self._mark = 0
        self._length = 0
        self._refused = False
        self.n_redacted = 0
        self.n_observed = 0

    @property
    def held(self) -> int:
        """Raw characters that have come and not left."""
        return len(self._tail)

    def feed(self, text: str) -> tuple[str, Verdict]:
        """Take in *text*; return what may leave now, and whether the answer may go on.

        Returns:
            The text to send on, markers in the place of redacted spans, and `ALLOW`; or, once a
            phrase ends the answer, the rest that may still be sent, and `Refuse`; from then on
            nothing and `Refuse`.
        """
        return self._take(text, at_end=False)

    def finish(self) -> tuple[str, Verdict]:
        """Return what may leave at the end of the text, and the verdict on it; see `feed`."""
        return self._take("", at_end=True)

    def _take(self, text: str, *, at_end: bool) -> tuple[str, Verdict]:
        if self._refused:
            return "", REFUSE
        self._tail += text
        self._length += len(text)
        out: list[str] = []
        chars = [*(self._source.finish() if at_end else self._source.read(text))]
        # Character by character, so that the same leaves whatever the pieces.
        for char in chars:
            if not self._pass([s for r in self._readers for s in self._spans(r, char)], out):
                return "".join(out), REFUSE
            out.append(self._release(self._frontier))
        if at_end:
            if not self._pass([s for r in self._readers for s in self._last(r)], out):
                return "".join(out), REFUSE
            out.append(self._release(self._length))
        return "".join(out), ALLOW

    def _spans(self, reader: EncodedReader, char: Char) -> Iterator[Span]:
        return self._counted(reader, reader.read((char,)))

    def _last(self, reader: EncodedReader) -> Iterator[Span]:
        return self._counted(reader, reader.finish())

    def _counted(self, reader: EncodedReader, spans: list[Span]) -> Iterator[Span]:
        """Yield the reply's own spans; those that are only observed are counted instead."""
        for span in spans:
            if span.end <= 0:
                continue
            if reader.phrases is self._encoded.observed:
                self.n_observed += 1
            else:
                yield span

    def _pass(self, spans: list[Span], out: list[str]) -> bool:
        """Let go what stands before each span, and redact it; return whether that is allowed."""
        for span in sorted(spans, key=lambda span: (span.start, span.end)):
            if span.refuse or not self._redacts:
                self._refused, self._tail = True, ""
                return False
            if span.end <= self._mark:
                continue
            out += [self._release(span.start), self._encoded.marker]
            self._release(span.end)
            self.n_redacted += 1
        return True

    @property
    def _frontier(self) -> int:
        observed = self._encoded.observed
        acting = (r.frontier for r in self._readers if r.phrases is not observed)
        return min(acting, default=self._length)

    def _release(self, end: int) -> str:
        """Cut the tail before raw position *end* and return what was cut off."""
        n_chars = max(0, end - self._mark)
        cut, self._tail = self._tail[:n_chars], self._tail[n_chars:]
        self._mark += len(cut)
        return cut
