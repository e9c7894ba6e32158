"""What vLLM forbids of its own behind the hook, forbidden there already: else no dead end shows."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def restrict_(scores: Tensor, params: Any, output: Sequence[int], drafts: Sequence[int]) -> None:
    """Leave of a request's rows what its ``allowed_token_ids`` and ``bad_words`` leave.

    Where masks and these leave nothing between them, vLLM would take the first token of all.

    Args:
        scores: Its rows, shape ``(n, V)``: behind *output*, then behind each draft; overwritten.
        params: Its ``SamplingParams``.
        output: Its tokens that are committed.
        drafts: Those behind them.
    """
    allowed = getattr(params, "allowed_token_ids", None)
    if allowed is not None:
        kept = scores[:, allowed]
        scores.fill_(-inf)
        scores[:, allowed] = kept
    bad: Sequence[Sequence[int]] = getattr(params, "bad_words_token_ids", None) or ()
    if bad:
        said = [*output, *drafts]
        for n, row in enumerate(scores[: len(drafts) + 1]):
            row[_completing(bad, said[: len(output) + n])] = -inf


def _completing(bad: Sequence[Sequence[int]], said: Sequence[int]) -> list[int]:
    """Return the tokens that would complete one of the *bad* runs behind *said*."""
    starts = ((ids[:-1], ids[-1]) for ids in bad)
    return [last for start, last in starts if [*said[len(said) - len(start) :]] == [*start]]
