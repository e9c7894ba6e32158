"""Recipes made ready for a server: what they leave to the model's own figures is filled in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from secrets import token_bytes
from typing import Final

from elision.contract import Recipe
from elision.errors import RequestError, UpstreamError
from elision.middleware.engines.fleet.entropies import Entropies, entropies_of, unknown
from elision.middleware.engines.fleet.known import Proof
from elision.middleware.engines.fleet.ordering import reads_branch, wire
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.fleet.sharing import Shared
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.interventions.mti import MinimalIntervention

_KEPT: Final = 64


class Resolving:
    """Fills in thresholds and tokens of one model's recipes. Lives as long as its engine.

    Args:
        engine: Whose, for errors.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._entropies: Entropies | None = None
        self._tokens: OrderedDict[tuple[str, bytes], tuple[int, ...]] = OrderedDict()
        self._key = token_bytes(32)
        self._shared = Shared()

    async def resolved(
        self, recipes: Sequence[Recipe], replica: Replica, proof: Proof, *, tenant: str
    ) -> tuple[Recipe, ...]:
        """Return *recipes* as *replica* takes them; what *tenant* wrote in them is kept as his.

        Raises:
            CapabilityError: If a share of positions is given, and the model's entropies are not
                known well enough.
            RequestError: If a negative prompt is longer than what the server drafts at a time.
            ElisionError: If it cannot be asked.
        """
        found = [
            await self._mti(one, replica, proof, tenant)
            if isinstance(one, MinimalIntervention)
            else one
            for one in recipes
        ]
        return tuple(found)

    def erase(self, tenant: str) -> int:
        """Drop the tokens of what *tenant* wrote; return of how many texts."""
        mine = [place for place in self._tokens if place[0] == tenant]
        for place in mine:
            del self._tokens[place]
        return len(mine)

    async def aclose(self) -> None:
        """Call off what is being asked."""
        await self._shared.aclose()

    async def _mti(
        self, recipe: MinimalIntervention, replica: Replica, proof: Proof, tenant: str
    ) -> MinimalIntervention:
        if not reads_branch(recipe):
            return recipe
        negative = recipe.negative
        if isinstance(negative, str):
            negative = await self._tokens_of(negative, replica, tenant)
        if len(negative) > proof.n_drafts:
            raise RequestError(
                f"the negative prompt has {len(negative)} tokens, more than the "
                f"{proof.n_drafts} that the vLLM server of {self._engine!r} drafts at a time; "
                "take a shorter one, or raise its num_speculative_tokens"
            )
        if recipe.tau is not None or recipe.gate != "entropy":
            return replace(recipe, negative=negative)
        tau = (await self._measured(replica)).exceeded(recipe.share)
        if tau is None:
            raise unknown(self._engine)
        return MinimalIntervention(
            scale=recipe.scale, tau=tau, negative=negative, branch=recipe.branch
        )

    async def _measured(self, replica: Replica) -> Entropies:
        if self._entropies is None:
            xargs = wire(Order(), replica.secret)
            measure = self._shared.do("entropies", lambda: entropies_of(replica, xargs))
            self._entropies = await measure
        return self._entropies

    async def _tokens_of(self, text: str, replica: Replica, tenant: str) -> tuple[int, ...]:
        data = text.encode("utf-8", "surrogatepass")
        place = (tenant, blake2b(data, key=self._key, digest_size=16).digest())
        if place not in self._tokens:
            body = {"model": replica.model, "prompt": text, "add_special_tokens": False}
            told = await replica.ask("POST", "/tokenize", body)
            ids = told.get("tokens") if isinstance(told, dict) else None
            if not isinstance(ids, list) or not all(type(one) is int for one in ids):
                raise UpstreamError("a vLLM server does not tell how it splits text")
            self._tokens[place] = tuple(ids)
            while len(self._tokens) > _KEPT:
                self._tokens.popitem(last=False)
            return tuple(ids)
        self._tokens.move_to_end(place)
        return self._tokens[place]
