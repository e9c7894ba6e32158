"""The semantic layer on engines that only speak text: hold each sentence until it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future

from elision.contract import ALLOW, REFUSE, Redact, Refuse, Verdict
from elision.guards.gate.assessment import Assessment
from elision.guards.phrases.holdback import REDACTED
from elision.guards.phrases.unescape import Char, Json, Plain, Source
from elision.guards.semantic.judge import Finding, Judge, otherwise
from elision.guards.semantic.semantics import Semantics
from elision.guards.semantic.sentences import Piece, Running
from elision.guards.semantic.watch import assessed, refuses


class SentenceHold:
    """Judges one stream of text sentence by sentence, as `SemanticWatch` does, but cannot go back.

    Feed it what arrives; send on what it returns. The same text leaves whatever the pieces. Where
    the gate is closed, or has nothing to compare with, all of it leaves at once. `feed` and
    `finish` wait for the encoder: call them off the event loop.

    Args:
        semantics: The tenant's.
        assessment: What the gate says of the prompt.
        user_text: The caller's own words.
        before: The text that the reply continues.
        json: Whether the text is JSON source, such as a tool call's arguments: then its unescaped
            characters are what is read, and what must not stand is refused, never redacted.
        marker: What stands in the place of a redacted piece.

    Raises:
        GuardError: If the gate or the encoder broke.

    Attributes:
        n_redacted: Pieces replaced so far.
        observed: Findings about targets that only observe, so far.
    """

    def __init__(
        self,
        semantics: Semantics,
        assessment: Assessment | Future[Assessment],
        *,
        user_text: str = "",
        before: str = "",
        json: bool = False,
        marker: str = REDACTED,
    ) -> None:
        known = assessed(assessment, semantics)
        self._judge = Judge.of(semantics, known, user_text)
        self._refused = refuses(semantics, known)
        self._running = Running.after(before)
        self._source: Source = Json() if json else Plain()
        self._redacts = not json
        self._marker = marker
        self._tail = ""
        self._left = 0  # characters, as they are read, that have left
        self._ends: list[int] = []  # of those that have not: where each ends in the raw text
        self._mark = 0  # raw characters that have left
        self._spans: tuple[Redact, ...] = ()
        self.n_redacted = 0
        self.observed = 0

    @property
    def held(self) -> int:
        """Raw characters that have come and not left."""
        return len(self._tail)

    def feed(self, text: str) -> tuple[str, Verdict]:
        """Take in *text*; return what may leave now, and whether the answer may go on.

        Returns:
            The text to send on, markers in the place of redacted pieces, and `ALLOW`; or, once the
            answer must end, the rest that may still be sent, and `REFUSE`; from then on nothing and
            `REFUSE`.

        Raises:
            GuardError: If the encoder breaks; nothing more may be sent then.
        """
        return self._take(text, self._source.read(text), at_end=False)

    def finish(self) -> tuple[str, Verdict]:
        """Return what may leave at the end of the text, and the verdict on it; see `feed`."""
        return self._take("", self._source.finish(), at_end=True)

    def _take(self, text: str, chars: Iterator[Char], *, at_end: bool) -> tuple[str, Verdict]:
        if self._refused:
            return "", REFUSE
        self._tail += text
        if self._judge.idle:
            return self._all(chars), ALLOW
        pieces = [*self._read(chars)]
        if at_end:
            self._running, last = self._running.finish()
            pieces += last
        findings = self._judge.judge(pieces)
        self.observed += sum(finding.observed for finding in findings)
        refusing = self._act(findings)
        if refusing is not None:
            self._refused = True
            return self._release(refusing.floor), REFUSE
        out = self._release(self._running.floor if self._judge.acts else self._running.end)
        return (out + self._all(iter(())) if at_end else out), ALLOW

    def _read(self, chars: Iterator[Char]) -> Iterator[Piece]:
        for char in chars:
            self._ends.append(char.end)
            self._running, pieces = self._running.read(char.value)
            yield from pieces

    def _act(self, findings: Iterable[Finding]) -> Piece | None:
        """Note what is to be redacted; return the first piece that ends the answer."""
        for finding in findings:
            match otherwise([finding], self._marker):
                case Refuse():
                    return finding.piece
                case Redact() if not self._redacts:
                    return finding.piece
                case Redact() as span:
                    self.n_redacted += 1
                    self._spans = _united(self._spans, span)
        return None

    def _release(self, limit: int) -> str:
        """Return what of the text stands before *limit*, with the markers in it."""
        parts = []
        done = tuple(span for span in self._spans if span.end <= limit)
        for span in sorted(done, key=lambda span: span.start):
            parts += [self._cut(span.start), span.marker]
            self._cut(span.end)
        self._spans = tuple(span for span in self._spans if span not in done)
        return "".join([*parts, self._cut(limit)])

    def _cut(self, limit: int) -> str:
        """Take the raw text up to *limit*, counted in characters as they are read."""
        n_chars = limit - self._left
        if n_chars <= 0:
            return ""
        end = self._ends[n_chars - 1] - self._mark
        cut, self._tail = self._tail[:end], self._tail[end:]
        del self._ends[:n_chars]
        self._left, self._mark = limit, self._mark + end
        return cut

    def _all(self, chars: Iterator[Char]) -> str:
        """Return everything that is held."""
        for _ in chars:
            pass
        text, self._tail = self._tail, ""
        self._mark += len(text)
        return text


def _united(spans: tuple[Redact, ...], span: Redact) -> tuple[Redact, ...]:
    """Return *spans* with *span*, those that it overlaps united with it."""
    over = [other for other in spans if other.start < span.end and span.start < other.end]
    start = min([span.start, *(other.start for other in over)])
    end = max([span.end, *(other.end for other in over)])
    return (*(s for s in spans if s not in over), Redact(start, end, span.marker))
