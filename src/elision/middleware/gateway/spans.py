"""What OpenTelemetry is told: a span and a few measures a request, under the GenAI conventions.

The names are those of semantic-conventions-genai (status: development), written out, because the
constants of the Python package are deprecated. Nothing of a request's or a reply's words is ever
told, and there is no switch for it. Without an SDK that records, none of this is made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import Token
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context, metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.requests import ClientDisconnect

from elision.errors import ElisionError

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from elision.contract import Request, Usage

PROVIDER: Final = "elision"
_NAME: Final = "elision"
_NUMBERS: Final = TraceContextTextMapPropagator()

_SECONDS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
_FIRST_SECONDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
_TOKENS: Final = tuple(float(4**power) for power in range(14))


class Telemetry:
    """The tracer and the instruments of one application. Lives with it."""

    def __init__(self) -> None:
        meter = metrics.get_meter(_NAME, version("elision"))
        self._tracer = trace.get_tracer(_NAME, version("elision"))
        self._duration = meter.create_histogram(
            "gen_ai.server.request.duration",
            unit="s",
            description="Time of a request.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._first = meter.create_histogram(
            "gen_ai.server.time_to_first_token",
            unit="s",
            description="Time from a request's arrival to the first piece of its reply.",
            explicit_bucket_boundaries_advisory=_FIRST_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of prompts and replies.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )

    def is_on(self) -> bool:
        """Whether somebody may be listening; asked per request, as an SDK may be set up late."""
        return _acts(trace.get_tracer_provider()) or _acts(metrics.get_meter_provider())

    def observed(self, headers: Mapping[str, str], operation: str, began_ns: int) -> Observed:
        """Return what observes a request with *headers* that arrived at *began_ns*.

        Of the headers only the numbers of ``traceparent`` are taken: what callers write into
        ``tracestate`` and ``baggage`` are words, and would be exported and sent on.
        """
        given = {name: headers[name] for name in ("traceparent",) if name in headers}
        return Observed(self, _NUMBERS.extract(given), operation, began_ns)

    def open(self, parent: Context, name: str, began_ns: int, attributes: dict[str, Any]) -> Span:
        """Begin a span."""
        return self._tracer.start_span(
            name, parent, kind=SpanKind.SERVER, start_time=began_ns, attributes=attributes
        )

    def measure(self, seconds: float, first_s: float | None, usage: Usage | None,
                attributes: Mapping[str, Any]) -> None:  # fmt: skip
        """Record what a request took."""
        self._duration.record(seconds, attributes)
        if first_s is not None:
            self._first.record(first_s, attributes)
        if usage is not None:
            kinds = (("input", usage.prompt_tokens), ("output", usage.completion_tokens))
            for kind, n in kinds:
                self._tokens.record(n, {**attributes, "gen_ai.token.type": kind})


class Observed:
    """One request's span and measures. Lives as long as the request.

    Attributes:
        id: The reply's, once there is one.
        finishes: Why choices ended, in the order in which they did.
        first_s: Time to the first piece, in seconds.
        usage: What was counted.
    """

    def __init__(
        self, telemetry: Telemetry, parent: Context, operation: str, began_ns: int
    ) -> None:
        self.id: str | None = None
        self.finishes: list[str] = []
        self.first_s: float | None = None
        self.usage: Usage | None = None
        self._telemetry = telemetry
        self._parent = parent
        self._began_ns = began_ns
        self._span: Span | None = None
        self._token: Token[Context] | None = None
        self._operation = operation
        self._facts: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDER,
        }

    def asks(self, model: str, request: Request | None = None, *, agent: str | None = None) -> None:
        """Begin the span, which is the current one until `end`.

        Args:
            model: An alias of ours, never the caller's spelling: a label must not be a text.
            request: What of it was set is told.
            agent: Who works on it, if the reply is an agent's.
        """
        if self._span is not None:
            return
        self._facts["gen_ai.request.model"] = model
        more = {} if request is None else _settings_of(request)
        if agent is not None:
            self._operation = self._facts["gen_ai.operation.name"] = "invoke_agent"
            more["gen_ai.agent.name"] = agent
        self._open(f"{self._operation} {agent or model}", more)

    def end(self, failure: BaseException | None) -> None:
        """End the span and record the measures; of a failure only its type is told."""
        if self._span is None:
            self._open(self._operation, {})
        span = self._span
        assert span is not None
        if failure is not None:
            self._facts["error.type"] = error_type(failure)
            span.set_status(Status(StatusCode.ERROR))
        if span.is_recording():
            span.set_attributes(self._outcome())
        span.end()
        if self._token is not None:
            context.detach(self._token)
        seconds = (time.time_ns() - self._began_ns) / 1e9
        self._telemetry.measure(seconds, self.first_s, self.usage, self._facts)

    def _open(self, name: str, more: dict[str, Any]) -> None:
        facts = {**self._facts, **more}
        self._span = self._telemetry.open(self._parent, name, self._began_ns, facts)
        self._token = context.attach(trace.set_span_in_context(self._span, self._parent))

    def _outcome(self) -> dict[str, Any]:
        told: dict[str, Any] = {"error.type": self._facts.get("error.type")}
        told |= {"gen_ai.response.id": self.id}
        told |= {"gen_ai.response.finish_reasons": self.finishes or None}
        told |= {"gen_ai.response.time_to_first_chunk": self.first_s}
        if (usage := self.usage) is not None:
            told |= {
                "gen_ai.response.model": self._facts.get("gen_ai.request.model"),
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens or None,
                "gen_ai.usage.reasoning.output_tokens": _reasoning_tokens(usage),
            }
        return {name: value for name, value in told.items() if value is not None}


def _acts(provider: object) -> bool:
    """Whether a provider is not one of the API's own, which do nothing; one has no public name."""
    module = type(provider).__module__
    return not module.startswith("opentelemetry.") or module.startswith("opentelemetry.sdk.")


def error_type(failure: BaseException) -> str:
    """Return what a failure is called: a class of ours, ``client_gone``, or ``unforeseen``."""
    if isinstance(failure, ClientDisconnect):
        return "client_gone"
    return type(failure).__name__ if isinstance(failure, ElisionError) else "unforeseen"


def _settings_of(request: Request) -> dict[str, Any]:
    """Return what a request sets in numbers; its stop texts and its session's name are words."""
    sampling = request.sampling
    said = {
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k or None,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty or None,
        "gen_ai.request.presence_penalty": sampling.presence_penalty or None,
        "gen_ai.request.seed": _int64(sampling.seed),
        "gen_ai.request.choice.count": request.n if request.n > 1 else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _reasoning_tokens(usage: Usage) -> int | None:
    details = usage.extra.get("completion_tokens_details")
    found = details.get("reasoning_tokens") if isinstance(details, Mapping) else None
    return found if isinstance(found, int) and found > 0 else None


def _int64(seed: int | None) -> int | None:
    """Return *seed* if OpenTelemetry can carry it; ours go up to twice as far."""
    return seed if seed is not None and seed < 2**63 else None
