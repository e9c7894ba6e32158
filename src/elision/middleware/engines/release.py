"""What of a reply may leave: stop texts, held characters, redacted spans.

One object per choice. Text goes in as it is written and comes out once it is final: nothing that
has left is ever taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from elision.contract import Redact, TokenLogprob, TokenTrace

MARKER_LOGPROB = -9999.0
"""What OpenAI's API reports for a token whose log-probability is not told."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a reply had been written at some moment.

    Attributes:
        length: Its raw characters.
        spans: What was to be redacted.
        n_entries: Tokens taken in of which something is told.
    """

    length: int
    spans: tuple[Redact, ...]
    n_entries: int


class Entry(NamedTuple):
    """What is told of a token: it leaves when the token's text does.

    Attributes:
        start: The token's first character in the raw text.
        end: One past its last.
        logprob: If log-probabilities are reported.
        trace: If it is told what happened.
    """

    start: int
    end: int
    logprob: TokenLogprob | None
    trace: TokenTrace | None

    def as_marker(self, marker: str) -> Entry:
        """Return what is told instead where the text leaves as *marker*."""
        logprob = TokenLogprob(marker, MARKER_LOGPROB, marker.encode())
        return self._replace(
            logprob=None if self.logprob is None else logprob,
            trace=None if self.trace is None else TokenTrace(token=marker),
        )


@dataclass(slots=True)
class Release:
    """The raw text of one reply and the mark up to which it has left.

    Attributes:
        stop: Texts that end the reply; they are not part of it.
        text: Everything written, redacted spans included.
        mark: How many raw characters have left.
        stopped: Whether a stop text was found; *text* ends before it then.
    """

    stop: tuple[str, ...] = ()
    text: str = ""
    mark: int = 0
    stopped: bool = False
    _spans: tuple[Redact, ...] = ()
    _entries: list[Entry] | None = None
    _traces: tuple[TokenTrace, ...] = ()
    _n_gone: int = 0

    def write(
        self, text: str, logprob: TokenLogprob | None = None, trace: TokenTrace | None = None
    ) -> None:
        """Append what a token wrote, with what is told of it."""
        if logprob is not None or trace is not None:
            self._entries = self._entries or []
            end = len(self.text) + len(text)
            self._entries.append(Entry(len(self.text), end, logprob, trace))
        before = len(self.text)
        self.text += text
        found = [self.text.find(s, max(0, before - len(s) + 1)) for s in self.stop]
        if hits := [at for at in found if at >= 0]:
            self.text = self.text[: min(hits)]
            self.stopped = True

    def mark_here(self) -> Mark:
        """Return what `rewind` needs to come back to this moment."""
        return Mark(len(self.text), self._spans, self._n_gone + len(self._entries or ()))

    def rewind(self, mark: Mark) -> None:
        """Take back what was written since *mark*; nothing of it has left."""
        assert mark.length >= self.mark
        self.text = self.text[: mark.length]
        self.stopped = False
        self._spans = mark.spans
        self._entries = (self._entries or [])[: max(0, mark.n_entries - self._n_gone)]

    def redact(self, span: Redact) -> None:
        """Replace *span* by its marker when it leaves; overlapping spans unite."""
        start, end = max(span.start, self.mark), span.end
        apart = tuple(s for s in self._spans if s.end <= start or end <= s.start)
        for other in self._spans:
            if other not in apart:
                start, end = min(start, other.start), max(end, other.end)
        if start < end:
            self._spans = (*apart, Redact(start, end, span.marker))

    def drop_held(self, held: int) -> None:
        """Forget the last *held* characters and the tokens that wrote them: they never leave."""
        self.text = self.text[: max(self.mark, len(self.text) - held)]
        end = len(self.text)
        self._entries = [e for e in self._entries or () if e.start < end >= e.end]

    def take(self, held: int = 0) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Return the text that may leave now, and the log-probabilities of its tokens.

        Args:
            held: Characters at the end that must stay.
        """
        limit = max(self.mark, len(self.text) - max(held, self._stop_held()))
        for span in self._spans:
            if span.start < limit < span.end:
                limit = max(self.mark, span.start)
        text = self._render(limit)
        entries = self._take_entries(limit)
        self.mark = limit
        self._traces += tuple(e.trace for e in entries if e.trace is not None)
        return text, tuple(e.logprob for e in entries if e.logprob is not None)

    def take_traces(self) -> tuple[TokenTrace, ...]:
        """Return what happened at the tokens that have left since this was last asked."""
        traces, self._traces = self._traces, ()
        return traces

    def _stop_held(self) -> int:
        """Return the length of the longest tail that may still become a stop text."""
        if self.stopped:
            return 0
        return max((_overlap(self.text, stop) for stop in self.stop), default=0)

    def _render(self, limit: int) -> str:
        parts, at = [], self.mark
        for span in sorted(self._spans, key=lambda span: span.start):
            if self.mark <= span.start and span.end <= limit:
                parts += [self.text[at : span.start], span.marker]
                at = span.end
        return "".join([*parts, self.text[at:limit]])

    def _take_entries(self, limit: int) -> tuple[Entry, ...]:
        """Return the entries of tokens that end by *limit*; redacted ones become their marker."""
        if not self._entries:
            return ()
        whole = self.stopped and limit == len(self.text)
        # A token of half a character writes nothing, but its bytes belong to what comes next.
        behind = limit == len(self.text)
        ready = [
            e
            for e in self._entries
            if (e.end <= limit and (e.start < limit or behind)) or (whole and e.start < limit)
        ]
        self._n_gone += len(ready)
        self._entries = self._entries[len(ready) :] if not whole else []
        out: dict[Redact | int, Entry] = {}
        for n, entry in enumerate(ready):
            over = max(entry.end, entry.start + 1)
            span = next((s for s in self._spans if entry.start < s.end and s.start < over), None)
            out[n if span is None else span] = (
                entry if span is None else entry.as_marker(span.marker)
            )
        return tuple(out.values())


def _overlap(text: str, stop: str) -> int:
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
