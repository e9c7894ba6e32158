"""A job on the engine's thread: one prompt, read once, then its choices, one step at a time."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from elision.contract import Capability, Context, Delta, Plan, Usage
from elision.errors import BusyError
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel, Prompt
from elision.middleware.engines.decoding import Reply
from elision.middleware.engines.draw import draw_for
from elision.middleware.speculation.base import Drafter

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

CAPABILITIES = Capability.LOGITS | Capability.TOP_LOGPROBS | Capability.LOGIT_BIAS
CAPABILITIES |= Capability.TOKEN_IDS | Capability.CONTINUE | Capability.REWIND
CAPABILITIES |= Capability.HIDDEN

PATIENCE_S: Final = 0.005
"""How long one request that waits for its gate may keep the others waiting, per turn."""

Item: TypeAlias = Delta | Exception | None
"""What a job delivers: pieces, at most one failure, and None when it is over."""


@dataclass(slots=True)
class Sequence:
    """One choice and its cache. Invariant: the cache holds prompt + reply but the last token.

    Attributes:
        reply: The choice.
        cache: Keys and values; longer than the invariant says only right after a rewind.
        prompt: The prompt's tokens.
        first: Scores behind the prompt, shape ``(vocab,)``.
    """

    reply: Reply
    cache: DynamicCache
    prompt: tuple[int, ...]
    first: Tensor

    def begin(self) -> None:
        """Choose the first token."""
        self.reply.visit(self.first)

    def step(self, model: CausalModel, drafter: Drafter) -> None:
        """Score what is certain and what is drafted, then walk as far as the draws follow it."""
        tokens = self.reply.tokens
        if not tokens:  # gone back to the beginning
            self.begin()
            return
        draft = drafter.propose(tokens, budget=self.reply.max_tokens - len(tokens))
        assert not draft.tokens, "this engine scores the root only"
        if int(self.cache.get_seq_length()) >= len(self.prompt) + len(tokens):
            self.cache = model.cut_cache(self.cache, (*self.prompt, *tokens[:-1]))
        self.reply.visit(model.score((tokens[-1],), self.cache))


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
    _row: Tensor | None = None
    _completion_tokens: int = 0
    _notes: Counter[str] = field(default_factory=Counter)
    _rewinds: Counter[str] = field(default_factory=Counter)

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
        if self._row is not None and self._cache is not None:
            self._wait(model, self._prompt, self._cache, self._row)
        elif self._cache is not None:
            self._prefill(model, self._prompt, self._cache)
        else:
            self._decode(model, drafter)
        if self.over and not self.cancelled:
            self.deliver(self._summary(model, self._prompt))

    def _prefill(self, model: CausalModel, prompt: Prompt, cache: DynamicCache) -> None:
        chunk = prompt.ids[self._read : self._read + PREFILL_CHUNK]
        row = model.score(chunk, cache)
        self._read += len(chunk)
        if self._read == len(prompt.ids):
            self._row = row
            self._wait(model, prompt, cache, row)

    def _wait(self, model: CausalModel, prompt: Prompt, cache: DynamicCache, row: Tensor) -> None:
        """Open the choices once nothing is pending; until then let the others have their turn."""
        _, late = wait(self.plan.pending, timeout=PATIENCE_S)
        if not late:
            self._begin(model, prompt, cache, row)
        elif time.monotonic() > self.deadline:
            raise BusyError("the deadline passed before the first token; try again later")

    def _begin(self, model: CausalModel, prompt: Prompt, cache: DynamicCache, row: Tensor) -> None:
        seed = self.plan.request.sampling.seed
        seed = secrets.randbits(63) if seed is None else seed
        begun = []
        for choice in range(self.n_choices):
            last = choice == self.n_choices - 1
            reply = self._open(model, prompt, choice, seed)
            own = cache if last else model.copy_cache(cache)
            begun.append(Sequence(reply, own, prompt.ids, row))
            if reply.finish is None:
                begun[-1].begin()
        self.live = [sequence for sequence in begun if self._goes_on(sequence)]
        self._cache = self._row = None

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
        past = sequence.reply.past
        self._rewinds.update(n_rewinds=past.n_rewinds, rewound_tokens=past.n_tokens)
        return False

    def _summary(self, model: CausalModel, prompt: Prompt) -> Delta:
        usage = Usage(prompt_tokens=len(prompt.ids), completion_tokens=self._completion_tokens)
        dtype = str(model.model.dtype).removeprefix("torch.")
        report: dict[str, Any] = {"engine": model.name, "dtype": dtype, "notes": dict(self._notes)}
        if self._rewinds["n_rewinds"]:
            report["usage"] = dict(self._rewinds)
        return Delta(usage=usage, report=report)
