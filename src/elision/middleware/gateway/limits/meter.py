"""One request's account: what it was promised, what it used, and who is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from elision.contract import Request, Usage
from elision.errors import ElisionError, UpstreamError
from elision.middleware.gateway.limits.allowance import PREFIX, Allowance
from elision.middleware.gateway.limits.errors import QuotaError, RateLimitError
from elision.middleware.gateway.limits.estimate import BYTES_PER_TOKEN, Estimate

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from starlette.requests import Request as HttpRequest

    from elision.middleware.gateway.spans import Observed
    from elision.middleware.pipeline import Pipeline

AGENT: Final = "atlas"
"""What works on requests of the profile ``agentic``, as OpenTelemetry is told."""


class Meter:
    """Measures one request. Lives as long as the request; whoever makes it calls `close`.

    Attributes:
        usage: What was used, once that is known.
        observed: What OpenTelemetry is told; None if nobody listens.
    """

    __slots__ = (
        "_allowance", "_begun", "_counted", "_estimate", "_held", "_written", "observed", "usage",
    )  # fmt: skip

    def __init__(
        self, allowance: Allowance | None = None, observed: Observed | None = None
    ) -> None:
        """Measure a request of a key with *allowance*; None: it has no limits."""
        self.usage: Usage | None = None
        self.observed = observed
        self._allowance = allowance
        self._estimate = Estimate()
        self._begun = self._counted = False
        self._held = 0
        self._written = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether the key has a limit that is about tokens."""
        return self._allowance is not None and self._allowance.counts_tokens

    def admit(self) -> None:
        """Take one request of the key's.

        Raises:
            RateLimitError: If none is left this minute.
        """
        if self._allowance is not None:
            self._allowance.admit()

    async def ask(self, requests: Sequence[Request], pipeline: Pipeline) -> None:
        """Have the tokens that *requests*, answered as one, may take set aside; say what is asked.

        Args:
            requests: One model's, at least one.
            pipeline: What knows the model.

        Raises:
            RateLimitError: If so many tokens are not left this minute.
            QuotaError: If they are not left of the key's budget.
            NotFoundError: If there is no such model or profile.
            StoreError: If it cannot be read what was spent.
        """
        if self.observed is not None:
            engine, profile = pipeline.resolve(requests[0])
            agent = AGENT if profile.agentic else None
            self.observed.asks(engine.name, requests[0], agent=agent)
        if self.counts_tokens:
            await self._hold(Estimate.of(requests))

    async def ask_for(self, n_tokens: int, *, model: str) -> None:
        """Have tokens set aside where nothing is written: for vectors.

        Args:
            n_tokens: Of all texts, as well as is known.
            model: An alias of ours.

        Raises:
            RateLimitError: As `ask`.
            QuotaError: As `ask`.
            StoreError: As `ask`.
        """
        if self.observed is not None:
            self.observed.asks(model)
        if self.counts_tokens:
            await self._hold(Estimate(prompt=n_tokens))

    def begin(self) -> None:
        """Take note that the engine is asked: from here on the prompt costs, whatever leaves."""
        self._begun = True

    def used(self, usage: Usage, *, counted: bool = True) -> None:
        """Take note of what was used; a second call replaces the first.

        Args:
            usage: Its tokens.
            counted: Whether all of them were counted; else they are the least it can have been.
        """
        self.usage = usage
        self._counted = counted and usage.prompt_tokens > 0  # nothing is answered without a prompt

    def wrote(self, n_chars: int) -> None:
        """Take note that so many characters left, for a reply whose usage stays unknown."""
        self._written += n_chars

    def close(self, failure: BaseException | None = None) -> None:
        """Settle what was set aside and end the span. Call it once.

        Args:
            failure: What ended the request, if anything did.
        """
        if self._allowance is not None and self._held:
            self._allowance.settle(self._held, self._n_used(failure))
            self._held = 0
        if self.observed is not None:
            self.observed.usage = self.usage
            self.observed.end(failure)

    def stamp(self, headers: MutableSequence[tuple[bytes, bytes]]) -> None:
        """Put the key's limits among a response's *headers*, in place of an upstream's own."""
        if self._allowance is not None and (ours := [*self._allowance.headers()]):
            headers[:] = [pair for pair in headers if not pair[0].lower().startswith(PREFIX)] + ours

    async def _hold(self, estimate: Estimate) -> None:
        assert self._allowance is not None
        if self._allowance.account is not None:
            await self._allowance.account.refresh()
        n = estimate.at_least + estimate.unnamed
        self._held = self._allowance.hold(n, at_least=estimate.at_least)
        self._estimate = estimate

    def _n_used(self, failure: BaseException | None) -> int:
        """Return what to count: of a reply that nobody counted, its prompt and what left of it."""
        told = 0 if self.usage is None else max(0, self.usage.total_tokens)
        began = told or self._written or (self._begun and not _turns_away(failure))
        if self._counted or not began:
            return told
        return max(told, self._estimate.prompt + -(-self._written // BYTES_PER_TOKEN))


def _turns_away(failure: BaseException | None) -> bool:
    """Whether *failure* tells that nothing was begun: by us, or by an upstream in its status."""
    if isinstance(failure, UpstreamError):
        return failure.upstream_status is not None
    return isinstance(failure, ElisionError) and failure.status < 500


def meter_of(request: HttpRequest) -> Meter:
    """Return what measures *request*; one that counts for nobody where nothing does."""
    meter: Meter | None = request.scope.get("state", {}).get("meter")
    return Meter() if meter is None else meter


def kind_of(failure: object) -> str | None:
    """Return which limit a failure tells of, as a label; None if it tells of none."""
    if isinstance(failure, QuotaError):
        return "budget"
    return failure.kind if isinstance(failure, RateLimitError) else None
