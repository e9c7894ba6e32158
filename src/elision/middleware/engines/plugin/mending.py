"""What must be put right in vLLM so that drafts on a CPU leave draws alone."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mend_expansion() -> None:
    """Put `expanded` in the place of vLLM's own where that one loses its result.

    vLLM 0.32 on a CPU writes into a copy, and divides the scores of every request that has drafts
    by memory that nobody has set, as soon as one request of the batch draws.
    """
    sampler = sys.modules.get("vllm.v1.sample.rejection_sampler")
    if sampler is None:  # whoever loads a proposer has it there
        return
    if sys.modules["vllm.platforms"].current_platform.is_cpu() and not _is_right(sampler):
        vars(sampler)["expand_batch_to_tokens"] = expanded


def expanded(
    x: Tensor,
    cu_num_tokens: Tensor,
    num_tokens: int,
    replace_from: float = 0,
    replace_to: float = 0,
) -> Tensor:
    """Return each request's value once for each of its tokens, as vLLM's function would.

    Args:
        x: A value per request, shape ``(B,)``.
        cu_num_tokens: Running total of the requests' tokens, shape ``(B,)``.
        num_tokens: Their total.
        replace_from: A value that stands for another.
        replace_to: That other.

    Returns:
        Shape ``(num_tokens,)``, of the dtype of *x*.
    """
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    meant = x.masked_fill(x == replace_from, replace_to)
    return meant.repeat_interleave(counts, output_size=num_tokens)


def _is_right(sampler: ModuleType) -> bool:
    """Return whether vLLM's own does the same; twice, lest unset memory look right."""
    import torch

    own = sampler.expand_batch_to_tokens
    totals = torch.tensor([1, 3], dtype=torch.int32)
    values = (torch.tensor([0.25, 0.75]), torch.tensor([0.0, 0.5]))
    return all(
        torch.equal(own(x, totals, 3, replace_to=1), expanded(x, totals, 3, replace_to=1))
        for x in values
    )
