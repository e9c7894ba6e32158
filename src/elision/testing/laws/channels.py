"""Every text in what an engine, a server or a log has said, by the channel that carried it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from logging import LogRecord
from typing import Any, NamedTuple, TypeAlias

from elision.contract import Alternative, Completion, Delta, TokenLogprob, TokenTrace, joined

Said: TypeAlias = (
    Completion
    | Delta
    | BaseException
    | LogRecord
    | str
    | bytes
    | Mapping[str, Any]
    | Iterable[Any]
    | None
)
"""Anything that left: a completion, deltas, errors, log records, a metrics page, a JSON body."""

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) - {"args", "exc_text", "stack_info"}


class Heard(NamedTuple):
    """One text that left.

    Attributes:
        channel: What carried it, in words.
        text: It.
        before: The text that it directly continues and that was known already.
    """

    channel: str
    text: str
    before: str = ""


def heard(said: Said, *, before: str = "") -> Iterator[Heard]:
    """Yield every text within *said*. Deltas of one collection are read as their choices.

    Args:
        said: What left.
        before: The assistant's beginning that choices continue.
    """
    match said:
        case None:
            return
        case str():
            yield Heard("text", said)
        case bytes():
            yield Heard("text", said.decode("utf-8", "replace"))
        case Completion():
            for choice in said.choices:
                yield from _choice(choice.index, choice.text, choice.logprobs, before)
                yield from _traced(choice.index, choice.trace, before)
                yield from _beside(choice.index, choice.message, choice.extra)
            yield from _within("report", said.report)
            yield from _within("fields", said.extra)
        case Delta():
            yield from _collection([said], before)
        case BaseException():
            yield from _exception(said)
        case LogRecord():
            yield from _record(said)
        case Mapping():
            yield from _within("mapping", [*map(str, said.keys()), *said.values()])
        case Iterable():
            yield from _collection(list(said), before)


def _within(channel: str, said: Said) -> Iterator[Heard]:
    for inner in heard(said):
        yield inner._replace(channel=f"{channel}: {inner.channel}")


def _collection(items: list[Any], before: str) -> Iterator[Heard]:
    deltas = [item for item in items if isinstance(item, Delta)]
    for index in sorted({delta.choice for delta in deltas}):
        own = [delta for delta in deltas if delta.choice == index]
        entries = [entry for delta in own for entry in delta.logprobs]
        yield from _choice(index, "".join(delta.text for delta in own), entries, before)
        yield from _traced(index, [entry for delta in own for entry in delta.trace], before)
        message: dict[str, Any] = {}
        for delta in own:
            message = joined(message, delta.message)
            yield from _beside(index, delta.message, delta.extra)
        yield from _beside(index, message, {})
    for item in items:
        if isinstance(item, Delta):
            yield from _within("report", item.report)
        else:
            yield from heard(item if _is_known(item) else str(item), before=before)


def _is_known(item: Any) -> bool:
    return item is None or isinstance(item, Completion | BaseException | LogRecord | Iterable)


def _choice(index: int, text: str, entries: Sequence[TokenLogprob], before: str) -> Iterator[Heard]:
    """Read a choice as a client can: its text, its tokens, and each alternative in its place."""
    yield Heard(f"choice {index}, content", text, before)
    written = b""
    for position, entry in enumerate(entries):
        place = f"choice {index}, logprobs of token {position}"
        for other in entry.top:
            yield Heard(f"{place}, alternative", _text(written + other.data), before)
            yield Heard(f"{place}, alternative by name", _text(written + _named(other)), before)
        written += entry.data
    yield Heard(f"choice {index}, bytes of all logprobs", _text(written), before)
    names = b"".join(map(_named, entries))
    yield Heard(f"choice {index}, names of all logprobs", _text(names), before)


def _beside(index: int, message: Mapping[str, Any], extra: Mapping[str, Any]) -> Iterator[Heard]:
    """Read what a choice says beside its text: tool calls, JSON also as what it says, fields."""
    yield from _within(f"choice {index}, message", message)
    yield from _within(f"choice {index}, fields", extra)
    for call in message.get("tool_calls") or ():
        arguments = call.get("function", {}).get("arguments", "")
        with suppress(json.JSONDecodeError):
            yield from _within(f"choice {index}, arguments", [json.loads(arguments)])


def _traced(index: int, entries: Sequence[TokenTrace], before: str) -> Iterator[Heard]:
    """Read what is told of a choice's tokens; pieces of characters have no names there."""
    names = "".join(entry.token for entry in entries)
    yield Heard(f"choice {index}, names of all traced tokens", names, before)
    for position, entry in enumerate(entries):
        for text in (*entry.acted, *entry.branches):
            yield Heard(f"choice {index}, trace of token {position}", text)


def _named(entry: TokenLogprob | Alternative) -> bytes:
    """Return the bytes of a token's name; of half a character the name tells nothing."""
    return entry.data if "\ufffd" in entry.token else entry.token.encode()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _exception(said: BaseException) -> Iterator[Heard]:
    seen: set[int] = set()
    error: BaseException | None = said
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        told = [repr(error), *error.args, *getattr(error, "__notes__", ()), *vars(error).values()]
        for text in map(str, [error, *told]):
            yield Heard(f"exception {type(error).__name__}", text)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _record(said: LogRecord) -> Iterator[Heard]:
    channel = f"log record of {said.name!r}"
    yield Heard(channel, said.getMessage())
    if said.exc_info and said.exc_info[1] is not None:
        yield from _within(channel, said.exc_info[1])
    for key in vars(said).keys() - _OF_EVERY_RECORD:
        yield from _within(f"{channel}, {key}", [vars(said)[key]])


@contextmanager
def recorded_logs() -> Iterator[list[LogRecord]]:
    """Collect every record of every logger, whatever its level, while the block runs."""
    records: list[LogRecord] = []
    ear = _Ear(records)
    known = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(log for log in known if isinstance(log, logging.Logger))]
    levels = {log: log.level for log in loggers}
    ears = [log for log in loggers if log is logging.root or not log.propagate]
    try:
        for log in levels:
            log.setLevel(1)
        for log in ears:
            log.addHandler(ear)
        yield records
    finally:
        for log in ears:
            log.removeHandler(ear)
        for log, level in levels.items():
            log.setLevel(level)


class _Ear(logging.Handler):
    def __init__(self, records: list[LogRecord]) -> None:
        super().__init__(level=logging.NOTSET)
        self.records = records

    def emit(self, record: LogRecord) -> None:
        self.records.append(record)
