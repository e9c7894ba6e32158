"""Hold-back: no text leaves that can still grow into a phrase."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Final

from elision.contract import ALLOW, Refuse, Verdict
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.tracker import Span, Tracker
from elision.guards.phrases.unescape import Char, Json, Plain, Source

REDACTED: Final = "[redacted]"
"""What stands in the place of a redacted span unless told otherwise."""


class HoldBack:
    """Guards one stream of text: a choice's content, or the arguments of one tool call.

    Feed it what arrives; send on what it returns. The same text leaves whatever the pieces.

    Args:
        patterns: The phrases; a target that wants less than redaction is refused, for here
            nothing can be chosen otherwise.
        excluded: Owners whose phrases do not count in this request.
        before: The text that the reply continues.
        json: Whether the text is JSON source: then the values of its strings are what is read, and
            a phrase is refused, never redacted.
        marker: What stands in the place of a redacted span.

    Attributes:
        n_redacted: Spans replaced so far.
    """

    def __init__(
        self,
        patterns: PatternSet,
        *,
        excluded: Set[int] = frozenset(),
        before: str = "",
        json: bool = False,
        marker: str = REDACTED,
    ) -> None:
        self._tracker = Tracker(patterns, excluded=excluded)
        self._tracker.skip(before)
        self._source: Source = Json() if json else Plain()
        self._redacts = not json
        self._marker = marker
        self._tail = ""
        self._mark = 0
        self._refused = False
        self.n_redacted = 0

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
        return self._take(text, self._source.read(text), at_end=False)

    def finish(self) -> tuple[str, Verdict]:
        """Return what may leave at the end of the text, and the verdict on it; see `feed`."""
        return self._take("", self._source.finish(), at_end=True)

    def _take(self, text: str, chars: Iterator[Char], *, at_end: bool) -> tuple[str, Verdict]:
        if self._refused:
            return "", Refuse()
        self._tail += text
        out: list[str] = []
        for span in self._spans(chars, at_end=at_end):
            start = max(span.start, self._mark)
            out.append(self._release(start))
            if span.refuse or not self._redacts:
                self._refused, self._tail = True, ""
                return "".join(out), Refuse()
            out.append(self._marker)
            self.n_redacted += 1
            self._release(span.end)
        end = self._mark + len(self._tail)
        out.append(self._release(end if at_end else self._tracker.safe()))
        return "".join(out), ALLOW

    def _spans(self, chars: Iterator[Char], *, at_end: bool) -> Iterator[Span]:
        for char in chars:
            yield from self._tracker.read(char)
        if at_end:
            yield from self._tracker.finish()

    def _release(self, end: int) -> str:
        """Cut the tail before raw position *end* and return what was cut off."""
        n_chars = max(0, end - self._mark)
        cut, self._tail = self._tail[:n_chars], self._tail[n_chars:]
        self._mark += len(cut)
        return cut
