"""The drafter: recycled rows and the text's own continuations, in one tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeAlias

from elision.middleware.speculation.allotment import Ledger
from elision.middleware.speculation.base import Draft
from elision.middleware.speculation.blend import Blend, Evidence, Weighed
from elision.middleware.speculation.matrix import RecycleMatrix, write_order
from elision.middleware.speculation.pairs import Pair, PairMatrix
from elision.middleware.speculation.spine import LONGEST, Spine
from elision.middleware.speculation.topk import top_k
from elision.middleware.speculation.tree import Candidate, Path, best_first

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    _Rows: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]

FLOOR: Final = 0.002
"""Nodes that the walk is less likely to reach are not drafted."""

_PLACES_AT_ROOT: Final = 24
_PLACES_BELOW: Final = 6

_ROOT: Final[Path] = ()


@dataclass(slots=True)
class Tally:
    """How drafting went, in counts.

    Attributes:
        steps: Forwards that a reply took part in.
        visited: Nodes that the walks visited: tokens drawn.
        scored: Proposed tokens that were scored.
    """

    steps: int = 0
    visited: int = 0
    scored: int = 0


@dataclass(slots=True, repr=False)
class Pool:
    """What replies that may share it have shown: those of one tenant and profile.

    Lives until its tenant's epoch changes or its place is needed. Engine's thread only.

    Attributes:
        matrix: Rows by the last token.
        pairs: Rows by the last two.
        blend: How far each source is to be trusted.
        ledger: The time that drafting has saved and spent.
        tally: Counts.
    """

    matrix: RecycleMatrix
    pairs: PairMatrix
    blend: Blend
    ledger: Ledger = field(default_factory=Ledger)
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def empty(cls, vocab_size: int, k: int = 8) -> Pool:
        """Return one that has seen nothing."""
        return cls(RecycleMatrix(vocab_size, k), PairMatrix(k), Blend(k))

    def without_rows(self) -> Pool:
        """Return one with no rows that shares rates, ledger and counts with this one."""
        matrix = RecycleMatrix(self.matrix.vocab_size, self.matrix.k)
        return replace(self, matrix=matrix, pairs=PairMatrix(self.matrix.k))

    @property
    def nbytes(self) -> int:
        """Bytes that its rows take."""
        return self.matrix.nbytes + self.pairs.nbytes

    def __repr__(self) -> str:
        return f"Pool(nbytes={self.nbytes}, {self.tally})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("what is recycled is never copied nor persisted")


class _Judged(NamedTuple):
    """A node's candidates, and what made them."""

    evidence: Evidence
    weighed: Weighed


class _Awaited(NamedTuple):
    """A visited node whose token is not known yet: it will stand at *position* of the reply."""

    position: int
    judged: _Judged


@dataclass(slots=True, repr=False)
class Recycler:
    """Drafts one reply from what the model said before, in it and in its pool.

    See `Drafter`. What it learns from a node is what stood there before the node was scored: the
    rates are those of drafting, whether anything was drafted or not.

    Attributes:
        pool: What is shared with other replies.
        spine: Prompt and reply.
        ends: Tokens never drafted: nothing follows them, or they never come.

    Source: Luo et al. 2024, arXiv:2408.08696, for recycling; RACER, arXiv:2604.14885, for the
    text's continuations in the same tree. Ours: rows by two tokens, the blend, and that rows of
    visited nodes hold what the chain made of the scores.
    """

    pool: Pool
    spine: Spine
    ends: frozenset[int] = frozenset()
    _judged: dict[Path, _Judged] = field(default_factory=dict)
    _awaited: _Awaited | None = None
    _context: list[int] = field(default_factory=list)

    def propose(self, tokens: Sequence[int], *, n: int, depth: int) -> Draft:
        """See `Drafter.propose`."""
        self._follow(tokens)
        return best_first(self._children, n=n, depth=depth, floor=FLOOR)

    def learn(
        self,
        tokens: Sequence[int],
        draft: Draft,
        logits: Tensor,
        path: Sequence[int],
        shaped: Mapping[int, Tensor],
    ) -> None:
        """See `Drafter.learn`."""
        self._follow(tokens)
        self._observe(len(tokens), [draft.tokens[node - 1] for node in path[1:]])
        self._write(draft, _best(logits, shaped, self.pool.matrix.k), path)
        self.pool.tally.steps += 1
        self.pool.tally.visited += len(path)
        self.pool.tally.scored += len(draft)

    # --- what may follow -------------------------------------------------------------------------

    def _follow(self, tokens: Sequence[int]) -> None:
        """Stand behind *tokens*; what was awaited there is known now, or was taken back."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None and awaited.position < len(tokens):
            judged, token = awaited.judged, tokens[awaited.position]
            self.pool.blend.observe(*judged, token)
        context = self._context
        self.spine.follow(tokens)
        self._context = self.spine.context(LONGEST)
        if awaited is not None or context != self._context:
            self._judged = {}

    def _children(self, path: Path) -> list[Candidate]:
        return self._judge(path).weighed.candidates

    def _judge(self, path: Path) -> _Judged:
        """Return the candidates below *path*; asked again before anything was learnt, the same."""
        judged = self._judged.get(path)
        if judged is None:
            evidence = self._evidence(path)
            weighed = self.pool.blend.weigh(evidence, self.ends)
            judged = self._judged[path] = _Judged(evidence, weighed)
        return judged

    def _evidence(self, path: Path) -> Evidence:
        context = [*self._context, *path]
        pairs = self.pool.pairs
        return Evidence(
            self.pool.matrix.row(context[-1]),
            pairs.row((context[-2], context[-1])) if len(context) > 1 else ([], []),
            self.spine.successors(context, most=_PLACES_BELOW if path else _PLACES_AT_ROOT),
            len(path) + 1,
        )

    # --- what did --------------------------------------------------------------------------------

    def _observe(self, position: int, followed: Sequence[int]) -> None:
        """Learn from every visited node; the last one's token is known next time.

        Args:
            position: Of the token that the root drew.
            followed: The tokens of the nodes visited behind the root.
        """
        walked = tuple(followed)
        visited = [self._judge(walked[:n]) for n in range(len(walked) + 1)]
        for judged, token in zip(visited, walked, strict=False):
            self.pool.blend.observe(*judged, token)
        self._awaited = _Awaited(position + len(walked), visited[-1])

    def _write(self, draft: Draft, rows: _Rows, path: Sequence[int]) -> None:
        last = self._context[-1]
        tokens = [last, *draft.tokens]
        before = self._context[-2] if len(self._context) > 1 else last
        pairs: list[Pair] = [(before, last)]
        pairs += [
            (tokens[up], token) for up, token in zip(draft.parents, draft.tokens, strict=True)
        ]
        order = write_order(draft, path)
        self.pool.matrix.update(tokens, *rows, order)
        self.pool.pairs.update(pairs, *rows, order)

    def __repr__(self) -> str:
        return f"Recycler({self.pool.tally})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a drafter holds a reply's text and is never copied nor persisted")


def _best(logits: Tensor, shaped: Mapping[int, Tensor], k: int) -> _Rows:
    """Return the best tokens of every node and their probabilities, after what the chain made."""
    ids, probs = top_k(logits, k)
    for node, scores in shaped.items():
        ids[node : node + 1], probs[node : node + 1] = top_k(scores[None], k)
    return ids.cpu().numpy(), probs.cpu().numpy()
