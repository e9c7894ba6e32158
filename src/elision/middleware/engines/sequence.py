"""A job on the engine's thread: one prompt, read once, then its choices, one step at a time."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from elision.contract import Capability, Context, Delta, Plan, Usage
from elision.errors import BusyError
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel, Prompt
from elision.middleware.engines.decoding import Reply
from elision.middleware.engines.draw import draw_for
from elision.middleware.speculation.base import Drafter

if TYPE_CHECKING:
    from transformers import DynamicCache

CAPABILITIES = Capability.LOGITS | Capability.TOP_LOGPROBS | Capability.LOGIT_BIAS
CAPABILITIES |= Capability.TOKEN_IDS | Capability.CONTINUE

Item: TypeAlias = Delta | Exception | None
"""What a job delivers: pieces, at most one failure, and None when it is over."""


@dataclass(slots=True)
class Sequence:
    """One choice and its cache. Invariant: the cache holds prompt + reply but the last token."""

    reply: Reply
    cache: DynamicCache
    next: int | None

    def step(self, model: CausalModel, drafter: Drafter) -> None:
        """Score what is certain and what is drafted, then walk as far as the draws follow it."""
        assert self.next is not None
        budget = self.reply.max_tokens - len(self.reply.tokens)
        draft = drafter.propose(self.reply.tokens, budget=budget)
        assert not draft.tokens, "this engine scores the root only"
        self.next = self.reply.visit(model.score((self.next,), self.cache))


@dataclass(slots=True)
class Job:
    """A request on the engine's thread.

    Attributes:
        plan: What to write.
        deliver: Hands an item to whoever waits; called from the engine's thread.
        deadline: On the monotonic clock, in seconds.
        cancelled: Set by any thread; the job is dropped before its next step.
        live: The choices still being written.
    """

    plan: Plan
    deliver: Callable[[Item], None]
    deadline: float
    cancelled: bool = False
    live: list[Sequence] = field(default_factory=list)
    _prompt: Prompt | None = None
    _cache: DynamicCache | None = None
    _read: int = 0
    _completion_tokens: int = 0
    _notes: Counter[str] = field(default_factory=Counter)

    @property
    def n_choices(self) -> int:
        """How many choices it decodes at a time."""
        return self.plan.request.n

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.cancelled or (
            self._cache is None and self._prompt is not None and not self.live
        )

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values it holds."""
        caches = [s.cache for s in self.live] + ([self._cache] if self._cache else [])
        return sum(int(cache.get_seq_length()) for cache in caches)

    def step(self, model: CausalModel, drafter: Drafter) -> None:
        """Do one step: a chunk of the prompt, or one position of every live choice.

        Raises:
            BusyError: If the deadline passed before the first token.
        """
        if not self.live and time.monotonic() > self.deadline:
            raise BusyError("the deadline passed before the first token; try again later")
        if self._prompt is None:
            self._prompt, self._cache = model.render(self.plan.request), model.new_cache()
        if self._cache is not None:
            self._prefill(model, self._prompt, self._cache)
        else:
            self._decode(model, drafter)
        if self.over and not self.cancelled:
            self.deliver(self._summary(model, self._prompt))

    def _prefill(self, model: CausalModel, prompt: Prompt, cache: DynamicCache) -> None:
        chunk = prompt.ids[self._read : self._read + PREFILL_CHUNK]
        row = model.score(chunk, cache)
        self._read += len(chunk)
        if self._read < len(prompt.ids):
            return
        seed = self.plan.request.sampling.seed
        seed = secrets.randbits(63) if seed is None else seed
        begun = []
        for choice in range(self.n_choices):
            last = choice == self.n_choices - 1
            reply = self._open(model, prompt, choice, seed)
            own = cache if last else model.copy_cache(cache)
            begun.append(Sequence(reply, own, reply.visit(row)))
        self.live = [sequence for sequence in begun if self._goes_on(sequence)]
        self._cache = None

    def _open(self, model: CausalModel, prompt: Prompt, choice: int, seed: int) -> Reply:
        plan, request = self.plan, self.plan.request
        context = Context(
            lexicon=model.lexicon,
            vocab_size=model.vocab_size,
            prompt_ids=prompt.ids,
            before=prompt.before,
            user_text=request.user_text,
            eos=model.eos,
            tenant=plan.tenant,
            epoch=plan.epoch,
            choice=choice,
            capabilities=CAPABILITIES,
        )
        if request.echo:
            self.deliver(Delta(choice=choice, text=prompt.before))
        draw = draw_for(request.sampling, choice=choice, seed=seed, device=model.device)
        room = model.n_context - len(prompt.ids)
        return Reply.begin(plan, context, draw, max_tokens=min(request.max_tokens or room, room))

    def _decode(self, model: CausalModel, drafter: Drafter) -> None:
        late = time.monotonic() > self.deadline
        kept = []
        for sequence in self.live:
            if late:
                sequence.reply.cut()
            else:
                sequence.step(model, drafter)
            if self._goes_on(sequence):
                kept.append(sequence)
        self.live = kept

    def _goes_on(self, sequence: Sequence) -> bool:
        """Hand over what may leave; of a choice that has ended, keep the counts alone."""
        if delta := sequence.reply.take():
            self.deliver(delta)
        if sequence.reply.finish is None:
            return True
        self._completion_tokens += len(sequence.reply.tokens)
        self._notes.update(sequence.reply.notes)
        return False

    def _summary(self, model: CausalModel, prompt: Prompt) -> Delta:
        usage = Usage(prompt_tokens=len(prompt.ids), completion_tokens=self._completion_tokens)
        dtype = str(model.model.dtype).removeprefix("torch.")
        report = {"engine": model.name, "dtype": dtype, "notes": dict(self._notes)}
        return Delta(usage=usage, report=report)
