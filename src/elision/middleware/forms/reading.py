"""A reply's raw text, read into the pieces of OpenAI's messages while it is written."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from elision.contract import Delta, Finish, TokenLogprob, Usage
from elision.middleware.engines.release import MARKER_LOGPROB
from elision.middleware.forms.reader import Reader

if TYPE_CHECKING:
    from elision.middleware.forms.dialects import Dialect
    from elision.middleware.forms.form import Form
    from elision.middleware.forms.reader import Piece


async def read(
    deltas: AsyncIterator[Delta],
    form: Form,
    dialect: Dialect,
    *,
    is_thinking: bool = False,
    refusal: str = "",
    tells: bool = True,
) -> AsyncGenerator[Delta, None]:
    """Yield *deltas* with calls and thoughts taken out of their text.

    Calls come as ``tool_calls``: first index, id, type, name and empty arguments, then fragments of
    the arguments as they were written. Thoughts come as ``reasoning_content`` and ``reasoning``.
    Log-probabilities stay with content; those of thoughts and calls are left out. A choice that
    stops behind whole calls ends with ``tool_calls``. Cut otherwise, the text gives the same.

    Args:
        deltas: Of a model that writes *dialect*.
        form: What was asked for.
        dialect: See `Dialect`.
        is_thinking: Whether every choice begins within a thought.
        refusal: What a choice says that is refused before it has said anything.
        tells: Whether log-probabilities are reported; they count a thought's tokens all the same.
    """
    choices: dict[int, _Choice] = {}
    async for delta in deltas:
        if delta.usage is not None or delta.report is not None:
            yield replace(delta, usage=_counted(delta.usage, choices.values()))
            continue
        if delta.choice not in choices:
            reader = Reader(form, dialect, is_thinking=is_thinking)
            choices[delta.choice] = _Choice(reader, refusal, tells=tells)
        for one in choices[delta.choice].deltas(delta):
            yield one


class _Choice:
    """One choice as it is read."""

    def __init__(self, reader: Reader, refusal: str, *, tells: bool) -> None:
        self._reader = reader
        self._refusal = refusal
        self._tells = tells
        self._entries = _Entries()
        self._has_spoken = False

    @property
    def n_thought(self) -> int | None:
        """Tokens of its thoughts; None where tokens are not told."""
        return self._entries.n_thought

    def deltas(self, delta: Delta) -> Iterator[Delta]:
        """Yield what *delta* becomes."""
        pieces = self._reader.feed(delta.text)
        if delta.finish is not None:
            pieces += self._reader.finish()
        self._entries.take(delta.text, delta.logprobs, pieces)
        parts = [_said(piece, delta.choice) for piece in pieces]
        self._has_spoken |= bool(parts)
        logprobs = self._entries.leave(self._reader.at)
        logprobs = logprobs if self._tells else ()
        last = replace(delta, text="", logprobs=logprobs, finish=self._finish(delta.finish))
        if last.finish == "content_filter" and not self._has_spoken:
            last = replace(last, text=self._refusal)
        yield from _merged(parts, last)

    def _finish(self, finish: Finish | None) -> Finish | None:
        n_calls = self._reader.n_calls
        is_called = finish == "stop" and 0 < n_calls == self._reader.n_whole
        return "tool_calls" if is_called else finish


def _said(piece: Piece, choice: int) -> Delta:
    if piece.kind == "content":
        return Delta(choice=choice, text=piece.text)
    return Delta(choice=choice, message=piece.message)


def _merged(parts: Sequence[Delta], last: Delta) -> Iterator[Delta]:
    """Yield *parts*; what else there is to tell goes with the last of them that is text."""
    if parts and not parts[-1].message and not last.text:
        yield from parts[:-1]
        yield replace(last, text=parts[-1].text)
        return
    yield from parts
    if last != Delta(choice=last.choice):
        yield last


def _counted(usage: Usage | None, choices: Iterable[_Choice]) -> Usage | None:
    """Return *usage* with the tokens of thoughts, where tokens were told."""
    counts = [one.n_thought for one in choices if one.n_thought is not None]
    if usage is None or not any(counts):
        return usage
    details = {**usage.extra.get("completion_tokens_details", {}), "reasoning_tokens": sum(counts)}
    return replace(usage, extra={**usage.extra, "completion_tokens_details": details})


def _part(data: bytes) -> TokenLogprob:
    """Return what is told of a token that wrote *data* of the content, and something else."""
    return TokenLogprob(data.decode("utf-8", "replace"), MARKER_LOGPROB, data)


_CONTENT, _THOUGHT = 1, 2
_KINDS: Final = {"content": _CONTENT, "thought": _THOUGHT}


class _Entries:
    """Log-probabilities of one choice: those whose bytes are content leave with it."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, TokenLogprob]] = deque()
        self._kinds = bytearray()  # what each byte of the raw text is part of
        self._tail = ""  # raw text that no place was asked for yet
        self._char = self._byte = 0  # where it begins
        self._n_told = 0
        self.n_thought: int | None = None

    def take(self, text: str, entries: Iterable[TokenLogprob], pieces: Iterable[Piece]) -> None:
        """Take in raw *text*, what is told of its tokens, and what it was read as."""
        self._tail += text
        self._kinds += bytes(len(text.encode()))
        for piece in pieces:
            start = self._to(piece.start)
            kind = _KINDS.get(piece.kind, 0)
            n_bytes = len(piece.text.encode())
            if kind:
                self._kinds[start : start + n_bytes] = bytes([kind]) * n_bytes
        for entry in entries:
            end = self._n_told + len(entry.data)
            self._waiting.append((self._n_told, end, entry))
            self._n_told = end

    def leave(self, at: int) -> tuple[TokenLogprob, ...]:
        """Return what leaves once the raw text has been read for certain up to character *at*."""
        end, left = self._to(at), list[TokenLogprob]()
        while self._waiting and self._waiting[0][1] <= end:
            start, stop, entry = self._waiting.popleft()
            kinds = bytes(self._kinds[start:stop])
            said = bytes(b for b, k in zip(entry.data, kinds, strict=False) if k == _CONTENT)
            if said:
                left.append(entry if said == entry.data else _part(said))
            self.n_thought = (self.n_thought or 0) + (_THOUGHT in kinds)
        return tuple(left)

    def _to(self, char: int) -> int:
        """Return the byte at which a character of the raw text begins; never goes back."""
        n_chars = char - self._char
        self._byte += len(self._tail[:n_chars].encode())
        self._tail, self._char = self._tail[n_chars:], char
        return self._byte
