"""An engine that speaks text and carries recipes and masks: a tiny model behind a wire that is not.

What a plan carries goes through the text of an `Order` and of a `Carried`, as on the way to vLLM,
and acts on the scores of a real model, one row at a time. Slow and obvious.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from secrets import randbits
from typing import TYPE_CHECKING, TypeAlias

import torch

from elision.contract import (
    BranchKey,
    Capability,
    Context,
    Delta,
    Finish,
    Here,
    Lexicon,
    Plan,
    Recipe,
    Request,
    Suffix,
    Usage,
)
from elision.errors import CapabilityError
from elision.guards.carried import Carried
from elision.middleware.engines.draw import draw_for
from elision.middleware.engines.logprobs import report
from elision.middleware.engines.plugin.orders import Order, carries
from elision.middleware.engines.release import Release
from elision.middleware.engines.request_reader import RequestReader
from elision.middleware.interventions.base import Chain
from elision.middleware.profiles import sampling_recipes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

    from elision.middleware.engines.causal import CausalModel, Prompt

Grammar: TypeAlias = Callable[[str], Sequence[str] | None]
"""From the text so far, the prompt's or the beginning's included, to how it may go on; the empty
text ends it. None: as it likes."""


class CarryingEngine:
    """Decodes a model as a server with our plug-in does: text goes out, scores stay.

    Where nothing acceptable is left, by masks, recipes and grammar together, the choice ends with
    ``content_filter``, and nothing is said about it.

    Args:
        model: Who writes.
        branches: Whether it reads other scores, as MTI needs.
        tells: Whether it reports log-probabilities: those of the masked scores.
        grammar: What the reply must look like, as a server's structured output does.

    Attributes:
        plans: What was asked, in order.
        n_open: Streams that are being read.
    """

    def __init__(
        self,
        model: CausalModel,
        *,
        branches: bool = True,
        tells: bool = True,
        grammar: Grammar | None = None,
    ) -> None:
        self.name = model.name
        self.lexicon: Lexicon | None = None
        self.capabilities = Capability.CONTINUE
        self.capabilities |= Capability.BRANCH if branches else Capability.NONE
        self.capabilities |= Capability.TOP_LOGPROBS if tells else Capability.NONE
        self.plans: list[Plan] = []
        self.n_open = 0
        self._model = model
        self._grammar = grammar

    def carries(self, recipe: Recipe) -> bool:
        """See `Carrying.carries`."""
        return carries(recipe)

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """See `Engine.stream`; the choices come one after the other.

        Raises:
            CapabilityError: If the plan asks for log-probabilities, and it tells none.
        """
        if plan.request.logprobs is not None and Capability.TOP_LOGPROBS not in self.capabilities:
            raise CapabilityError("logprobs", engine=self.name, missing="TOP_LOGPROBS")
        self.plans.append(plan)
        self.n_open += 1
        try:
            prompt, n_written = self._model.render(plan.request), 0
            for choice in range(plan.request.n):
                row = await asyncio.to_thread(self._row, plan, prompt, choice)
                if plan.request.echo:
                    yield Delta(choice=choice, text=prompt.before)
                while row.finish is None:
                    yield await asyncio.to_thread(row.step)
                n_written += len(row.tokens)
            usage = Usage(prompt_tokens=len(prompt.ids), completion_tokens=n_written)
            yield Delta(usage=usage, report={"engine": self.name})
        finally:
            self.n_open -= 1

    def _row(self, plan: Plan, prompt: Prompt, choice: int) -> _Row:
        request, model = plan.request, self._model
        order = Order.loads(Order(recipes=plan.recipes).dumps())
        masks: tuple[Recipe, ...] = ()
        if plan.masks is not None:
            masks = Carried.loads(plan.masks.body).compile().recipes(model.lexicon)
        seed = request.sampling.seed
        context = Context(
            prompt_ids=prompt.ids,
            before=prompt.before,
            user_text=request.user_text,
            lexicon=model.lexicon,
            vocab_size=model.vocab_size,
            eos=model.eos,
            choice=choice,
            seed=seed,
            capabilities=self.capabilities | Capability.LOGITS,
            reader=RequestReader(model, request),
        )
        recipes = (*order.recipes, *masks, *sampling_recipes(request.sampling))
        with torch.inference_mode():
            chain = Chain.begin(recipes, context)
        seed = randbits(31) if seed is None else seed
        return _Row.begin(model, request, context, chain, seed=seed, grammar=self._grammar)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""


@dataclass(slots=True)
class _Row:
    """One choice, token by token."""

    model: CausalModel
    request: Request
    context: Context
    chain: Chain
    draw: Callable[[Tensor, int], int | None]
    release: Release
    grammar: Grammar | None
    cache: DynamicCache
    unread: tuple[int, ...]
    tokens: list[int]
    pending: bytes = b""
    finish: Finish | None = None

    @classmethod
    def begin(
        cls,
        model: CausalModel,
        request: Request,
        context: Context,
        chain: Chain,
        *,
        seed: int,
        grammar: Grammar | None,
    ) -> _Row:
        device = model.device
        draw = draw_for(request.sampling, choice=context.choice, seed=seed, device=device).pick
        release, cache = Release(stop=request.stop), model.new_cache()
        ids = context.prompt_ids
        return cls(model, request, context, chain, draw, release, grammar, cache, ids, [])

    @torch.inference_mode()
    def step(self) -> Delta:
        """Write a token, or end; return what is said with it."""
        scores, token = self._chosen()
        if token is None or token in self.context.eos:
            return self._end("content_filter" if token is None else "stop")
        text, self.pending = self.context.lexicon.write(self.pending, token)
        n_top, entry = self.request.logprobs, None
        if n_top is not None:
            lexicon = self.context.lexicon
            entry = report(scores, self.chain.conceal(scores), token, n_top=n_top, lexicon=lexicon)
        self.release.write(text, entry)
        self.chain = self.chain.advance(token)
        self.tokens.append(token)
        self.unread = (token,)
        if self.release.stopped:
            return self._end("stop")
        return self._end("length") if len(self.tokens) >= self._most else self._said()

    @property
    def _most(self) -> int:
        room = self.model.n_context - len(self.context.prompt_ids)
        return room if self.request.max_tokens is None else self.request.max_tokens

    def _chosen(self) -> tuple[Tensor, int | None]:
        raw = self._within_grammar(self.model.score(self.unread, self.cache).float())
        here = Here(raw, position=len(self.tokens), branch=self._branch)
        scores = self.chain.score(raw, here)
        return scores, self.draw(self.chain.choose_from(scores, here), len(self.tokens))

    def _branch(self, key: BranchKey) -> Tensor:
        assert isinstance(key, Suffix)
        return self.model.score(key.ids, self.model.copy_cache(self.cache))

    def _within_grammar(self, raw: Tensor) -> Tensor:
        text = self.context.before + self.release.text
        ways = None if self.grammar is None else self.grammar(text)
        if ways is None:
            return raw
        allowed = torch.full_like(raw, -torch.inf)
        for token in self._spelling(ways):
            allowed[token] = raw[token]
        return allowed

    def _spelling(self, ways: Sequence[str]) -> Iterator[int]:
        """Yield the tokens that one of *ways* begins with; all that end the reply, if one ends."""
        lexicon, wanted = self.context.lexicon, [way.encode() for way in ways]
        for token in range(len(lexicon)):
            data = lexicon.bytes_of(token)
            if data and any(way.startswith(self.pending + data) for way in wanted):
                yield token
        if "" in ways:
            yield from self.context.eos

    def _end(self, finish: Finish) -> Delta:
        self.finish = finish
        if not self.release.stopped:
            self.release.write(self.context.lexicon.finish(self.pending))
        self.release.stop = ()
        return replace(self._said(), finish=finish)

    def _said(self) -> Delta:
        text, entries = self.release.take()
        return Delta(choice=self.context.choice, text=text, logprobs=entries)
