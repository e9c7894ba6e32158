"""OpenTelemetry: one span a request under the GenAI conventions, and never a word of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from opentelemetry import propagate, trace
from opentelemetry.metrics import _internal as metrics_globals
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from elision.errors import EngineError
from elision.middleware.gateway.spans import Telemetry

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {
    "model": "speaker",
    "messages": [
        {"role": "system", "content": "Zanzibar rules."},
        {"role": "user", "content": "Where is Quetzalcoatl?"},
    ],
    "max_tokens": 5,
    "temperature": 0.5,
    "seed": 2**64 - 1,
    "stop": ["Ouagadougou"],
    "elision": {"session": "Mergatroyd"},
}
WORDS = ("Zanzibar", "Quetzalcoatl", "Ouagadougou", "Mergatroyd", "Paris", "capital", "Nessuno")


@dataclass(frozen=True)
class Observed:
    """A server that an SDK listens to, and what that has heard."""

    server: Any
    spans: InMemorySpanExporter
    measures: InMemoryMetricReader


@pytest.fixture(scope="module")
def _observed(served: Any) -> Iterator[Observed]:
    spans = InMemorySpanExporter()
    measures = InMemoryMetricReader({Histogram: AggregationTemporality.DELTA})
    tracing, measuring = TracerProvider(), MeterProvider([measures])
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", tracing)
        patch.setattr(metrics_globals, "_METER_PROVIDER", measuring)
        with served() as server:
            yield Observed(server, spans, measures)
    tracing.shutdown()
    measuring.shutdown()


@pytest.fixture
def server(_observed: Observed) -> Any:
    _observed.server.engine.error, _observed.server.engine.pause_s = None, 0.0
    return _observed.server


@pytest.fixture
def spans(_observed: Observed) -> InMemorySpanExporter:
    _observed.spans.clear()
    return _observed.spans


@pytest.fixture
def measures(_observed: Observed) -> InMemoryMetricReader:
    return _observed.measures


def ended(spans: InMemorySpanExporter, n: int) -> list[ReadableSpan]:
    """Wait for *n* spans: a span ends a moment after its reply."""
    until = time.monotonic() + 5
    while len(found := spans.get_finished_spans()) < n:
        assert time.monotonic() < until, found
        time.sleep(0.005)
    assert len(found) == n
    return list(found)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_one_span_with_what_it_set_used_and_how_it_ended(
    server: Any, spans: InMemorySpanExporter, stream: bool
) -> None:
    server.ask("POST", PATH, CHAT | {"stream": stream, "n": 2})
    [span] = ended(spans, 1)

    assert span.name == "chat speaker"
    assert span.kind == SpanKind.SERVER
    assert span.status.status_code == StatusCode.UNSET
    told = dict(span.attributes or {})
    assert 0 < told.pop("gen_ai.response.time_to_first_chunk") < 5
    assert told.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "elision",
        "gen_ai.request.model": "speaker",
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.model": "speaker",
        "gen_ai.response.finish_reasons": ("stop", "stop"),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 10,
    }


def test_the_callers_trace_goes_on(server: Any, spans: InMemorySpanExporter) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    server.ask("POST", PATH, CHAT, traceparent=parent)
    server.ask("POST", PATH, CHAT, traceparent="nonsense")
    first, second = ended(spans, 2)

    assert first.parent is not None
    assert f"{first.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{first.parent.span_id:016x}" == "b7ad6b7169203331"
    assert second.parent is None


def test_a_callers_words_beside_the_trace_are_neither_exported_nor_sent_on(
    server: Any, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, str]] = []
    say = server.engine.stream

    def stream(plan: Any) -> Any:
        sent.append({})
        propagate.inject(sent[-1])  # as an instrumented client of an upstream does
        return say(plan)

    monkeypatch.setattr(server.engine, "stream", stream)
    headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "zanzibar=Quetzalcoatl",
        "baggage": "who=Mergatroyd",
    }
    server.ask("POST", PATH, CHAT, **headers)
    [span] = ended(spans, 1)

    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert (len(span.context.trace_state), [*sent[0]]) == (0, ["traceparent"])
    assert span.parent is not None
    assert len(span.parent.trace_state) == 0
    assert [word for word in WORDS if word in span.to_json() + str(sent)] == []


def test_each_route_is_told_by_its_own_operation(server: Any, spans: InMemorySpanExporter) -> None:
    server.ask("POST", "/v1/completions", {"model": "speaker@plain", "prompt": "Nessuno"})
    server.ask("POST", "/v1/memory/search", {"query": "Nessuno", "namespace": ["chat"]})
    server.ask("POST", "/v1/memory/erase", {"everything": True})
    server.ask("POST", PATH, CHAT | {"model": "speaker@agentic", "elision": {}, "stop": None})
    server.ask("GET", "/v1/models")
    found = ended(spans, 4)

    assert [span.name for span in found] == [
        "text_completion speaker", "search_memory", "delete_memory", "invoke_agent atlas",
    ]  # fmt: skip
    assert [word for span in found for word in WORDS if word in span.to_json()] == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{Quetzalcoatl", "RequestError"),
        (CHAT | {"model": "Nessuno@Quetzalcoatl"}, "NotFoundError"),
        (CHAT | {"tools": "Quetzalcoatl"}, "RequestError"),
    ],
)
def test_of_a_failure_only_its_type_is_told(
    server: Any, spans: InMemorySpanExporter, body: Any, kind: str
) -> None:
    status, _, _ = server.ask("POST", PATH, body)
    [span] = ended(spans, 1)

    assert 400 <= status < 500
    assert span.status.status_code == StatusCode.ERROR
    assert span.status.description is None
    assert dict(span.attributes or {})["error.type"] == kind
    assert list(span.events) == []


@pytest.mark.parametrize("error", [EngineError("Paris"), ValueError("Quetzalcoatl")])
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_that_is_exported_has_a_word_of_request_reply_or_error(
    server: Any,
    spans: InMemorySpanExporter,
    measures: InMemoryMetricReader,
    error: Exception,
    stream: bool,
) -> None:
    server.ask("POST", PATH, CHAT | {"stream": stream})
    server.engine.error = error
    server.ask("POST", PATH, CHAT | {"stream": stream})
    found = ended(spans, 2)

    failure = type(error).__name__ if isinstance(error, EngineError) else "unforeseen"
    assert dict(found[1].attributes or {})["error.type"] == failure
    data = measures.get_metrics_data()
    assert data is not None
    pages = [data.to_json(), *(span.to_json() for span in found)]
    assert [word for page in pages for word in WORDS if word in page] == []


def test_a_client_that_leaves_is_told_as_such(server: Any, spans: InMemorySpanExporter) -> None:
    server.engine.pause_s = 0.2
    with server.open(CHAT | {"stream": True}) as line:
        line.recv(1)
        line.shutdown(socket.SHUT_RDWR)
    [span] = ended(spans, 1)
    assert dict(span.attributes or {})["error.type"] == "client_gone"


def test_measures_are_the_conventions_own(server: Any, measures: InMemoryMetricReader) -> None:
    measures.get_metrics_data()  # what came before
    server.ask("POST", PATH, CHAT | {"stream": True})
    server.ask("POST", PATH, CHAT)
    server.ask("GET", "/healthz")
    data = measures.get_metrics_data()
    assert data is not None
    [scope] = data.resource_metrics[0].scope_metrics
    found: dict[str, Any] = {metric.name: metric.data for metric in scope.metrics}

    assert {*found} == {
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.client.token.usage",
    }
    [duration] = found["gen_ai.server.request.duration"].data_points
    assert duration.count == 2
    assert duration.explicit_bounds[-1] == 81.92
    assert dict(duration.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "elision",
        "gen_ai.request.model": "speaker",
    }
    sums = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in found["gen_ai.client.token.usage"].data_points
    }
    assert sums == {"input": 14, "output": 10}


def test_without_an_sdk_nothing_is_made(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(metrics_globals, "_METER_PROVIDER", None)
    telemetry = Telemetry()
    assert not telemetry.is_on()
    with served() as server:
        seen = list[Any]()
        app = server.listener.config.app
        gate = next(layer for layer in app.user_middleware if layer.cls.__name__ == "MeterGate")
        gate.kwargs["telemetry"].observed = seen.append
        assert server.ask("POST", PATH, CHAT)[0] == 200
    assert seen == []
    monkeypatch.setattr(metrics_globals, "_METER_PROVIDER", MeterProvider())
    assert telemetry.is_on()  # measures alone are worth it too


def test_a_trace_that_is_not_sampled_costs_no_attributes(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(sampler=ALWAYS_OFF))
    with served() as server:
        status, _, page = server.ask("POST", PATH, CHAT)
    assert (status, orjson.loads(page)["usage"]["total_tokens"]) == (200, 12)
