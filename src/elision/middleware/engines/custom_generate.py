"""Token Recycling inside ``transformers``' own ``generate``, for people who only want the speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

from elision.contract import Plan, Request
from elision.errors import ConfigError
from elision.middleware.engines.branches import Asides
from elision.middleware.engines.cache import full_cache
from elision.middleware.engines.forward_timer import ForwardTimer
from elision.middleware.engines.ragged import can_be_ragged
from elision.middleware.engines.round import Failures, Round
from elision.middleware.speculation.base import NOTHING, Draft, Drafter, Mode, NoDraft
from elision.middleware.speculation.compaction import compact
from elision.middleware.speculation.controller import Controller, Ledger
from elision.middleware.speculation.cost import CostCurve
from elision.middleware.speculation.pools import Pools
from elision.middleware.speculation.selftest import TreeCheck, check_trees
from elision.middleware.speculation.walk import Walk, Walking, needing_nothing, walk

if TYPE_CHECKING:
    from transformers import DynamicCache, GenerationConfig, PreTrainedModel
    from transformers.generation.streamers import BaseStreamer
    from transformers.generation.utils import GenerateDecoderOnlyOutput

    Output: TypeAlias = Tensor | GenerateDecoderOnlyOutput

HASTE_S = 0.5
"""Time for measuring a model that somebody waits for."""


def recycling(
    *, speculation: Mode = "auto", streamer: BaseStreamer | None = None, cross_request: bool = True
) -> Recycling:
    """Return Token Recycling for ``model.generate(..., custom_generate=elision.recycling())``.

    The text is that of ``generate`` without it: greedy, or sampled after the same
    ``torch.manual_seed`` (one sequence at a time; several draw in another order than ``generate``
    does). ``logits_processor`` and ``stopping_criteria`` are called as ``generate`` calls them,
    once per token.

    Args:
        speculation: Draft where it pays, never, or at every step.
        streamer: Takes prompt and tokens; give it here and not to ``generate``, which keeps it
            from custom loops.
        cross_request: Whether a call drafts from what earlier ones with this object have shown.
    """
    return Recycling(speculation=speculation, streamer=streamer, cross_request=cross_request)


class Recycling:
    """A decoding loop for ``generate(custom_generate=...)``; made by `recycling`.

    Keeps what it learned of each model for as long as the model lives. Not for two threads at once.
    """

    def __init__(self, *, speculation: Mode, streamer: Any, cross_request: bool) -> None:
        self._mode: Mode = speculation
        self._streamer: Any = streamer
        self._cross_request = cross_request
        self._desks: WeakKeyDictionary[Any, _Desk] = WeakKeyDictionary()

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: Callable[[Tensor, Tensor], Tensor],
        stopping_criteria: Callable[[Tensor, Any], Tensor],
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Output:
        """Decode; called by ``generate``.

        Raises:
            ConfigError: If something is asked for that this loop does not do.
        """
        config, n_rows = cast("Any", generation_config), len(input_ids)
        _check(config, model_kwargs, n_rows, self._streamer)
        desk = self._desk(model)
        chooser = _Chooser(logits_processor, stopping_criteria, config, self._streamer)
        mask = model_kwargs.get("attention_mask")
        with torch.inference_mode():
            if self._streamer is not None:
                self._streamer.put(input_ids.cpu())
            rows = [
                desk.open(ids, None if mask is None else mask[n], chooser, self._mode)
                for n, ids in enumerate(input_ids)
            ]
            turn = desk.round()
            while live := [row for row in rows if not row.is_over]:
                _raise_first(turn.step(live))
            if self._streamer is not None:
                self._streamer.end()
        return _output(rows, config)

    def _desk(self, model: PreTrainedModel) -> _Desk:
        if model not in self._desks:
            self._desks[model] = _Desk(ref(model), self._cross_request)
        desk = self._desks[model]
        if self._mode == "force" and not desk.check.trees:
            raise ConfigError(f"this model takes no drafts: {desk.check.reason}")
        return desk


class _Desk:
    """What is known of one model, and what was recycled of its replies."""

    def __init__(self, model: Callable[[], PreTrainedModel | None], cross_request: bool) -> None:
        self._model = model
        vocab_size = int(cast("Any", self.model).get_output_embeddings().weight.shape[0])
        self.pools = Pools(vocab_size, cross_request=cross_request)

    def round(self) -> Round:
        """Return what decodes rows; what it learns of costs stays here."""
        return Round(
            self.model,
            controller=lambda: self.controller,
            takes_several=lambda: self.takes_several,
        )

    @property
    def model(self) -> PreTrainedModel:
        """The model."""
        found = self._model()
        assert found is not None, "who calls has it"
        return found

    @cached_property
    def check(self) -> TreeCheck:
        """Whether the model scores trees rightly."""
        return check_trees(self.model, new_cache=lambda: full_cache(self.model.config))

    @cached_property
    def controller(self) -> Controller:
        """What decides how much to draft; measures the model when first asked for."""
        return Controller(CostCurve.measure(ForwardTimer(self.model), budget_s=HASTE_S))

    @cached_property
    def takes_several(self) -> bool:
        """Whether rows may share a forward."""
        return self.check.trees and can_be_ragged(self.model)

    def open(self, ids: Tensor, mask: Tensor | None, chooser: _Chooser, mode: Mode) -> _Row:
        """Read a row's prompt and choose its first token."""
        prompt = ids if mask is None else ids[mask.bool()]
        cache = full_cache(self.model.config)
        out: Any = self.model(
            input_ids=prompt[None], past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        row = _Row(ids[None], len(prompt), cache, chooser)
        if self.check.trees and mode != "off":
            plan = Plan(request=Request(), profile="generate", speculation=mode)
            drafter = self.pools.open(plan, prompt.tolist(), chooser.eos)
            row.drafter, row.ledger, row.mode = drafter, drafter.pool.ledger, mode
        row.visit(out.logits[0, -1])
        return row


@dataclass(slots=True)
class _Chooser:
    """How ``generate`` chooses a token, and when it stops."""

    process: Callable[[Tensor, Tensor], Tensor]
    stops: Callable[[Tensor, Any], Tensor]
    config: Any
    streamer: Any

    @property
    def eos(self) -> frozenset[int]:
        """Tokens that end a reply."""
        tokens = self.config._eos_token_tensor
        return frozenset() if tokens is None else frozenset(tokens.flatten().tolist())

    def choose(self, scores: Tensor) -> Tensor:
        """Return the token for processed *scores* ``(1, V)``, shape ``(1,)``."""
        if self.config.do_sample:
            return torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)
        return scores.argmax(dim=-1)


@dataclass(slots=True, eq=False)
class _Row:
    """One sequence of the batch; see `elision.middleware.engines.decoded.Decoded`."""

    ids: Tensor
    n_prompt: int
    cache: DynamicCache
    chooser: _Chooser
    drafter: Drafter = field(default_factory=NoDraft)
    ledger: Ledger = field(default_factory=Ledger)
    mode: Mode = "off"
    is_apart: bool = False
    is_over: bool = False
    tokens: list[int] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    asides: Asides = field(default_factory=dict)

    @property
    def root(self) -> int:
        return self.tokens[-1]

    @property
    def n_past(self) -> int:
        return self.n_prompt + len(self.tokens) - 1

    def begin(self) -> Walking:
        raise AssertionError("a row enters a round with its first token")

    def prepare(self) -> None: ...

    def propose(self, n: int) -> Draft:
        most = self.chooser.config.max_length
        depth = n if most is None else most - self.ids.shape[1] - 1
        if self.mode == "off" or n < 1 or depth < 1:
            return NOTHING
        return self.drafter.propose(self.tokens, n=n, depth=depth)

    def walk(self, logits: Tensor, draft: Draft) -> Walking:
        def step(done: Walk) -> int | None:
            self.visit(logits[done.path[-1]])
            done.n_written += 1
            return None if self.is_over else self.root

        return walk(draft, needing_nothing(step), before=tuple(self.tokens))

    def learn(self, logits: Tensor, draft: Draft, walk: Walk) -> None:
        # The model's own scores: what processors return has been truncated already.
        if draft:
            compact(self.cache, walk.path, len(draft) + 1)
        self.drafter.learn(walk.before, draft, logits, walk.path, walk.shaped)

    def visit(self, row: Tensor) -> None:
        """Choose a token from the model's scores *row*, shape ``(V,)``."""
        raw = row[None].to(copy=True, dtype=torch.float32)
        scores = self.chooser.process(self.ids, raw)
        config = self.chooser.config
        if config.return_dict_in_generate and config.output_scores:
            self.scores.append(scores)
        if config.return_dict_in_generate and config.output_logits:
            self.logits.append(raw)
        token = self.chooser.choose(scores)
        self.ids = torch.cat([self.ids, token[:, None]], dim=-1)
        self.tokens.append(int(token))
        if self.chooser.streamer is not None:
            self.chooser.streamer.put(token.cpu())
        seen = tuple(self.scores) if self.scores else None
        self.is_over = bool(self.chooser.stops(self.ids, seen)[0])


def _check(config: Any, model_kwargs: dict[str, Any], n_rows: int, streamer: Any) -> None:
    """Raise `ConfigError` where this loop would have to do what it cannot."""
    cache = model_kwargs.get("past_key_values")
    wants_more = config.output_attentions or config.output_hidden_states
    per_step = config.return_dict_in_generate and (config.output_scores or config.output_logits)
    refused = {
        "num_beams above 1": (config.num_beams or 1) > 1,
        "inputs_embeds": "inputs_embeds" in model_kwargs,
        "an encoder": "encoder_outputs" in model_kwargs,
        "a cache that has been read into": cache is not None and int(cache.get_seq_length()) > 0,
        "attentions or hidden states": config.return_dict_in_generate and wants_more,
        "scores of several sequences at once": per_step and n_rows > 1,
        "a streamer for several sequences": streamer is not None and n_rows > 1,
    }
    if asked := [name for name, is_asked in refused.items() if is_asked]:
        raise ConfigError(
            f"recycling does not go with {' nor with '.join(asked)}; leave it out, or "
            "call generate without custom_generate"
        )


def _raise_first(failures: Failures) -> None:
    for _, exc in failures:
        raise exc


def _output(rows: list[_Row], config: Any) -> Output:
    """Return what ``generate`` returns: rows padded behind their end."""
    from transformers.generation.utils import GenerateDecoderOnlyOutput

    longest = max(row.ids.shape[1] for row in rows)
    fill = 0 if config._pad_token_tensor is None else int(config._pad_token_tensor)
    gaps = [(row.ids, (0, longest - row.ids.shape[1])) for row in rows]
    sequences = torch.cat([torch.nn.functional.pad(ids, gap, value=fill) for ids, gap in gaps])
    if not config.return_dict_in_generate:
        return sequences
    return GenerateDecoderOnlyOutput(
        sequences=sequences,  # type: ignore[arg-type] # a LongTensor by dtype
        scores=tuple(rows[0].scores) or None,  # type: ignore[arg-type] # as generate itself
        logits=tuple(rows[0].logits) or None,  # type: ignore[arg-type] # likewise
        past_key_values=rows[0].cache if len(rows) == 1 else None,
    )
