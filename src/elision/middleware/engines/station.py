"""The engine thread's belongings: the model, and what earlier requests left for later ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch

from elision.contract import OtherModel, OtherPrompt, Suffix
from elision.errors import CapabilityError, ContextLengthError
from elision.middleware.engines.branches import Aside, Asides, Host
from elision.middleware.engines.cache import is_whole
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.forward_timer import ForwardTimer
from elision.middleware.engines.lanes import LEAST_TOKENS, Lanes, agrees, n_lanes, stretches
from elision.middleware.engines.prefixes import PrefixCache
from elision.middleware.engines.ragged import can_be_ragged
from elision.middleware.engines.round import Round
from elision.middleware.speculation.controller import Controller
from elision.middleware.speculation.cost import CostCurve, recall, remember
from elision.middleware.speculation.pools import Pools
from elision.middleware.speculation.selftest import is_tree_capable

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import DynamicCache

    from elision.contract import Plan
    from elision.middleware.engines.sequence import Sequence
    from elision.middleware.interventions.base import Chain


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
            _ = self.curve, self.takes_several, self.lanes

    # Properties of what is cached: pyright takes no cached_property for a protocol's property.
    @property
    def takes_trees(self) -> bool:
        """Whether the model scores a tree of tokens as it scores each of its paths."""
        return self._takes_trees

    @property
    def takes_several(self) -> bool:
        """Whether several sequences can share a forward and stay what they are alone."""
        return self._takes_several

    @cached_property
    def _takes_trees(self) -> bool:
        return is_tree_capable(self.model.model, new_cache=lambda: self.model.new_cache(full=True))

    @cached_property
    def _takes_several(self) -> bool:
        return self.takes_trees and can_be_ragged(self.model.model)

    @cached_property
    def lanes(self) -> Lanes:
        """What reads long prompts; one lane where several would not read as one does.

        Asked on the engine's thread: each computes with as many threads as that.
        """
        n_threads = torch.get_num_threads()
        on_cpu = self.model.device.type == "cpu"
        lanes = Lanes(n_lanes(n_threads) if on_cpu else 1, n_threads)
        if lanes.n > 1 and not (self.takes_several and agrees(self.model, lanes)):
            lanes.close()
            return Lanes(1, n_threads)
        return lanes

    def read(self, tokens: tuple[int, ...], cache: DynamicCache) -> tuple[int, Tensor]:
        """Append the first of *tokens* to *cache*: as many as one turn allows.

        Returns:
            How many, and the scores behind them, shape ``(vocab,)``.
        """
        is_short = len(tokens) < 2 * LEAST_TOKENS
        parts = stretches(tokens, 1 if is_short or not is_whole(cache) else self.lanes.n)
        if len(parts) == 1:
            return len(parts[0]), self.model.score(parts[0], cache)
        return sum(map(len, parts)), self.lanes.read(self.model, parts, cache)

    def close(self) -> None:
        """End what runs beside the engine's thread."""
        if "lanes" in self.__dict__:
            self.lanes.close()
        for assistant in self.assistants.values():
            assistant.close()

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
        sequence.contrasts = bool(sequence.reply.chain.branches)
        sequence.asides = self.asides(plan, sequence.reply.chain, sequence.prompt)
        for host, n in _contexts(self, sequence.reply.chain, sequence.prompt, sequence.asides):
            room = host.model.n_context - n
            sequence.reply.max_tokens = min(sequence.reply.max_tokens, room)
        if plan.speculation == "off" or not self.takes_trees:
            if plan.speculation == "force":
                raise CapabilityError("speculation", engine=self.model.name, missing="TREE")
            return
        drafter = self.pools.open(plan, sequence.prompt, sequence.reply.context.eos)
        sequence.drafter, sequence.ledger = drafter, drafter.pool.ledger
        sequence.mode = plan.speculation

    def asides(self, plan: Plan, chain: Chain, prompt: tuple[int, ...], n_reply: int = 1) -> Asides:
        """Return the other contexts that the sessions of *chain* may read; none has been read yet.

        Raises:
            ContextLengthError: If one of them, or a suffix, leaves no room for *n_reply* tokens.
        """
        found: Asides = {}
        for key, always in chain.branches.items():
            if isinstance(key, OtherPrompt):
                found[key] = Aside(self, key.ids, self.recall(plan, key.ids)[0], always)
            elif isinstance(key, OtherModel):
                host = self.assistants[key.name]
                found[key] = Aside(host, prompt, host.recall(plan, prompt)[0], always)
        for reader, n in _contexts(self, chain, prompt, found):
            if n + n_reply > reader.model.n_context:
                raise ContextLengthError(
                    f"What guides takes {n} tokens and {n_reply} more are to follow, but "
                    f"{reader.model.name!r} takes {reader.model.n_context} in all; shorten it.",
                    param="elision.guidance",
                )
        return found

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


def _contexts(
    home: Station, chain: Chain, prompt: tuple[int, ...], asides: Asides
) -> Iterator[tuple[Host, int]]:
    """Yield what reads beside a reply, and the tokens it reads besides the reply's."""
    for aside in asides.values():
        yield aside.host, len(aside.prompt)
    for key in chain.branches:
        if isinstance(key, Suffix):
            yield home, len(prompt) + len(key.ids)
