"""A job on the engine's thread: one prompt, read once, then its choices.

A job reads its own prompt. Its choices are decoded by the worker's `Round`, together with those of
other jobs.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from elision.contract import Capability, Context, Delta, Plan, Usage
from elision.errors import BusyError
from elision.middleware.engines.branches import read_on
from elision.middleware.engines.causal import CausalModel, Prompt
from elision.middleware.engines.decoding import Reply
from elision.middleware.engines.draw import draw_for
from elision.middleware.engines.request_reader import RequestReader
from elision.middleware.engines.sequence import Sequence
from elision.middleware.engines.station import Station
from elision.middleware.interventions import mti

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

    from elision.contract import BranchKey

CAPABILITIES = Capability.LOGITS | Capability.TOP_LOGPROBS | Capability.LOGIT_BIAS
CAPABILITIES |= Capability.TOKEN_IDS | Capability.CONTINUE | Capability.REWIND
CAPABILITIES |= Capability.HIDDEN | Capability.BRANCH

MINIMAL: Final = 0.5
"""Usage above which MTI is no minimal intervention any more."""

PATIENCE_S: Final = 0.005
"""How long one request that waits for its gate may keep the others waiting, per turn."""

Item: TypeAlias = Delta | Exception | None
"""What a job delivers: pieces, at most one failure, and None when it is over."""


_log = logging.getLogger(__name__)


def context_for(
    plan: Plan,
    prompt: Prompt,
    model: CausalModel,
    *,
    choice: int = 0,
    assistants: Iterable[str] | None = None,
) -> Context:
    """Return what the sessions of *plan* are opened with.

    Args:
        plan: What to write.
        prompt: What they are told the prompt was.
        model: What writes it.
        choice: Index of the choice.
        assistants: Other models there are; None where no branch can be run at all.
    """
    return Context(
        lexicon=model.lexicon,
        vocab_size=model.vocab_size,
        prompt_ids=prompt.ids,
        before=prompt.before,
        user_text=plan.request.user_text,
        eos=model.eos,
        tenant=plan.tenant,
        epoch=plan.epoch,
        choice=choice,
        seed=plan.request.sampling.seed,
        capabilities=CAPABILITIES & ~Capability.BRANCH if assistants is None else CAPABILITIES,
        assistants=frozenset(assistants or ()),
        reader=RequestReader(model, plan.request),
    )


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
    _n_cached: int = 0
    _opened: list[Sequence] = field(default_factory=list)
    _generation: int = 0
    _row: Tensor | None = None
    _completion_tokens: int = 0
    _notes: Counter[str] = field(default_factory=Counter)
    _rewinds: Counter[str] = field(default_factory=Counter)
    _drafts: Counter[str] = field(default_factory=Counter)
    _beside: dict[BranchKey, int] = field(default_factory=dict)

    @property
    def n_choices(self) -> int:
        """How many choices it decodes at a time."""
        return self.plan.request.n

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.cancelled or (
            self._cache is None and self._prompt is not None and not (self.live or self._opened)
        )

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values it holds."""
        sequences = *self.live, *self._opened
        caches = [s.cache for s in sequences]
        caches += [aside.cache for s in sequences for aside in s.asides.values()]
        caches += [self._cache] if self._cache else []
        return sum(int(cache.get_seq_length()) for cache in caches)

    def step(self, station: Station) -> None:
        """Do what is its own: a chunk of a prompt, the wait for the gate, or the deadline.

        Raises:
            BusyError: If the deadline passed before the first token.
        """
        late = time.monotonic() > self.deadline
        if not self.live and late:
            raise BusyError("the deadline passed before the first token; try again later")
        if self._prompt is None:
            self._prompt = station.model.render(self.plan.request)
            self._generation = station.prefixes.generation(self.plan.tenant)
            self._cache, self._read = station.recall(self.plan, self._prompt.ids)
            self._n_cached = self._read
        if self._row is not None and self._cache is not None:
            self._wait(station, self._prompt, self._cache, self._row)
        elif self._cache is not None:
            self._prefill(station, self._prompt, self._cache)
        elif self._opened:
            self._read_contexts(station)
        elif late:
            for sequence in self.live:
                sequence.cut()
            self.settle(station)

    def settle(self, station: Station) -> None:
        """Let go of the choices that have ended; tell the sums once all have."""
        for sequence in self.live:
            if sequence.is_over:
                self._count(sequence, station)
        self.live = [sequence for sequence in self.live if not sequence.is_over]
        if self.over and not self.cancelled and self._prompt is not None:
            self.deliver(self._summary(station.model, self._prompt))

    def _prefill(self, station: Station, prompt: Prompt, cache: DynamicCache) -> None:
        n_read, row = station.read(prompt.ids[self._read :], cache)
        self._read += n_read
        if self._read == len(prompt.ids):
            self._row = row
            self._wait(station, prompt, cache, row)

    def _wait(self, station: Station, prompt: Prompt, cache: DynamicCache, row: Tensor) -> None:
        """Open the choices once nothing is pending; until then let the others have their turn."""
        _, late = wait(self.plan.pending, timeout=PATIENCE_S)
        if not late:
            self._open_all(station, prompt, cache, row)

    def _open_all(self, station: Station, prompt: Prompt, cache: DynamicCache, row: Tensor) -> None:
        seed = self.plan.request.sampling.seed
        seed = secrets.randbits(63) if seed is None else seed
        for choice in range(self.n_choices):
            last = choice == self.n_choices - 1
            own = cache if last else station.model.copy_cache(cache)
            reply = self._open(station, prompt, choice, seed)
            sequence = Sequence(reply, own, prompt.ids, row, self.deliver, station.model.cut_cache)
            self._opened.append(sequence)
            if not sequence.is_over:
                station.equip(sequence)
            # Not before: what stands against the request comes before anything of the reply.
            if self.plan.request.echo:
                self.deliver(Delta(choice=choice, text=prompt.before))
            if sequence.is_over:
                sequence.hand_over()
        self._cache = self._row = None
        self._read_contexts(station)

    def _read_contexts(self, station: Station) -> None:
        """Read a chunk of what else the choices follow; once all is read they are live."""
        if read_on(sequence.asides for sequence in self._opened):
            self.live, self._opened = self._opened, []
            self.settle(station)

    def _open(self, station: Station, prompt: Prompt, choice: int, seed: int) -> Reply:
        plan, request, model = self.plan, self.plan.request, station.model
        context = context_for(plan, prompt, model, choice=choice, assistants=station.assistants)
        draw = draw_for(request.sampling, choice=choice, seed=seed, device=model.device)
        room = model.n_context - len(prompt.ids)
        most = min(request.max_tokens or room, room)
        return Reply.begin(plan, context, draw, max_tokens=most)

    def _count(self, sequence: Sequence, station: Station) -> None:
        """Of a choice that has ended, keep the counts alone, and what later ones may use."""
        reply = sequence.reply
        self._completion_tokens += len(reply.tokens)
        self._notes.update(reply.notes)
        self._rewinds.update(n_rewinds=reply.past.n_rewinds, rewound_tokens=reply.past.n_tokens)
        for key, aside in sequence.asides.items():
            self._beside[key] = self._beside.get(key, len(aside.prompt)) + len(aside.read)
        if sequence.mode != "off":
            self._drafts.update(sequence.counts)
        station.keep(sequence, self._generation)

    def _summary(self, model: CausalModel, prompt: Prompt) -> Delta:
        usage = Usage(
            prompt_tokens=len(prompt.ids),
            completion_tokens=self._completion_tokens,
            cached_tokens=self._n_cached,
        )
        dtype = str(model.model.dtype).removeprefix("torch.")
        report: dict[str, Any] = {"engine": model.name, "dtype": dtype, "notes": dict(self._notes)}
        if more := self._more_usage():
            report["usage"] = more
        if self._drafts["steps"]:
            report["speculation"] = dict(self._drafts)
        if more.get("mti_usage", 0) > MINIMAL:
            report["warnings"] = [_not_minimal(model, more["mti_usage"])]
        return Delta(usage=usage, report=report)

    def _more_usage(self) -> dict[str, float]:
        """Return what OpenAI's usage has no word for: rewinds, other prompts and models, MTI."""
        more: dict[str, float] = {}
        if self._rewinds["n_rewinds"]:
            more |= self._rewinds
        if self._beside:
            more["branch_tokens"] = sum(self._beside.values())
        if (share := mti.usage(self._notes)) is not None:
            more["mti_usage"] = round(share, 4)
        return more


def _not_minimal(model: CausalModel, usage: float) -> dict[str, str]:
    message = f"MTI guided {usage:.0%} of the positions; raise tau, or choose it by share"
    _log.warning("%s: %s", model.name, message)
    return {"code": "mti_usage", "message": message}
