"""One request at one server: made ready, sent, and what comes back read as we say it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from elision.contract import Delta, Plan, Request, Usage
from elision.errors import ElisionError, UpstreamError, UpstreamTimeoutError
from elision.middleware.engines.fleet.endings import cut, is_dead, is_mute, told
from elision.middleware.engines.fleet.failover import Failover, is_broken_off
from elision.middleware.engines.fleet.known import Proof
from elision.middleware.engines.fleet.ordering import (
    Need,
    check_fields,
    is_shaped,
    order_of,
    ordered,
    own_salt,
    salt_of,
    salted,
)
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.fleet.resolving import Resolving
from elision.middleware.engines.fleet.salting import Salting
from elision.middleware.engines.plugin.orders import Order

T = TypeVar("T")

_MOST_TURNS: Final = 3
"""How often a server may change while a request is made ready for it."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A request on its way.

    Attributes:
        plan: What is asked.
        need: What it needs of a server.
        deadline: When it must be over, on the running loop's clock.
        tries: Of its servers.
    """

    plan: Plan
    need: Need
    deadline: float | None
    tries: Failover


class Saying:
    """Has servers say what is asked. Lives as long as its engine.

    Args:
        engine: Whose, for errors.
        key: Keys salts; of all who share the servers, or of this process.
        max_age_s: Seconds after which what a server was seen to do counts no longer.

    Attributes:
        n_dead_ends: Choices that ended where nothing acceptable was left.
    """

    def __init__(self, engine: str, *, key: bytes, max_age_s: float) -> None:
        self.n_dead_ends = 0
        self._engine = engine
        self._key = key
        self._max_age_s = max_age_s
        self._resolving = Resolving(engine)
        self._salting = Salting(key)

    async def said(self, replica: Replica, asking: Asking) -> AsyncGenerator[Delta, None]:
        """Yield *replica*'s reply; masks that it does not know any more are taught it again.

        Raises:
            ElisionError: If it is unfit for the request, or as `RemoteEngine.stream`.
        """
        plan = asking.plan
        if plan.masks is not None:
            own = self._salting.salted(plan.masks, plan.tenant)
            plan = replace(plan, masks=await _in_time(asking.deadline, own))
        for is_last in (False, True):
            ready = self._written(replica, plan, asking.need)
            request, stop = await _in_time(asking.deadline, ready)
            request = replace(request, timeout_s=_left(asking.deadline))
            asked_at, is_first = time.monotonic(), True
            with replica.busy(), asking.tries.sending():
                async with aclosing(_heard(replica, request, plan)) as deltas:
                    async for delta in deltas:
                        is_end = is_dead(delta, stop)
                        is_doubtful = is_first and not is_last and (is_end or _is_odd(delta, stop))
                        if is_doubtful and _is_worth_again(replica, plan, asked_at):
                            break
                        is_first = False
                        self.n_dead_ends += is_end
                        yield told(delta) if is_end else delta
                    else:
                        return

    def erase(self, tenant: str) -> int:
        """Drop what is kept of *tenant*; return how many things."""
        return self._resolving.erase(tenant) + self._salting.erase(tenant)

    async def aclose(self) -> None:
        """Call off what is being asked."""
        await self._resolving.aclose()

    async def _written(
        self, replica: Replica, plan: Plan, need: Need
    ) -> tuple[Request, int | None]:
        """Return *plan*'s request as it goes to *replica*, and the token that ends dead choices.

        Raises:
            ElisionError: If the server is unfit for it, or cannot be asked.
        """
        salt = salt_of(plan.tenant, own_salt(plan.request.extra), self._key)
        request = salted(plan.request, salt)
        if not need.carries:
            if await replica.requires_order():
                request = ordered(request, Order(), secret=replica.secret)
            return request, None
        for _ in range(_MOST_TURNS):
            proof = await replica.proved(max_age_s=self._max_age_s)
            order = await self._ordered(replica, replace(plan, request=request), need, proof)
            if replica.proof is proof:  # else it came in doubt meanwhile: all of it begins anew
                bias = replica.takes_bias(proof)
                return ordered(request, order, secret=replica.secret, takes_bias=bias), proof.stop
        raise UpstreamError("a vLLM server was lost while it was made ready", retryable=True)

    async def _ordered(self, replica: Replica, plan: Plan, need: Need, proof: Proof) -> Order:
        """Return what a server with *proof* is to do, once it knows the masks for it."""
        if (lacking := need.lacking(proof, engine=self._engine)) is not None:
            raise lacking
        drafts = proof.speculates or proof.n_drafts > 0
        check_fields(plan.request, stop=proof.stop, is_guarded_draft=need.guarded and drafts)
        recipes = await self._resolving.resolved(plan.recipes, replica, proof, tenant=plan.tenant)
        if plan.masks is not None:
            await replica.pushing.ensure(plan.masks)
        return order_of(plan, recipes, proof, self._key)


async def _heard(replica: Replica, request: Request, plan: Plan) -> AsyncGenerator[Delta, None]:
    """Yield a reply; where a grammar and masks left nothing to say, its choices are cut there.

    vLLM's grammar takes the token that ends a dead choice for a fault, and ends the request with
    an error that says nothing more.
    """
    unfinished = set(range(request.n))
    try:
        async with aclosing(replica.say(request, plan)) as deltas:
            async for delta in deltas:
                if delta.finish is not None:
                    unfinished.discard(delta.choice)
                yield delta
        return
    except UpstreamError as exc:
        is_cut = plan.masks is not None and is_shaped(request) and is_broken_off(exc)
        if not (is_cut and unfinished):
            raise
    for choice in sorted(unfinished):
        yield cut(choice)
    yield Delta(usage=Usage(), report={"engine": replica.name, "usage_from_upstream": False})


def _is_odd(delta: Delta, stop: int | None) -> bool:
    """Return whether a reply ends as an empty one does, where no token says more."""
    return stop is None and is_mute(delta)


def _is_worth_again(replica: Replica, plan: Plan, asked_at: float) -> bool:
    """Return whether masks may not have been known, and are to be tried once more."""
    masks = plan.masks
    return masks is not None and replica.pushing.is_worth_again(masks, asked_at=asked_at)


async def _in_time(deadline: float | None, work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError as exc:
        if isinstance(exc, ElisionError):
            raise
    raise _late()


def _left(deadline: float | None) -> float | None:
    """Return the seconds that are left; None: nobody waits for an end."""
    if deadline is None:
        return None
    left_s = deadline - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise _late()
    return left_s


def _late() -> UpstreamTimeoutError:
    return UpstreamTimeoutError("the deadline passed while a vLLM server was made ready")
