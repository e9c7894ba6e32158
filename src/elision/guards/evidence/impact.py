"""What targets would do to traffic: supplied lines, replayed through the compiled guard."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Self

from elision.errors import RequestError
from elision.guards.evidence.rates import Rate
from elision.guards.fields import kind_of
from elision.guards.guard import Guard
from elision.guards.targets import ForgetTarget

MAX_LINES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One text of the supplied traffic.

    Attributes:
        text: What was said.
        about: Whether it concerns a target, so that a hit in it is wanted.
    """

    text: str = field(repr=False)
    about: bool = False

    @classmethod
    def from_body(cls, body: object, where: str) -> Self:
        """Read a line as the wire writes it: a text, an object with a text, or with messages.

        Raises:
            RequestError: If it is none. The message names the place, never the text.
        """
        if isinstance(body, str):
            return cls(text=body)
        text = _text_of(body) if isinstance(body, Mapping) else None
        if text is None or not isinstance(body, Mapping):
            raise RequestError(
                f"{where} is no line of traffic; write a string, or an object with a text or "
                "with messages",
                param=where,
                code="invalid_type",
            )
        about = body.get("about", False)
        if not isinstance(about, bool):
            raise RequestError(
                f"{where}.about is {kind_of(about)}; write true or false",
                param=f"{where}.about",
                code="invalid_type",
            )
        return cls(text=text, about=about)


def _text_of(body: Mapping[str, Any]) -> str | None:
    if isinstance(body.get("text"), str):
        return str(body["text"])
    messages = body.get("messages")
    if not isinstance(messages, list):
        return None
    texts = [m.get("content") for m in messages if isinstance(m, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))


def lines_of(body: object, where: str) -> tuple[Line, ...]:
    """Read a list of lines.

    Raises:
        RequestError: If it is no list, too long, or one of them is no line.
    """
    if not isinstance(body, list | tuple):
        raise RequestError(
            f"{where!r} is {kind_of(body)}; write a list of texts", param=where, code="invalid_type"
        )
    if len(body) > MAX_LINES:
        raise RequestError(
            f"{where!r} has {len(body)} lines, at most {MAX_LINES} are possible; send fewer",
            param=where,
            code="invalid_value",
        )
    return tuple(Line.from_body(item, f"{where}[{n}]") for n, item in enumerate(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What became of the replayed lines.

    Attributes:
        by_target: Per target: its hits, and the lines that it met.
        false_positives: Of the lines that concern no target, those with a hit.
        caught: Of the lines that concern one, those with a hit.
        ms: Time of the scan of each line, in milliseconds, sorted.
    """

    by_target: Mapping[str, tuple[int, int]]
    false_positives: Rate
    caught: Rate
    ms: tuple[float, ...] = field(repr=False)

    def quantile(self, share: float) -> float:
        """Return the scan time that *share* of the lines stay within, in milliseconds."""
        return self.ms[max(0, ceil(share * len(self.ms)) - 1)] if self.ms else 0.0

    def to_body(self) -> dict[str, Any]:
        """Return the impact as the wire writes it."""
        by_target = [
            {"target_id": target, "hits": hits, "lines": lines}
            for target, (hits, lines) in self.by_target.items()
        ]
        return {
            "n_lines": len(self.ms),
            "false_positives": self.false_positives.to_body(),
            "caught": self.caught.to_body(),
            "added_ms": {"p50": round(self.quantile(0.5), 4), "p95": round(self.quantile(0.95), 4)},
            "by_target": by_target,
        }


def replay(targets: Iterable[ForgetTarget], lines: Iterable[Line]) -> Impact:
    """Scan *lines* for *targets*, whatever state these are in, and count.

    Phrases alone are looked for; what the semantic layer would do depends on the prompts, which
    lines of traffic need not have.
    """
    enforced = [in_force(target) for target in targets]
    guard = Guard.compile(enforced)
    n_hits, n_lines, times = Counter[str](), Counter[str](), []
    seen: Counter[tuple[bool, bool]] = Counter()
    for line, found, ms in _scans(guard, lines):
        times.append(ms)
        n_hits.update(found)
        n_lines.update(found.keys())
        seen[line.about, bool(found)] += 1
    return Impact(
        by_target={t.id: (n_hits[t.id], n_lines[t.id]) for t in enforced},
        false_positives=Rate(seen[False, True], seen[False, True] + seen[False, False]),
        caught=Rate(seen[True, True], seen[True, True] + seen[True, False]),
        ms=tuple(sorted(times)),
    )


def in_force(target: ForgetTarget) -> ForgetTarget:
    """Return *target* as a guard enforces it, whatever its state."""
    return replace(target, state="active", effective_at=None, expires_at=None)


def _scans(guard: Guard, lines: Iterable[Line]) -> Iterator[tuple[Line, Counter[str], float]]:
    for line in lines:
        began = time.perf_counter()
        hits = guard.scan(line.text)
        ms = (time.perf_counter() - began) * 1e3
        yield line, Counter(hit.target_id for hit in hits), ms
