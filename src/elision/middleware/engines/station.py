"""The engine thread's belongings: the model, and what earlier requests left for later ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from elision.contract import OtherModel, OtherPrompt
from elision.errors import CapabilityError, ContextLengthError
from elision.middleware.engines.branches import Aside
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.forward_timer import ForwardTimer
from elision.middleware.engines.prefixes import PrefixCache
from elision.middleware.engines.ragged import can_be_ragged
from elision.middleware.engines.round import Round
from elision.middleware.speculation.controller import Controller
from elision.middleware.speculation.cost import CostCurve, recall, remember
from elision.middleware.speculation.pools import Pools
from elision.middleware.speculation.selftest import is_tree_capable

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import DynamicCache

    from elision.contract import Plan
    from elision.middleware.engines.sequence import Sequence


HASTE_S: Final = 0.1
"""Time for measuring a model that somebody waits for; the rest is learned on the way."""
LOSS: Final = 0.01
"""Share of the time that drafts may cost at worst, beside two steps; the spec has .03, all of which
is lost on text that cannot be foreseen."""


@dataclass(frozen=True, slots=True)
class CurveMemo:
    """Where a cost curve is remembered.

    Attributes:
        file: A file of the cache.
        key: Names processor, model, number format and threads.
    """

    file: Path
    key: str


@dataclass
class Station:
    """What a job may use. The engine's thread alone touches it, but for `erase`.

    Attributes:
        model: The model.
        prefixes: Keys and values of earlier prompts, by tenant and profile.
        memo: Where what forwards cost is remembered from one start to the next; None: nowhere.
        cross_request: See `Pools`.
        assistants: Other models that recipes may read, by name.
        pools: What was recycled, by tenant and profile.
    """

    model: CausalModel
    prefixes: PrefixCache = field(default_factory=PrefixCache)
    memo: CurveMemo | None = None
    cross_request: bool = True
    assistants: Mapping[str, Station] = field(default_factory=dict)
    pools: Pools = field(init=False)

    def __post_init__(self) -> None:
        self.pools = Pools(self.model.vocab_size, cross_request=self.cross_request)

    @cached_property
    def curve(self) -> CostCurve:
        """What a forward costs by its rows; measured now if that is not remembered."""
        timer = ForwardTimer(self.model.model)
        if self.memo is None:
            return CostCurve.measure(timer, budget_s=HASTE_S)
        known = recall(self.memo.file, self.memo.key)
        if known is None:
            known = CostCurve.measure(timer)
            remember(self.memo.file, self.memo.key, known)
        return known

    def warm(self) -> None:
        """Find out now what would otherwise be found out while the first request waits."""
        if self.takes_trees:
            _ = self.curve, self.takes_several

    @cached_property
    def takes_trees(self) -> bool:
        """Whether the model scores a tree of tokens as it scores each of its paths."""
        return is_tree_capable(self.model.model, new_cache=lambda: self.model.new_cache(full=True))

    @cached_property
    def takes_several(self) -> bool:
        """Whether several sequences can share a forward and stay what they are alone."""
        return self.takes_trees and can_be_ragged(self.model.model)

    def round(self) -> Round:
        """Return what decodes choices with this model."""
        return Round(
            self.model.model,
            controller=lambda: Controller(self.curve, eps=LOSS),
            takes_several=lambda: self.takes_several,
            home=self,
        )

    def recall(self, plan: Plan, ids: tuple[int, ...]) -> tuple[DynamicCache, int]:
        """Return a cache that *plan*'s request may write to, and how many of *ids* it holds."""
        if plan.reuse:
            found = self.prefixes.take(plan.tenant, plan.profile, plan.epoch, ids)
            if found is not None:
                return found
        wants_trees = plan.reuse or plan.speculation != "off"
        return self.model.new_cache(full=wants_trees and self.takes_trees), 0

    def equip(self, sequence: Sequence) -> None:
        """Give *sequence* a drafter, if its plan drafts and the model can score drafts."""
        plan = sequence.reply.plan
        sequence.is_apart = not plan.reuse
        self._open_asides(sequence)
        if plan.speculation == "off" or not self.takes_trees:
            if plan.speculation == "force":
                raise CapabilityError("speculation", engine=self.model.name, missing="TREE")
            return
        drafter = self.pools.open(plan, sequence.prompt, sequence.reply.context.eos)
        sequence.drafter, sequence.ledger = drafter, drafter.pool.ledger
        sequence.mode = plan.speculation

    def _open_asides(self, sequence: Sequence) -> None:
        """Give *sequence* the other contexts that its sessions may read."""
        plan, branches = sequence.reply.plan, sequence.reply.chain.branches
        sequence.contrasts = bool(branches)
        for key, always in branches.items():
            if isinstance(key, OtherPrompt):
                cache, _ = self.recall(plan, key.ids)
                sequence.asides[key] = Aside(self, key.ids, cache, always)
            elif isinstance(key, OtherModel):
                host = self.assistants[key.name]
                cache, _ = host.recall(plan, sequence.prompt)
                sequence.asides[key] = Aside(host, sequence.prompt, cache, always)
        for aside in sequence.asides.values():
            self._limit(sequence, aside)

    def _limit(self, sequence: Sequence, aside: Aside) -> None:
        """End *sequence* no later than *aside* can follow it."""
        room = aside.host.model.n_context - len(aside.prompt)
        if room < 1:
            raise ContextLengthError(
                f"The other prompt has {len(aside.prompt)} tokens, but "
                f"{aside.host.model.name!r} takes {aside.host.model.n_context} in all; shorten it.",
                param="elision.guidance",
            )
        sequence.reply.max_tokens = min(sequence.reply.max_tokens, room)

    def keep(self, sequence: Sequence, generation: int) -> None:
        """Keep the keys and values of a choice that has ended, for requests that begin alike.

        Not those of a choice that the guard ended: what was held back is not worth keeping.

        Args:
            sequence: The choice.
            generation: What `PrefixCache.generation` said when its request began.
        """
        plan, reply = sequence.reply.plan, sequence.reply
        if not plan.reuse or reply.finish == "content_filter":
            return
        n_held = int(sequence.cache.get_seq_length())
        # Not the last token: chosen behind a rewind, it may stand where the cache has another.
        ids = (*sequence.prompt, *reply.tokens[:-1])[:n_held]
        self.prefixes.put(
            plan.tenant, plan.profile, plan.epoch, ids, sequence.cache, generation=generation
        )

    def erase(self, tenant: str) -> int:
        """Drop what is kept for *tenant*; return how many things. Any thread may call."""
        return self.pools.erase(tenant) + self.prefixes.erase(tenant)

    def stats(self) -> Mapping[str, float]:
        """Return gauges for metrics."""
        return {**self.pools.stats(), **self.prefixes.stats()}
