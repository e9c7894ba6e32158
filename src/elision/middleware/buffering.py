"""The buffered profile: a reply is collected and checked whole before any of it leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from elision.contract import REFUSE, Allow, Choice, Delta, Redact, Rewind, Verdict, collect
from elision.errors import GuardError
from elision.guards.phrases.holdback import REDACTED

if TYPE_CHECKING:
    from elision.middleware.enforcement import Enforcement

Checker: TypeAlias = Callable[[str], Iterable[Verdict]]
"""Judges a whole text; positions are its raw characters. Called off the event loop."""


def judge_of(rules: Enforcement) -> Checker:
    """Return the check of a whole text; one that could not be decoded whole is not let go."""

    def judge(text: str) -> list[Verdict]:
        found = rules.checker.check_text(text)
        if found.verdict in {"refuse", "rewind"} or (rules.guard.n_targets and not found.covered):
            return [REFUSE]
        redacted = (hit for hit in found.hits if hit.action == "redact" and hit.what == "phrase")
        return [Redact(hit.start, hit.end, REDACTED) for hit in redacted]

    return judge


async def hold_all(
    deltas: AsyncGenerator[Delta, None],
    checker: Checker,
    *,
    refusal: str = "",
    deadline: float | None = None,
) -> AsyncGenerator[Delta, None]:
    """Yield *deltas* once every choice is whole and has been checked.

    Each choice comes as one delta: as it is, with spans redacted, or refused (``content_filter``
    and *refusal*). Where nobody can go back any more, a rewind becomes what it says otherwise. A
    redacted text is checked again, and refused if it is still not allowed. So is a choice whose
    tool calls, or other parts beside the text, hold what they must not. Log-probabilities and
    traces are dropped where the text was changed. Usage and report come last; the report also tells
    ``n_refused`` and ``n_redacted`` choices.

    Args:
        deltas: A reply. Closed on every way out: whoever stops listening ends it.
        checker: See `Checker`.
        refusal: What a refused choice says.
        deadline: On the monotonic clock, in seconds; what is not checked by then is refused. An
            engine ends its reply at its own deadline.

    Raises:
        GuardError: If the checker breaks; nothing has left then.
        ElisionError: Whatever *deltas* raises; likewise.
    """
    async with aclosing(deltas) as source:
        whole = await collect(source)
        checked = [await _checked(c, checker, refusal, deadline) for c in whole.choices]
    pairs = list(zip(whole.choices, checked, strict=True))
    for _, choice in pairs:
        yield Delta(
            choice=choice.index,
            text=choice.text,
            message=choice.message,
            extra=choice.extra,
            logprobs=choice.logprobs,
            trace=choice.trace,
            finish=choice.finish,
        )
    refused = [choice.finish == "content_filter" for _, choice in pairs]
    changed = [old.text != new.text for old, new in pairs]
    counts = {
        "n_refused": sum(refused),
        "n_redacted": sum(c and not r for c, r in zip(changed, refused, strict=True)),
    }
    report = {**whole.report, "buffered": True, **counts}
    yield Delta(usage=whole.usage, extra=whole.extra, report=report)


async def _checked(
    choice: Choice, checker: Checker, refusal: str, deadline: float | None
) -> Choice:
    """Return *choice* as it may leave; of one that was refused on its way, nothing."""
    if choice.finish == "content_filter":
        return Choice(index=choice.index, text=refusal, finish="content_filter")
    text = await _settled(choice.text, checker, deadline)
    if text is None or not await _are_allowed(choice.message, checker, deadline):
        return Choice(index=choice.index, text=refusal, finish="content_filter")
    if text != choice.text:
        return replace(choice, text=text, logprobs=(), trace=())
    return choice


async def _are_allowed(
    message: Mapping[str, Any], checker: Checker, deadline: float | None
) -> bool:
    """Return whether every string of *message* may leave as it is; nothing there is redacted."""
    for text in _strings(message):
        verdicts = await _verdicts(text, checker, deadline)
        if not all(isinstance(verdict, Allow) for verdict in verdicts):
            return False
    return True


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in *value*; of one that is JSON, also those in that."""
    match value:
        case str():
            yield value
            if value.lstrip()[:1] in {"{", "["}:
                with suppress(orjson.JSONDecodeError):
                    yield from _strings(orjson.loads(value))
        case Mapping():
            for key, inner in value.items():
                yield str(key)
                yield from _strings(inner)
        case list() | tuple():
            for inner in value:
                yield from _strings(inner)


async def _settled(text: str, checker: Checker, deadline: float | None) -> str | None:
    """Return what of *text* may leave; None if it is refused."""
    spans = _spans(await _verdicts(text, checker, deadline))
    if not spans:
        return text if spans is not None else None
    redacted = _redact(text, spans)
    again = _spans(await _verdicts(redacted, checker, deadline))
    return redacted if again == () else None


async def _verdicts(text: str, checker: Checker, deadline: float | None) -> tuple[Verdict, ...]:
    left = None if deadline is None else deadline - time.monotonic()
    try:
        judged = asyncio.to_thread(lambda: tuple(checker(text)))
        return await asyncio.wait_for(judged, left)
    except TimeoutError:
        return (REFUSE,)
    except Exception as exc:  # whatever broke, nothing passes a broken guard
        raise GuardError(f"the check of the whole reply broke ({type(exc).__name__})") from exc


def _spans(verdicts: Iterable[Verdict]) -> tuple[Redact, ...] | None:
    """Return what is to be redacted; None if the text must be refused."""
    settled = [v.otherwise if isinstance(v, Rewind) else v for v in verdicts]
    acting = [verdict for verdict in settled if not isinstance(verdict, Allow)]
    spans = tuple(verdict for verdict in acting if isinstance(verdict, Redact))
    return spans if len(spans) == len(acting) else None


def _redact(text: str, spans: Iterable[Redact]) -> str:
    """Return *text* with markers in the place of *spans*; overlapping ones unite."""
    parts, at = [], 0
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if span.start >= at:
            parts += [text[at : span.start], span.marker]
        at = max(at, span.end)
    return "".join([*parts, text[at:]])
