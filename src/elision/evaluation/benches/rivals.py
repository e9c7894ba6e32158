"""``transformers.generate`` as a contestant: plain and with prompt lookup, alone and in a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elision.contract import Request
from elision.evaluation.bench import Setup
from elision.evaluation.benches.racing import Run
from elision.middleware.models.pull import pull

if TYPE_CHECKING:
    from torch import Tensor

LOOKUP_TOKENS = 10
"""Tokens that prompt lookup proposes at a time: its documentation's value."""


@dataclass(frozen=True, slots=True)
class Original:
    """A model as transformers loads it, with nothing of ours in it.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
    """

    model: Any
    tokenizer: Any

    def ids(self, request: Request) -> list[int]:
        """Return the tokens of a chat *request*'s prompt."""
        text = self.tokenizer.apply_chat_template(
            [dict(message) for message in request.messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def eos(self) -> set[int]:
        """Tokens that end a reply."""
        ids = self.model.generation_config.eos_token_id
        return {token for token in (ids if isinstance(ids, list) else [ids]) if token is not None}

    @property
    def pad(self) -> int:
        """What stands before a shorter prompt of a batch, and behind a reply that has ended."""
        return min(self.eos, default=0)

    def written(self, row: list[int]) -> list[int]:
        """Return *row* up to its end token."""
        ends = (index for index, token in enumerate(row) if token in self.eos)
        return row[: next(ends, len(row))]


def original(setup: Setup, dtype: str) -> Original:
    """Load the bench's model anew, in *dtype*."""
    folder = pull(setup.settings.model, cache=setup.settings.cache)
    return _load(folder, dtype)


@lru_cache(maxsize=2)
def _load(folder: Path, dtype: str) -> Original:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return Original(model.to(device).eval(), tokenizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """``model.generate``, greedy.

    Attributes:
        original: The model.
        n_threads: Compute threads.
        lookup: Whether it drafts by prompt lookup.
    """

    original: Original
    n_threads: int
    lookup: bool = False

    def run(self, request: Request) -> Run:
        """See `Contestant.run`."""
        ids = self.original.ids(request)
        start = time.perf_counter()
        (row,) = self._rows([ids], request.max_tokens or 1)
        took = time.perf_counter() - start
        text = self.original.tokenizer.decode(row, skip_special_tokens=True)
        return Run(text, len(row), took)

    def run_batch(self, requests: Sequence[Request]) -> Run:
        """Answer *requests* in one batch, padded on the left."""
        rows = [self.original.ids(request) for request in requests]
        start = time.perf_counter()
        written = self._rows(rows, requests[0].max_tokens or 1)
        return Run("", sum(map(len, written)), time.perf_counter() - start)

    def _rows(self, prompts: list[list[int]], n_tokens: int) -> list[list[int]]:
        torch.set_num_threads(self.n_threads)
        ids, mask = _padded(prompts, self.original)
        more = {"prompt_lookup_num_tokens": LOOKUP_TOKENS} if self.lookup else {}
        with torch.inference_mode():
            out = self.original.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=n_tokens,
                do_sample=False,
                pad_token_id=self.original.pad,
                **more,
            )
        return [self.original.written(row) for row in out[:, ids.shape[1] :].tolist()]


def _padded(prompts: list[list[int]], original: Original) -> tuple[Tensor, Tensor]:
    width, pad, device = max(map(len, prompts)), original.pad, original.model.device
    gaps = [width - len(prompt) for prompt in prompts]
    ids = [[pad] * gap + prompt for gap, prompt in zip(gaps, prompts, strict=True)]
    mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
