"""What the gateway counts. Labels come from closed sets: never a name, an id or a text."""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import accumulate
from types import MappingProxyType
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from elision.contract import Delta, Usage
from elision.middleware.gateway.limits.meter import Meter

_UNREAD = 4
"""Characters that a piece without a string is taken for: those of a token."""
_FIRST_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30,
)  # fmt: skip
_GAP_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5,
)  # fmt: skip
_ACTED = MappingProxyType(
    {
        "guard.masked": "masked",
        "guard.verbatim": "verbatim",
        "entropy_minimised": "entropy",
        "entropy_cooled": "temperature",
        "reinforced_guided": "reinforced",
        **{
            f"{name}_guided": name
            for name in ("mti", "cfg", "cad", "contrast", "cd", "uld", "delta")
        },
    }
)
"""Notes of a report, and the kind of intervention that each tells of; others are not counted."""
_GAUGE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class _EngineGauges(Collector):
    """Reads the engines' gauges at the moment they are asked for."""

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, value in self._read().items():
            if _GAUGE_NAME.fullmatch(name):
                help_text = f"The engines' {name.replace('_', ' ')}, summed."
                yield GaugeMetricFamily(f"elision_engine_{name}", help_text, value=value)


class Timings(Collector):
    """A histogram of seconds without labels, told by one thread: a fifth of the library's cost."""

    def __init__(self, name: str, told: str, *, buckets: Sequence[float]) -> None:
        """Count from zero, in *buckets*: upper bounds, in order."""
        self._name = name
        self._told = told
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum_s += seconds

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Yield it, for a scrape."""
        bounds = (*map(floatToGoString, self._bounds), "+Inf")
        counts = map(float, accumulate(self._counts))
        rows = list(zip(bounds, counts, strict=True))
        yield HistogramMetricFamily(self._name, self._told, buckets=rows, sum_value=self._sum_s)


def _length(message: Mapping[str, Any]) -> int:
    """Return about how many characters a piece of a call or a thought has: all its strings."""
    n_chars, rest = 0, list[object](message.values())
    while rest:  # a model chooses how deep it goes
        one = rest.pop()
        if isinstance(one, str):
            n_chars += len(one)
        elif isinstance(one, Mapping):
            rest += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            rest += one
    return max(_UNREAD, n_chars)


def _parts(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the reports of each prompt that was answered."""
    parts: Sequence[Mapping[str, Any]] = report.get("requests", (report,))
    return parts


def _is_counted(report: Mapping[str, Any]) -> bool:
    """Whether whoever wrote has counted it: an upstream may leave usage out."""
    return all(part.get("usage_from_upstream", True) for part in _parts(report))


class Metrics:
    """Counters and histograms of one application, in a registry of its own."""

    def __init__(self, engine_gauges: Callable[[], Mapping[str, float]] = dict) -> None:
        """Set up the metrics.

        Args:
            engine_gauges: Called at every scrape for the engines' own gauges.
        """
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_EngineGauges(engine_gauges))
        self.requests = Counter(
            "elision_requests", "Requests ended.", ["route", "status"], registry=registry
        )
        self.failures = Counter(
            "elision_failures", "Requests that an error ended.", ["error"], registry=registry
        )
        self.in_flight = Gauge(
            "elision_requests_in_flight", "Requests begun.", ["route"], registry=registry
        )
        self.seconds = Histogram(
            "elision_request_seconds", "Time of a request.", ["route"], registry=registry
        )
        self.tokens = Counter("elision_tokens", "Tokens.", ["kind"], registry=registry)
        self.rewinds = Counter(
            "elision_rewinds", "Times that a reply was taken back a stretch.", registry=registry
        )
        self.interventions = Counter(
            "elision_interventions", "Replies in which a method acted.", ["kind"], registry=registry
        )
        self.rate_limited = Counter(
            "elision_rate_limited", "Requests beyond a key's limits.", ["kind"], registry=registry
        )
        self.first_token = Timings(
            "elision_time_to_first_token_seconds",
            "Time from a request's arrival to the first piece of its reply.",
            buckets=_FIRST_BUCKETS,
        )
        self.observed = Counter(
            "elision_observed",
            "Phrases of observing targets in replies that left.",
            registry=registry,
        )
        self.gap = Timings(
            "elision_inter_token_seconds",
            "Time between two pieces of a reply; a piece is one token unless text was held back.",
            buckets=_GAP_BUCKETS,
        )
        registry.register(self.first_token)
        registry.register(self.gap)

    async def watch(
        self, deltas: AsyncIterator[Delta], began: float, meter: Meter | None = None
    ) -> AsyncIterator[Delta]:
        """Pass *deltas* on, timed and counted.

        Args:
            deltas: One request's reply; closed when this is.
            began: When the request arrived, by `time.perf_counter`.
            meter: The request's; told what left, however the reply ends.
        """
        last, timer, n_chars, first_s = began, self.first_token, 0, None
        finishes: list[str] = []
        if meter is not None:
            meter.begin()
        try:
            async with aclosing(deltas) as source:  # type: ignore[type-var] # generators all
                async for delta in source:
                    if delta.text:
                        n_chars += len(delta.text)
                        now = time.perf_counter()
                        timer.observe(now - last)
                        last, timer = now, self.gap
                        if first_s is None:
                            first_s = now - began
                    if delta.message:
                        n_chars += _length(delta.message)
                    if delta.finish is not None:
                        finishes.append(delta.finish)
                    if delta.usage is not None:
                        report = delta.report or {}
                        self._end(delta.usage, report, finishes)
                        if meter is not None:
                            meter.used(delta.usage, counted=_is_counted(report))
                    yield delta
        finally:
            if meter is not None:
                meter.wrote(n_chars)
                if meter.observed is not None:
                    meter.observed.first_s, meter.observed.finishes = first_s, finishes

    def count(self, usage: Usage) -> None:
        """Count what a request came to."""
        self.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.tokens.labels("completion").inc(usage.completion_tokens)
        if usage.cached_tokens:
            self.tokens.labels("cached").inc(usage.cached_tokens)

    def _end(self, usage: Usage, report: Mapping[str, Any], finishes: Sequence[str]) -> None:
        self.count(usage)
        kinds = {"refused"} if "content_filter" in finishes else set[str]()
        for part in _parts(report):
            notes = part.get("notes", {})
            # Engines with scores tell of rewinds beside their usage, held text of itself.
            told = {**part.get("usage", {}), **part}
            kinds |= {kind for note, kind in _ACTED.items() if notes.get(note)}
            kinds |= {"redacted"} if told.get("n_redacted") else set[str]()
            self.rewinds.inc(told.get("n_rewinds", 0))
        for kind in kinds:
            self.interventions.labels(kind).inc()

    def expose(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)
