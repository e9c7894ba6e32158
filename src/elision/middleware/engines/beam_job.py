"""A request that is answered by beam search, on the engine's thread."""

from __future__ import annotations

import time
from concurrent.futures import wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from elision.contract import Delta
from elision.errors import BusyError, CapabilityError, RequestError
from elision.middleware.engines.beam import WIDTH, BeamSearch, root
from elision.middleware.engines.causal import PREFILL_CHUNK
from elision.middleware.engines.hypothesis import BeamScorer, Hypothesis
from elision.middleware.engines.job import PATIENCE_S, Job, context_for
from elision.middleware.engines.release import Release
from elision.middleware.speculation.compaction import can_compact

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

    from elision.contract import Plan
    from elision.middleware.engines.causal import CausalModel, Prompt
    from elision.middleware.engines.station import Station


@dataclass(slots=True)
class BeamJob(Job):
    """A request whose reply is searched, then handed over whole.

    One step is a chunk of the prompt or one position of all beams. Where no scorer concerns
    itself with the prompt it turns into a plain `Job` without them.
    """

    _search: BeamSearch | None = None
    _hidden: Tensor | None = None
    _is_plain: bool = False
    _is_searched: bool = False

    @property
    def n_choices(self) -> int:
        """How many sequences it decodes at a time: its beams."""
        return self.plan.request.n if self._is_plain else self._width

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        if self._is_plain:
            return super(BeamJob, self).over
        return self.cancelled or self._is_searched

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values it holds."""
        if self._search is None:
            return super(BeamJob, self).cached_tokens
        return int(self._search.cache.get_seq_length()) * max(1, len(self._search.beams))

    @property
    def _width(self) -> int:
        return max((scorer.width for scorer in self._scorers), default=WIDTH)

    @property
    def _scorers(self) -> tuple[BeamScorer, ...]:
        return tuple(r for r in self.plan.recipes if isinstance(r, BeamScorer))

    def step(self, station: Station) -> None:
        """Do one step: a chunk of the prompt, or one position of every beam.

        Raises:
            BusyError: If the deadline passed before the first token.
            RequestError: If the request wants what a search cannot give.
            CapabilityError: If a scorer needs hidden states and the model hands out none.
        """
        if self._is_plain:
            super(BeamJob, self).step(station)
            return
        model = station.model
        if self._search is not None:
            self._advance(model, self._search)
            return
        if time.monotonic() > self.deadline:
            raise BusyError("the deadline passed before the first token; try again later")
        if self._prompt is None:
            _check(self.plan)
            self._prompt, self._cache = model.render(self.plan.request), model.new_cache()
        assert self._cache is not None
        if self._row is None:
            self._read_chunk(model, self._prompt, self._cache)
        elif not wait(self.plan.pending, timeout=PATIENCE_S).not_done:
            self._open_search(model, self._prompt, self._cache, self._row)

    def _read_chunk(self, model: CausalModel, prompt: Prompt, cache: DynamicCache) -> None:
        chunk = prompt.ids[self._read : self._read + PREFILL_CHUNK]
        wanted = bool(self._scorers)
        out: Any = model.model(
            input_ids=torch.tensor([chunk], device=model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            output_hidden_states=wanted,
        )
        if wanted:
            if getattr(out, "hidden_states", None) is None:
                raise CapabilityError("beam scoring", engine=model.name, missing="HIDDEN")
            total = out.hidden_states[-2][0].float().sum(dim=0)
            self._hidden = total if self._hidden is None else self._hidden + total
        self._read += len(chunk)
        if self._read == len(prompt.ids):
            self._row = cast("Tensor", out.logits[:, -1])

    def _open_search(
        self, model: CausalModel, prompt: Prompt, cache: DynamicCache, row: Tensor
    ) -> None:
        scorers = self._scorers
        if self._hidden is not None:
            mean = self._hidden / len(prompt.ids)
            scorers = tuple(scorer.seeing(mean) for scorer in scorers)
        rest = tuple(r for r in self.plan.recipes if not isinstance(r, BeamScorer))
        if scorers and not any(scorer.acts() for scorer in scorers):
            self._turn_plain(rest)
            return
        scorers = tuple(scorer for scorer in scorers if scorer.acts())
        context = context_for(self.plan, prompt, model)
        start = root(context, rest, scorers).judged()
        room = model.n_context - len(prompt.ids)
        most = min(self.plan.request.max_tokens or room, room)
        self._search = BeamSearch(
            context=context,
            width=self._width,
            max_tokens=most,
            cache=cache,
            row=row,
            beams=[] if start is None else [start],
            scorers=scorers,
            recipes=rest,
            stop=self.plan.request.stop,
        )
        self._cache = self._row = None

    def _turn_plain(self, recipes: tuple[Any, ...]) -> None:
        """Become a job without scorers. The prompt is read already.

        It was read into a cache for a search: where windows slide that holds no tree, and nothing
        is drafted.
        """
        assert self._row is not None
        assert self._cache is not None
        drafts = self.plan.speculation if can_compact(self._cache) else "off"
        self.plan = replace(self.plan, recipes=recipes, decoder="sample", speculation=drafts)
        self._row, self._is_plain = self._row[0], True

    def _advance(self, model: CausalModel, search: BeamSearch) -> None:
        if time.monotonic() > self.deadline:
            search.cut()
        if not search.done:
            search.step(model)
        if search.done:
            self._hand_over(model, search)

    def _hand_over(self, model: CausalModel, search: BeamSearch) -> None:
        """Deliver the best reply, whole; or the refusal."""
        assert self._prompt is not None
        best, self._is_searched = search.best, True
        before = self._prompt.before if self.plan.request.echo else ""
        if before:
            self.deliver(Delta(text=before))
        if best is None:
            self.deliver(Delta(text=self.plan.refusal, finish="content_filter"))
        else:
            self.deliver(Delta(text=_released(best), finish=best.finish))
            self._completion_tokens = len(best.tokens)
        summary = self._summary(model, self._prompt)
        report = {**(summary.report or {}), "decoder": "beam", "beams": search.width}
        self.deliver(replace(summary, report=report))


def _released(best: Hypothesis) -> str:
    release = Release()
    release.write(best.text)
    for span in best.spans:
        release.redact(span)
    return release.take()[0]


def _check(plan: Plan) -> None:
    """Raise `RequestError` if a search cannot give what is asked."""
    if plan.request.n != 1:
        raise RequestError("beam search writes one choice; set n to 1", param="n")
    if plan.request.logprobs is not None:
        raise RequestError("beam search reports no log-probabilities", param="logprobs")
    if plan.trace:
        raise RequestError(
            "beam search tells no trace; leave it out, or choose another profile", param="elision"
        )
    if plan.speculation == "force":
        raise RequestError(
            "beam search drafts nothing; ask for speculation 'auto' or 'off', or choose another "
            "profile",
            param="elision",
        )
