"""Scoring: how likely a given text is, under the model alone and under the guard.

The text is read in one forward per chunk. Then the chain walks over the rows as it does when it
writes, but for one thing: whatever the sessions say, the next token is the given one.
"""

from __future__ import annotations

import time
from concurrent.futures import wait
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import TYPE_CHECKING

from torch import Tensor

from elision.contract import (
    Context,
    Delta,
    Finish,
    Plan,
    Refuse,
    Rewind,
    TokenLogprob,
    Usage,
    Verdict,
)
from elision.errors import BusyError
from elision.middleware.engines.branches import read_on
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel, Prompt
from elision.middleware.engines.given import Along, Given
from elision.middleware.engines.job import PATIENCE_S, Job, context_for
from elision.middleware.engines.logprobs import report
from elision.middleware.engines.station import Station
from elision.middleware.interventions.base import Chain

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(slots=True)
class Walk:
    """The chain on its way along a given text.

    Attributes:
        plan: Whose recipes act.
        context: What the sessions were opened with.
        chain: The open sessions.
        beside: What else they may read.
        applicable: Whether the reply would have been a choice of tokens at all; not where a gate
            refuses before the first.
        entries: One per token read.
    """

    plan: Plan
    context: Context
    chain: Chain
    beside: Along
    applicable: bool = True
    entries: list[TokenLogprob] = field(default_factory=list)

    @classmethod
    def begin(cls, plan: Plan, context: Context, station: Station, n: int) -> Walk:
        """Open the sessions of a text of *n* tokens."""
        chain = Chain.begin(plan.recipes, context)
        refused = any(isinstance(verdict, Refuse) for verdict in chain.verdicts)
        beside = Along.of(plan, chain, context.prompt_ids, station, n)
        return cls(plan, context, chain, beside, applicable=not refused)

    def read(self, token: int, row: Tensor | None, *, ends: bool = False) -> None:
        """Take in a token of the text.

        Args:
            token: Which.
            row: The model's scores for its place, shape ``(vocab,)``; None for a text's first.
            ends: Whether it is the end token of an answer, which writes nothing.
        """
        self.entries.append(self._entry(token, row))
        self.chain = self.chain.finish() if ends else self.chain.advance(token)
        # Behind a blocked token the sessions speak of a text that could not have been written.
        if self.entries[-1].logprob != -inf:
            self._strike(self.chain.verdicts)

    def _strike(self, verdicts: tuple[Verdict, ...]) -> None:
        """Give no probability to the token that *verdicts* would have taken back or covered."""
        last = len(self.entries) - 1
        places = [verdict.to if isinstance(verdict, Rewind) else last for verdict in verdicts]
        at = min(places, default=last)
        if places and self.entries[at].plain is not None:
            self.entries[at] = replace(self.entries[at], logprob=-inf)

    def _entry(self, token: int, row: Tensor | None) -> TokenLogprob:
        lexicon = self.context.lexicon
        data = lexicon.bytes_of(token)
        bare = TokenLogprob(data.decode("utf-8", "replace"), nan, data)
        if row is None:
            return bare
        here = self.beside.here(row, self.chain, len(self.entries))
        plain = float(here.raw[token]) - here.logsumexp
        scores = self.chain.score(here.raw, here)
        if not self.applicable or scores.max() == -inf:
            return replace(bare, logprob=-inf, plain=plain)
        nameable, n_top = self.chain.conceal(scores), self.plan.request.logprobs or 0
        entry = report(scores, nameable, token, n_top=n_top, lexicon=lexicon)
        return replace(entry, plain=plain)


@dataclass(slots=True)
class ScoringJob(Job):
    """A request whose text is given, on the engine's thread; an echoed prompt may be continued.

    The chain acts up to entropy shaping, as in every log-probability that is reported: at
    temperature 1 and without truncation. A token that the served system would not have let out has
    ``-inf``: one that is masked, one that completes what is redacted or refused, and one that a
    rewind would have taken back.

    Source:
        Our own (guard.md 3.2); the sessions advance with the given token even where it is blocked.
    """

    _given: Given | None = None
    _walk: Walk | None = None
    _held: DynamicCache | None = None
    _n_fed: int = 0
    _is_scored: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        if self.cancelled:
            return True
        if not self._is_scored:
            return False
        return self._writes_nothing or super(ScoringJob, self).over

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values it holds."""
        held = 0 if self._held is None else int(self._held.get_seq_length())
        return held + super(ScoringJob, self).cached_tokens

    @property
    def _writes_nothing(self) -> bool:
        return self.plan.request.answer is not None or self.plan.request.max_tokens == 0

    @property
    def _finish(self) -> Finish | None:
        if not self._writes_nothing:
            return None
        return "length" if self.plan.request.answer is None else "stop"

    def step(self, station: Station) -> None:
        """Do one step: a chunk of the given text, or what `Job.step` does.

        Raises:
            BusyError: If the deadline passed before the text was scored.
        """
        if self._is_scored:
            super(ScoringJob, self).step(station)
            return
        if time.monotonic() > self.deadline:
            raise BusyError("the deadline passed before the text was scored; try again later")
        if self._walk is None:
            self._begin_walk(station)
        elif read_on([self._walk.beside.asides]):
            self._score(station.model, self._walk)

    def _begin_walk(self, station: Station) -> None:
        """Open the sessions once nothing is pending: a gate must have spoken before."""
        if wait(self.plan.pending, timeout=PATIENCE_S).not_done:
            return
        model = station.model
        given = self._given = Given.of(self.plan.request, model)
        told = Prompt(given.prompt_ids, given.before)
        context = context_for(self.plan, told, model, assistants=station.assistants)
        n = len(given.ids) - given.start
        self._walk = Walk.begin(self.plan, context, station, n)
        self._held = self._walk.beside.cache
        if given.start == 0:
            self._walk.read(given.ids[0], None)

    def _score(self, model: CausalModel, walk: Walk) -> None:
        given, held = self._given, self._held
        assert given is not None
        assert held is not None
        fed = given.ids[:-1]
        chunk = fed[self._n_fed : self._n_fed + walk.beside.stride(PREFILL_CHUNK)]
        end = self._n_fed + len(chunk)
        first = max(self._n_fed, given.start - 1)
        if chunk:
            rows = model.rows(chunk, held, max(1, end - first))
            for at in range(first, end):
                walk.beside.stand(at - self._n_fed, len(chunk), given.ids[given.start : at + 1])
                ends = at + 2 == len(given.ids) and given.ends
                walk.read(given.ids[at + 1], rows[at - end], ends=ends)
        self._n_fed = end
        if end == len(fed):
            self._conclude(model, given, walk)

    def _conclude(self, model: CausalModel, given: Given, walk: Walk) -> None:
        """Hand over what was scored; where a reply is to follow, turn into the job that writes."""
        self._held, self._walk, self._is_scored = None, None, True
        request = self.plan.request
        finish = self._finish
        entries = () if request.logprobs is None and request.answer is None else (*walk.entries,)
        for choice in range(self.n_choices):
            self.deliver(Delta(choice=choice, text=given.text, logprobs=entries, finish=finish))
        if self._writes_nothing:
            self.deliver(_summary(model, given, walk))
        else:
            self.plan = replace(self.plan, request=replace(request, echo=False))


def _summary(model: CausalModel, given: Given, walk: Walk) -> Delta:
    scored = [entry for entry in walk.entries if entry.plain is not None]
    return Delta(
        usage=Usage(prompt_tokens=len(given.ids)),
        report={
            "engine": model.name,
            "dtype": str(model.model.dtype).removeprefix("torch."),
            "n_scored": len(scored),
            "n_floored": sum(entry.logprob == -inf for entry in scored),
            "applicable": walk.applicable,
        },
    )
