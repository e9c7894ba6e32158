"""What the gateway counts. Labels come from closed sets: never a name, an id or a text."""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import accumulate

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

from elision.contract import Delta

_FIRST_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30,
)  # fmt: skip
_GAP_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5,
)  # fmt: skip
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

    async def watch(self, deltas: AsyncIterator[Delta], began: float) -> AsyncIterator[Delta]:
        """Pass *deltas* on, timed and counted.

        Args:
            deltas: One request's reply; closed when this is.
            began: When the request arrived, by `time.perf_counter`.
        """
        last, timer = began, self.first_token
        async with aclosing(deltas) as source:  # type: ignore[type-var] # generators all
            async for delta in source:
                if delta.text:
                    now = time.perf_counter()
                    timer.observe(now - last)
                    last, timer = now, self.gap
                if delta.usage is not None:
                    self.tokens.labels("prompt").inc(delta.usage.prompt_tokens)
                    self.tokens.labels("completion").inc(delta.usage.completion_tokens)
                yield delta

    def expose(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)
