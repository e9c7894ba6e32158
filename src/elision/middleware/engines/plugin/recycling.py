"""Token Recycling in a chain: what the model would have said next, proposed the next time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from elision.middleware.speculation.base import Draft
from elision.middleware.speculation.matrix import RecycleMatrix, write_order

if TYPE_CHECKING:
    from torch import Tensor

K: Final = 8
"""Successors stored per token."""
MOST_POOLS: Final = 32
"""Pools kept. One holds 48 bytes per token of the vocabulary: 7 MB at 150,000."""

PoolKey: TypeAlias = tuple[str, str]
"""Pool and digest of the masks: what was said before a target was registered is not drafted."""


@dataclass(frozen=True, slots=True, repr=False)
class Scored:
    """The rows of one request in one step.

    Attributes:
        pool: Whose matrix they are for.
        tokens: The last committed token, and the drafts behind it.
        raw: The best tokens behind each by the model's own scores, `allowed`; shape ``(n, k)``.
        made: Those by what the chain made of them, likewise.
    """

    pool: PoolKey
    tokens: tuple[int, ...]
    raw: Tensor
    made: Tensor


class Recycled:
    """The matrices of one worker, by pool. Nothing of them is logged, persisted or returned.

    Args:
        vocab_size: Scores per row.
        limit: Most pools; the one used longest ago goes first.

    Source:
        Luo et al. 2024, arXiv:2408.08696. Changed: a chain of best successors in place of the tree,
        for which vLLM has no attention; rows on the path that was taken hold what the chain made of
        the scores, and no row what was forbidden there.
    """

    def __init__(self, vocab_size: int, *, limit: int = MOST_POOLS) -> None:
        self._vocab_size = vocab_size
        self._limit = limit
        self._kept: OrderedDict[PoolKey, RecycleMatrix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"Recycled(n={len(self)}, limit={self._limit})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("what is recycled is never copied nor persisted")

    def propose(self, pool: PoolKey, token: int, n: int, ends: Collection[int]) -> list[int]:
        """Return up to *n* tokens behind *token*: of each the best successor known.

        Args:
            pool: Whose matrix.
            token: The last of the text.
            n: Most tokens.
            ends: Tokens behind which nothing follows: none of them is proposed.
        """
        matrix = self._kept.get(pool)
        found: list[int] = []
        while matrix is not None and len(found) < n:
            ids, _ = matrix.row(token)
            if not ids or ids[0] in ends:
                break
            token = ids[0]
            found.append(token)
        return found

    def learn(self, scored: Sequence[Scored], n_taken: Sequence[int]) -> None:
        """Write the rows of a step, those on the path that was taken last.

        Args:
            scored: What was scored, each of another request.
            n_taken: How many of each one's rows a token was drawn from, the first ones.
        """
        for one, n in zip(scored, n_taken, strict=True):
            ids = [*one.made[:n].tolist(), *one.raw[n:].tolist()]
            chain = Draft(one.tokens[1:], tuple(range(len(one.tokens) - 1)))
            self._matrix(one.pool).update(one.tokens, ids, order=write_order(chain, range(n)))

    def _matrix(self, pool: PoolKey) -> RecycleMatrix:
        matrix = self._kept.pop(pool, None)
        self._kept[pool] = matrix or RecycleMatrix(self._vocab_size, K)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return self._kept[pool]


def best_of(scores: Tensor) -> Tensor:
    """Return the best tokens of every row, best first, -1 behind; shape ``(R, k)``."""
    from elision.middleware.speculation.topk import top_ids

    return top_ids(scores, K)


def allowed(ids: Tensor, scores: Tensor) -> Tensor:
    """Return the tokens of every row that are not at ``-inf`` in *scores*, -1 behind them."""
    out = (ids < 0) | (scores.gather(-1, ids.clamp(min=0).long()) == float("-inf"))
    return ids.masked_fill(out, -1).gather(-1, out.to(ids.dtype).argsort(dim=-1, stable=True))
