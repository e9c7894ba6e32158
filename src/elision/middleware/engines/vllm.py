"""vLLM as an engine: one model on one or more servers, with the recipes where its scores are.

An order travels with each request: recipes, and the digest of the masks that hold. Our plug-in
carries it out inside vLLM. Whether it is there and acts is proved, before and again and again;
what must act and was not seen to act is refused.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from operator import attrgetter
from typing import Any, Final, Literal

from pydantic import SecretStr

from elision.contract import Capability, Delta, Lexicon, Plan, Recipe
from elision.errors import CapabilityError, ConfigError, ElisionError
from elision.middleware.engines.fleet.balancing import conversation_of, ranked, tried_first
from elision.middleware.engines.fleet.copying import copied, n_alike
from elision.middleware.engines.fleet.failover import Failover
from elision.middleware.engines.fleet.health import Watch
from elision.middleware.engines.fleet.known import ReplicaHealth
from elision.middleware.engines.fleet.meeting import Meeting
from elision.middleware.engines.fleet.ordering import Need, check_fields, check_xargs
from elision.middleware.engines.fleet.relays import Relays
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.fleet.saying import Asking, Saying
from elision.middleware.engines.plugin.orders import carries
from elision.middleware.engines.upstream.answers import from_now
from elision.middleware.engines.upstream.offers import Offers
from elision.middleware.engines.upstream.relaying import Relayed

_GREETED_S: Final = 3.0
GREET_EVERY_S: Final = 5.0
"""Seconds between two looks at a server; see `Watch`."""


class VllmEngine:
    """One model on vLLM servers. Lives until `aclose`.

    Attributes:
        name: The model's alias, for reports and errors.
        capabilities: PASSES, and what the last `probe` saw; BRANCH where MTI works.
        lexicon: None: it speaks text.
        trusted: True: the servers are ours, and may be told what must not be said.
        replicas: The servers.
    """

    lexicon: Lexicon | None = None
    trusted = True

    def __init__(
        self,
        replicas: Sequence[Replica],
        *,
        name: str,
        model: str | None = None,
        prove_every_s: float = 300.0,
        untested: bool = False,
        secret: str | SecretStr | None = None,
        greet_every_s: float = GREET_EVERY_S,
    ) -> None:
        """Describe the fleet; nothing is sent yet.

        Args:
            replicas: Its servers, which are this engine's from now on.
            name: See above.
            model: The servers' name for the model, where they do not say; *name* by default.
            prove_every_s: Seconds after which it is shown again that masks act; a guarded request
                never relies on what was seen more than twice as long ago.
            untested: Whether versions of vLLM will do that this was not tested with.
            secret: What orders are sealed with, where the servers do not say. Gateways that share
                it send a conversation to the same server, and share its prefixes there.
            greet_every_s: Seconds between two looks at a server.

        Raises:
            ConfigError: If there is no replica, two have one address, or a time is not positive.
        """
        if not replicas or len({one.base_url for one in replicas}) < len(replicas):
            raise ConfigError(f"{name!r} needs vLLM servers, each with an address of its own")
        if prove_every_s <= 0 or greet_every_s <= 0:
            raise ConfigError(f"prove_every_s is {prove_every_s}; it must be positive")
        self.name = name
        self.capabilities = Capability.PASSES
        self.replicas = tuple(replicas)
        secret = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        for replica in self.replicas:
            replica.join(
                name,
                model or name,
                secret=secret or None,
                untested=untested,
                alone=len(self.replicas) == 1,
            )
        max_age_s = 2 * prove_every_s
        self._watch = Watch(self.replicas, greet_every_s=greet_every_s, prove_every_s=prove_every_s)
        self._meeting = Meeting(self.replicas, max_age_s=max_age_s)
        shared = secret.encode() if secret else secrets.token_bytes(32)
        self._key = sha256(b"elision fleet" + shared).digest()
        self._relays = Relays(self.replicas, engine=name, key=self._key)
        self._saying = Saying(name, key=self._key, max_age_s=max_age_s)

    def __repr__(self) -> str:
        return f"VllmEngine({self.name!r}, {len(self.replicas)} replicas)"

    @property
    def offers(self) -> Offers:
        """What all servers were seen to do, as far as they were asked."""
        return Offers.shared(one.offers for one in self.replicas if one.is_seen)

    async def probe(self) -> Capability:
        """Have the servers prove and tell what they can do; one that has is enough.

        The others go on in the background. Waits no longer than half a minute, and after that not
        again for another; see `Meeting`.
        """
        self._watch.ensure()
        await self._meeting.ask()
        found = self.offers.capabilities
        if any(one.known is not None and one.known.drafts for one in self.replicas):
            found |= Capability.BRANCH
        self.capabilities = found
        return found

    def carries(self, recipe: Recipe) -> bool:
        """Return whether *recipe* can act inside vLLM; MTI only where there is BRANCH."""
        return carries(recipe)

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """Yield the reply piece by piece, as it arrives.

        A server that cannot be reached, is busy or unfit hands on to the next, as long as nothing
        was yielded; see `Failover`. Choices that would be alike are asked for once. A choice at
        which nothing acceptable was left ends with ``content_filter``.

        Raises:
            GuardError: If no server was seen to do what must be done.
            CapabilityError: If a recipe cannot be carried, or MTI does not work there.
            RequestError: If a field would pass by what must act, or the server refuses.
            BusyError: If all servers are busy, or none answers (status 503).
            ElisionError: Else as `RemoteEngine.stream`.
        """
        self._watch.ensure()
        deadline = from_now(plan.request.timeout_s)
        need = Need.of(plan)
        self._check(plan, need)
        if (n := n_alike(plan.request)) > 1:
            plan = replace(plan, request=replace(plan.request, n=1))
        tries = Failover(self.name)
        asking = Asking(plan, need, deadline, tries)
        for replica in self._ranked(plan, need):
            begun = False
            try:
                async with aclosing(self._saying.said(replica, asking)) as deltas:
                    async for delta in deltas:
                        begun = True
                        for one in copied(delta, n):
                            yield one
                return
            except ElisionError as exc:
                if begun or not tries.moves_on(exc):
                    raise
        raise tries.reason()

    def relay(
        self,
        body: Mapping[str, Any],
        *,
        kind: Literal["chat", "text"],
        stream: bool,
        timeout_s: float | None,
        tenant: str | None = None,
    ) -> Relayed:
        """Return a server's answer to *body*, to be handed on as it comes; not asked for yet.

        Nothing acts on it, so it is for callers for whom nothing is registered.

        Args:
            body: As a caller sent it.
            kind: Of *body*.
            stream: Whether it wants a stream.
            timeout_s: Deadline for the whole answer in seconds.
            tenant: Whose; None shares no prefix with anybody, his own earlier requests included.

        Raises:
            RequestError: If *body* speaks to the plug-in itself.
        """
        self._watch.ensure()
        return self._relays.relay(
            body, kind=kind, stream=stream, timeout_s=timeout_s, tenant=tenant
        )

    async def health(self) -> tuple[ReplicaHealth, ...]:
        """Return how each server is; they are greeted first, for three seconds at most."""
        await asyncio.wait([one.greeting() for one in self.replicas], timeout=_GREETED_S)
        return tuple(one.health for one in self.replicas)

    def stats(self) -> Mapping[str, float]:
        """Return counts for gauges; nothing of what anybody said."""
        return {
            "replicas": len(self.replicas),
            "healthy": sum(one.is_healthy for one in self.replicas),
            "proved": sum(one.is_proved for one in self.replicas),
            "pushes": sum(one.pushing.n_pushes for one in self.replicas),
            "dead_ends": self._saying.n_dead_ends,
            "proofs_failed": sum(one.n_failed_proofs for one in self.replicas),
        }

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop what is kept of *tenant*, whatever *texts* say; return how many. See `Erasable`.

        Masks under the shared salt, and negative prompts as tokens. What servers keep of prompts
        is under the tenant's own salt there.
        """
        return self._saying.erase(tenant)

    async def aclose(self) -> None:
        """End all requests and close every connection. Idempotent."""
        await self._watch.aclose()
        await self._meeting.aclose()
        await self._saying.aclose()
        await asyncio.gather(*(one.aclose() for one in self.replicas))

    def _check(self, plan: Plan, need: Need) -> None:
        check_xargs(plan.request.extra)
        for recipe in plan.recipes:
            if not carries(recipe):
                raise CapabilityError(type(recipe).__name__, engine=self.name, missing="LOGITS")
        if need.carries:
            check_fields(plan.request)

    def _ranked(self, plan: Plan, need: Need) -> tuple[Replica, ...]:
        """Return who may be asked, in order; who must first be tried waits for whoever was."""
        conversation = conversation_of(plan.request, plan.tenant, self._key)
        is_tried = attrgetter("is_proved") if need.carries else attrgetter("known")
        return tried_first(ranked(self.replicas, conversation), is_tried)
