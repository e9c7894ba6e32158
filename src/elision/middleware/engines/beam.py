"""Beam search: several replies side by side, of which the best one leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from elision.contract import Context, Finish, Here, Recipe
from elision.errors import ConfigError
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel
from elision.middleware.engines.hypothesis import BeamScorer, Hypothesis
from elision.middleware.interventions.base import Chain

if TYPE_CHECKING:
    from transformers import DynamicCache

WIDTH = 7
"""Beams kept unless a scorer says otherwise (guard.md 1.2)."""


class _Candidate(NamedTuple):
    score: float
    parent: int
    token: int


@dataclass(slots=True)
class BeamSearch:
    """One search, a position per step. Owned by the engine's thread.

    2b candidates per beam (more where several tokens end a reply) are penalised, the best b that
    go on are kept, and so are the best b that ended among the b best of their step. A beam that
    finds no acceptable candidate stops. The search ends when no beam can become better than the
    worst of b finished ones: penalties are never negative, so scores only fall.

    Attributes:
        context: What the sessions were opened with.
        width: b, at least 1.
        max_tokens: Longest reply.
        cache: Keys and values of the beams, a row each, but for their last tokens. Rows are copied
            when beams part: siblings share nothing.
        row: Scores behind the last tokens, shape ``(beams, vocab)``.
        beams: The ones that go on, best first.
        scorers: What scores them besides the model.
        recipes: What the chains were opened from.
        stop: Texts that end a reply.
        finished: Best first, b at most.
        stopped: Beams that found no acceptable candidate.

    Source:
        Beam search as in transformers with ``length_penalty=0`` and ``early_stopping=False``;
        penalties: guard.md 1.2, step 3.
    """

    context: Context
    width: int
    max_tokens: int
    cache: DynamicCache
    row: Tensor
    beams: list[Hypothesis]
    scorers: tuple[BeamScorer, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    stop: tuple[str, ...] = ()
    finished: list[Hypothesis] = field(default_factory=list)
    stopped: list[Hypothesis] = field(default_factory=list)
    _last: tuple[int, ...] = ()

    @property
    def done(self) -> bool:
        """Whether nothing can become better."""
        if not self.beams:
            return True
        full = len(self.finished) >= self.width
        return full and self.beams[0].score <= self.finished[-1].score

    @property
    def best(self) -> Hypothesis | None:
        """The best reply; None if nothing acceptable could be said at all."""
        if self.finished:
            return self.finished[0]
        spoken = [beam for beam in self.stopped if beam.tokens]
        longest = max(spoken, key=lambda beam: (len(beam.tokens), beam.score), default=None)
        return None if longest is None else replace(longest, finish="content_filter")

    def step(self, model: CausalModel) -> None:
        """Choose the next token of every beam, and score what follows."""
        if self._last:
            self.row = _score(model, self._last, self.cache)
        parents = self._choose()
        if self.beams:
            self.cache.reorder_cache(cast("Any", torch.tensor(parents, device=self.row.device)))
            self._last = tuple(beam.tokens[-1] for beam in self.beams)

    def cut(self) -> None:
        """End the search because time is up: beams that go on count as replies of full length."""
        ended = [self._ended(beam, "length") for beam in self.beams]
        self._finish([hypothesis for hypothesis in ended if hypothesis is not None])
        self.beams = []

    def _choose(self) -> list[int]:
        """Replace the beams by the best of their continuations; return each one's parent."""
        notes: list[Mapping[str, float]] = []
        ranked = self._ranked(notes)
        continued = {candidate.parent for candidate in ranked}
        self.stopped += [beam for n, beam in enumerate(self.beams) if n not in continued]
        beams, ended, parents = list[Hypothesis](), list[Hypothesis](), list[int]()
        rank = 0
        for candidate in ranked:
            child = self._child(candidate, notes[candidate.parent])
            if child is None:
                continue
            if child.finish is None and len(beams) < self.width:
                beams.append(child)
                parents.append(candidate.parent)
            elif child.finish is not None and rank < self.width:
                ended.append(child)
            rank += 1
            if len(beams) == self.width <= rank:
                break
        if not (beams or ended):
            self.stopped += self.beams
        self._finish(ended)
        self.beams = beams
        return parents

    def _ranked(self, notes: list[Mapping[str, float]]) -> list[_Candidate]:
        """Return the acceptable candidates of all beams, best first."""
        found: list[list[tuple[float, int]]] = []
        n_candidates = max(2, 1 + len(self.context.eos)) * self.width
        for beam, row in zip(self.beams, self.row, strict=True):
            here = Here(row.float(), position=len(beam.tokens))
            logp = beam.chain.score(here.raw, here) - here.logsumexp
            best = logp.topk(min(n_candidates, logp.shape[-1]))
            pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            found.append([(value, token) for value, token in pairs if value > -inf])
            notes.append(here.notes)
        return sorted(self._penalised(found), key=lambda c: (-c.score, c.parent, c.token))

    def _penalised(self, found: Sequence[Sequence[tuple[float, int]]]) -> Iterator[_Candidate]:
        tokens = [[token for _, token in pairs] for pairs in found]
        losses = [
            scorer.penalties([beam.states[n] for beam in self.beams], tokens)
            for n, scorer in enumerate(self.scorers)
        ]
        for parent, pairs in enumerate(found):
            for at, (logp, token) in enumerate(pairs):
                lost = sum(loss[parent][at] for loss in losses)
                if lost < inf:
                    yield _Candidate(self.beams[parent].score + logp - lost, parent, token)

    def _child(self, candidate: _Candidate, notes: Mapping[str, float]) -> Hypothesis | None:
        """Return the parent after the candidate's token; None if a session does not let it be."""
        parent, token = self.beams[candidate.parent], candidate.token
        if token in self.context.eos:
            return self._ended(replace(parent, score=candidate.score), "stop")
        tokens = (*parent.tokens, token)
        text, pending = self.context.lexicon.write(parent.pending, token)
        child = replace(
            parent,
            chain=parent.chain.advance(token).notice(notes, tokens),
            states=tuple(state.advance(token) for state in parent.states),
            tokens=tokens,
            score=candidate.score,
            text=parent.text + text,
            pending=pending,
        ).judged()
        if child is None:
            return None
        if any(stop in child.text for stop in self.stop):
            return self._cut(child)
        return self._ended(child, "length") if len(tokens) >= self.max_tokens else child

    def _ended(self, beam: Hypothesis, finish: Finish) -> Hypothesis | None:
        """Return *beam* as a whole reply, judged at its end."""
        text = beam.text + self.context.lexicon.finish(beam.pending)
        ended = replace(beam, chain=beam.chain.finish(), text=text, pending=b"", finish=finish)
        return ended.judged()

    def _cut(self, beam: Hypothesis) -> Hypothesis | None:
        """Return *beam* as it ends before a stop text, judged as if it had been written so."""
        text = beam.text[: min(at for s in self.stop if (at := beam.text.find(s)) >= 0)]
        chain = Chain.begin(self.recipes, self.context).read(text)
        return self._ended(replace(beam, chain=chain, text=text, pending=b""), "stop")

    def _finish(self, ended: Sequence[Hypothesis]) -> None:
        both = sorted([*self.finished, *ended], key=lambda hypothesis: -hypothesis.score)
        self.finished = both[: self.width]


def _score(model: CausalModel, tokens: tuple[int, ...], cache: DynamicCache) -> Tensor:
    """Append one token to each row of *cache*; return the scores behind them, ``(rows, vocab)``."""
    ids = torch.tensor([[token] for token in tokens], device=model.device)
    out: Any = model.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cast("Tensor", out.logits[:, -1])


def beam_search(
    model: CausalModel,
    prompt: Sequence[int],
    *,
    width: int = WIDTH,
    scorer: BeamScorer | None = None,
    recipes: Sequence[Recipe] = (),
    max_tokens: int = 64,
    stop: tuple[str, ...] = (),
    context: Context | None = None,
) -> Hypothesis | None:
    """Search from *prompt* to the end, on the caller's thread.

    Args:
        model: Touched by this call only while it runs.
        prompt: Its tokens, at least one.
        width: Beams kept.
        scorer: What penalises candidates; it must have seen the prompt's hidden state.
        recipes: What masks or biases tokens, as when sampling; temperature and truncation do
            nothing here.
        max_tokens: Longest reply.
        stop: Texts that end a reply.
        context: What sessions are opened with; None makes one of the prompt.

    Returns:
        The best reply, or None if every first token was dropped.

    Raises:
        ConfigError: If *width* or *max_tokens* is not positive.
    """
    if width < 1 or max_tokens < 1:
        raise ConfigError(f"{width} beams of {max_tokens} tokens; both must be at least 1")
    context = context or Context(
        lexicon=model.lexicon,
        vocab_size=model.vocab_size,
        prompt_ids=tuple(prompt),
        eos=model.eos,
    )
    scorers = () if scorer is None else (scorer,)
    with torch.inference_mode():
        cache = model.new_cache()
        starts = range(0, len(prompt), PREFILL_CHUNK)
        rows = [model.score(tuple(prompt[at : at + PREFILL_CHUNK]), cache) for at in starts]
        start = root(context, recipes, scorers).judged()
        search = BeamSearch(
            context=context,
            width=width,
            max_tokens=max_tokens,
            cache=cache,
            row=rows[-1][None],
            beams=[] if start is None else [start],
            scorers=scorers,
            recipes=tuple(recipes),
            stop=stop,
        )
        while not search.done:
            search.step(model)
    return search.best


def root(context: Context, recipes: Sequence[Recipe], scorers: Sequence[BeamScorer]) -> Hypothesis:
    """Return the empty beginning of every reply; a session may refuse it: see `judged`."""
    chain = Chain.begin(recipes, context)
    return Hypothesis(chain=chain, states=tuple(scorer.begin(context) for scorer in scorers))
