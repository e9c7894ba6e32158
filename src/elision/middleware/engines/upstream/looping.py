"""The token loop: the local engine over an upstream that tells the likeliest next tokens.

Every recipe then works on a model of somebody else's: masks, entropy, guidance, rewinds. It costs
a request per token and branch, so it is for what cannot be done otherwise.

Source:
    Our own; serving.md 3.3, step 3.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from elision.contract import Capability, Delta, Lexicon, Plan
from elision.errors import CapabilityError, ElisionError, RequestError
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.prefixes import PrefixCache
from elision.middleware.engines.station import Station
from elision.middleware.engines.upstream.asking import Asker, Ticket
from elision.middleware.engines.upstream.offers import Offers
from elision.middleware.engines.upstream.token_model import UpstreamModel
from elision.middleware.engines.upstream.tokenizer import (
    PROBE,
    Upstream,
    check_tokenizer,
    load_tokenizer,
    split,
)
from elision.middleware.engines.worker import Worker

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache, PreTrainedTokenizerBase

    from elision.settings import Settings

MOST_CANDIDATES: Final = 20
"""Tokens asked for per position: vLLM's own limit by default. An answer takes 1.1 kB."""

USUAL_CONTEXT: Final = 4096
"""Longest sequence where neither upstream nor tokenizer tells it."""

CAPABILITIES: Final = (
    Capability.LOGITS
    | Capability.BRANCH
    | Capability.REWIND
    | Capability.TOP_LOGPROBS
    | Capability.LOGIT_BIAS
    | Capability.TOKEN_IDS
    | Capability.CONTINUE
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked(Plan):
    """A plan with the ticket of its dealings."""

    ticket: Ticket = field(default_factory=Ticket, repr=False)

    @classmethod
    def of(cls, plan: Plan, ticket: Ticket) -> _Asked:
        known = {one.name: getattr(plan, one.name) for one in fields(plan)}
        return cls(**known, ticket=ticket)


class LoopStation(Station):
    """The belongings of a loop: nothing is kept from one request to the next.

    What two prompts begin with alike is the upstream's to remember. Trees are not scored, several
    sequences are: their questions are asked side by side.
    """

    @property
    def takes_trees(self) -> bool:
        """No: every node would be a request."""
        return False

    @property
    def takes_several(self) -> bool:
        """Yes."""
        return True

    def read(self, tokens: tuple[int, ...], cache: DynamicCache) -> tuple[int, Tensor]:
        """Append all of *tokens*, however many: only what follows the last is asked for."""
        return len(tokens), self.model.score(tokens, cache)

    def recall(self, plan: Plan, ids: tuple[int, ...]) -> tuple[DynamicCache, int]:
        """Return an empty cache that belongs to *plan*'s request."""
        model = self.model
        if isinstance(plan, _Asked) and isinstance(model, UpstreamModel):
            return model.cache_for(plan.ticket), 0
        return model.new_cache(), 0


class TokenLoop(LocalEngine):
    """Serves an upstream from one thread, token by token. Lives until `aclose`.

    A round waits for its slowest answer: requests that are decoded together go at one pace.

    Args:
        model: The upstream, seen as a model; its asker is closed with this engine.
        max_streams: See `LocalEngine`.
        queue_limit: See `LocalEngine`.
        timeout_s: See `LocalEngine`.
    """

    capabilities: Capability = CAPABILITIES
    holds_forms = False
    """What a form demands is seldom among the likeliest tokens."""

    def __init__(
        self,
        model: UpstreamModel,
        *,
        max_streams: int = 8,
        queue_limit: int = 32,
        timeout_s: float = 600.0,
    ) -> None:
        # Not the base's own: a station that reads its prompts otherwise.
        self.name = model.name
        self.lexicon: Lexicon | None = model.lexicon
        self._asker = model.asker
        self._timeout_s = timeout_s
        self._station = LoopStation(model, prefixes=PrefixCache(0), cross_request=False)
        self._worker = Worker(
            self._station, n_threads=1, max_streams=max_streams, queue_limit=queue_limit
        )

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """See `Engine.stream`. Closing it calls off what the upstream is being asked.

        The last delta's report tells how many tokens were known per position (``scores``), the
        largest probability that was not (``missing_mass``), and the requests (``upstream_calls``).

        Raises:
            CapabilityError: If *plan* searches beams, or has a given text scored.
            RequestError: If ``logit_bias`` raises a token, which may not be known.
        """
        _check(plan, self.name)
        timeout_s = plan.request.timeout_s or self._timeout_s
        ticket = Ticket(time.monotonic() + timeout_s)
        try:
            async with aclosing(super().stream(_Asked.of(plan, ticket))) as deltas:
                async for delta in deltas:
                    yield self._reported(delta, ticket)
        finally:
            self._asker.drop(ticket)

    def _reported(self, delta: Delta, ticket: Ticket) -> Delta:
        if delta.report is None:
            return delta
        told: dict[str, Any] = {name: x for name, x in delta.report.items() if name != "dtype"}
        told["scores"] = f"top {self._asker.k}"
        told["missing_mass"] = round(ticket.missing_mass, 4)
        told["upstream_calls"] = ticket.n_calls
        return replace(delta, report=told)

    async def aclose(self) -> None:
        """End all requests, at the upstream too. Idempotent."""
        self._worker.close()
        self._asker.close()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._worker.join()
        self._asker.join()


def _check(plan: Plan, engine: str) -> None:
    request = plan.request
    if plan.decoder == "beam":
        raise CapabilityError("beam search", engine=engine, missing="HIDDEN")
    if request.answer is not None or (request.echo and request.logprobs is not None):
        # A given token is seldom among the likeliest: most of its scores would be unknown.
        raise CapabilityError("scoring a given text", engine=engine, missing="LOGITS")
    if any(nats > 0 for nats in request.sampling.logit_bias.values()):
        # Lowered, a token that is not known stays what it is: not written.
        raise RequestError(
            "logit_bias raises a token; here only the likeliest tokens of each position are known, "
            "and one that is not among them cannot be raised. Lower others, or take a model that "
            "shows all its scores",
            param="logit_bias",
            code="unsupported_parameter",
        )


async def token_loop(
    engine: Upstream,
    tokenizer: str,
    settings: Settings,
    *,
    n_candidates: int = MOST_CANDIDATES,
    n_context: int | None = None,
) -> TokenLoop | None:
    """Return a loop over *engine*; None if it does not tell likeliest tokens by their numbers.

    One question is asked to find out, and one that shows whether *tokenizer* is the upstream's.

    Args:
        engine: The upstream.
        tokenizer: Alias, hub id (its tokenizer alone is fetched) or folder.
        settings: Cache and limits.
        n_candidates: Tokens to ask for per position; at most `MOST_CANDIDATES` are.
        n_context: Longest sequence that the upstream takes, if it tells.

    Raises:
        ConfigError: If there is no such tokenizer, or the upstream splits text otherwise, or does
            not tell how it does.
        LexiconError: If nobody can say what its tokens write.
    """
    k = min(n_candidates, MOST_CANDIDATES)
    if k < 1:
        return None
    loaded, ends = await asyncio.to_thread(load_tokenizer, tokenizer, settings)
    if not await _tells(engine, loaded, k):
        return None
    await check_tokenizer(engine, loaded, tokenizer)
    limit = n_context or min(loaded.model_max_length, 10**9)
    asker = Asker(engine.next_scores, k=k, leave=engine.leave)
    model = UpstreamModel(
        asker,
        loaded,
        name=engine.name,
        n_context=limit if limit < 10**7 else USUAL_CONTEXT,
        eos=ends,
    )
    return TokenLoop(
        model,
        max_streams=settings.max_streams,
        queue_limit=settings.queue_limit,
        timeout_s=settings.timeout_s,
    )


async def open_loop(
    engine: Upstream, tokenizer: str, settings: Settings, offers: Offers
) -> TokenLoop | None:
    """Return a loop over *engine* with as many candidates as it *offers*; see `token_loop`.

    Args:
        engine: The upstream.
        tokenizer: See `token_loop`.
        settings: See `token_loop`.
        offers: What the upstream was seen to do. If that is nothing, nobody has asked: it is tried.
    """
    if offers == Offers():
        return await token_loop(engine, tokenizer, settings)
    most = offers.n_text_logprobs if offers.prompt_ids else 0
    return await token_loop(
        engine,
        tokenizer,
        settings,
        n_candidates=offers.n_logprobs if offers.generate else most,
        n_context=offers.max_model_len,
    )


async def _tells(engine: Upstream, tokenizer: PreTrainedTokenizerBase, k: int) -> bool:
    """Return whether likeliest tokens come with numbers: asked for, for few servers say so."""
    try:
        return bool(await engine.next_scores(split(tokenizer, PROBE)[:4], k))
    except ElisionError as exc:
        if exc.retryable:
            raise
        _log.info("%s tells no likeliest tokens (%s)", engine.name, type(exc).__name__)
        return False
