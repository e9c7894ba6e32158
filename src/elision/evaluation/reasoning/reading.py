"""Given answers, read token by token: the chain acts on every row, the next token is the given one.

Exact, and cheap where many methods read the same item: a row depends on the prompt and on what was
given before it, never on a method, so each is computed once and shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from elision.contract import (
    BranchKey,
    Context,
    Here,
    OtherModel,
    OtherPrompt,
    Recipe,
    Request,
    Suffix,
)
from elision.errors import CapabilityError, ContextLengthError
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel
from elision.middleware.interventions.base import Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one method makes of one given answer.

    Attributes:
        logp: Log-probability of the answer in nats, summed over its tokens.
        greedy: Whether every token of it is its row's best.
        n_tokens: Tokens of the answer.
        entropy_nats: Mean entropy of the rows that a token would be drawn from.
        notes: Sums of what the sessions noted.
    """

    logp: float
    greedy: bool
    n_tokens: int
    entropy_nats: float
    notes: Mapping[str, float] = field(default_factory=dict)


def rows_of(model: CausalModel, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Return the model's own scores for every token of *answer*, shape ``(len(answer), vocab)``.

    Args:
        model: Read in one forward per chunk, on a cache of its own.
        prompt: What stands before the answer; at least one token.
        answer: Its tokens; the last one is never fed.

    Raises:
        ContextLengthError: If the model cannot read that much.
    """
    return _read(model, prompt, answer)[0]


def _read(model: CausalModel, prompt: Sequence[int], answer: Sequence[int]) -> tuple[Tensor, Any]:
    fed = (*prompt, *answer[:-1])
    if len(fed) > model.n_context:
        raise ContextLengthError(
            f"Prompt and answer have {len(fed)} tokens, but {model.name!r} takes "
            f"{model.n_context}.",
            param="prompt",
        )
    with torch.inference_mode():
        return _scored(model, fed, len(answer))


def _scored(model: CausalModel, fed: Sequence[int], n_wanted: int) -> tuple[Tensor, Any]:
    """Return the scores behind the last *n_wanted* of *fed*, and the cache that holds all."""
    cache, rows, first = model.new_cache(), list[Tensor](), len(fed) - n_wanted
    for start in range(0, len(fed), PREFILL_CHUNK):
        chunk = fed[start : start + PREFILL_CHUNK]
        n_last = min(len(chunk), start + len(chunk) - first)
        ids = torch.tensor([chunk], device=model.device)
        out: Any = model.model(
            input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=max(1, n_last)
        )
        if n_last > 0:
            rows.append(out.logits[0].float())
    return torch.cat(rows), cache


def _tokens(model: CausalModel, text: str) -> tuple[int, ...]:
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return tuple(cast("list[int]", ids))


class Reading:
    """A prompt and one given answer behind it, with every row that was asked for.

    Lives for one item.

    Args:
        model: The model.
        request: Whose prompt it is.
        answer: Text that follows the prompt as it stands, or its tokens.
    """

    def __init__(self, model: CausalModel, request: Request, answer: str | tuple[int, ...]) -> None:
        self._model = model
        self._request = request
        self.prompt_ids = model.render(request).ids
        self.answer_ids = answer if isinstance(answer, tuple) else _tokens(model, answer)
        self._rows, self._cache = _read(model, self.prompt_ids, self.answer_ids)
        self._others: dict[BranchKey, Tensor] = {}
        self._behind: dict[tuple[Suffix, int], Tensor] = {}

    def walk(self, recipes: Sequence[Recipe], context: Context) -> Sight:
        """Return what *recipes* make of the answer, every position behind the given tokens."""
        chain, notes = Chain.begin(recipes, context), dict[str, float]()
        logp, greedy, nats = 0.0, True, 0.0
        for position, token in enumerate(self.answer_ids):
            here = self._here(position)
            final = chain.adjust(here.raw, here).log_softmax(-1)
            logp += float(final[token])
            greedy &= int(final.argmax()) == token
            nats += Here(final).entropy
            for key, value in here.notes.items():
                notes[key] = notes.get(key, 0.0) + value
            chain = chain.advance(token)
        n = len(self.answer_ids)
        return Sight(logp=logp, greedy=greedy, n_tokens=n, entropy_nats=nats / n, notes=notes)

    def _here(self, position: int) -> Here:
        return Here(
            self._rows[position],
            position=position,
            branch=lambda key: self.row(key, position),
        )

    def row(self, key: BranchKey, position: int) -> Tensor:
        """Return the other scores under *key* for the answer's token at *position*.

        Raises:
            CapabilityError: If the key names another model: there is only one here.
        """
        match key:
            case Suffix():
                return self._suffixed(key, position)
            case OtherPrompt(ids):
                if key not in self._others:
                    self._others[key] = rows_of(self._model, ids, self.answer_ids)
                return self._others[key][position]
            case OtherModel():
                raise CapabilityError("branch", engine="a reading", missing="a second model")

    def _suffixed(self, key: Suffix, position: int) -> Tensor:
        at = key, position
        if at not in self._behind:
            model, prefix = self._model, (*self.prompt_ids, *self.answer_ids[:position])
            with torch.inference_mode():
                cache = model.cut_cache(model.copy_cache(self._cache), prefix)
                self._behind[at] = model.score(key.ids, cache).float()
        return self._behind[at]
