"""Which tokens to draft: the paper's tree of 80, and the best tree of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.stats import rank_prior

if TYPE_CHECKING:
    from elision.middleware.speculation.matrix import RecycleMatrix

Path: TypeAlias = tuple[int, ...]
"""Tokens below the root, down to a node; empty for the root."""

Candidate: TypeAlias = tuple[int, float, int]
"""A token, the probability that it comes if its parent does, and the source that says so."""


_PROB: Final = itemgetter(1)


@dataclass(frozen=True, slots=True)
class TreeShape:
    """A tree of ranks: every node is the rank-th successor of its parent's token.

    Nodes come in the order of their worth under `rank_prior`; parents before children.

    Attributes:
        parents: Parent of each node; 0 is the root, node ``i + 1`` stands at index i.
        ranks: Which successor of its parent each node is.
        weights: The prior probability that the walk reaches each node.
    """

    parents: tuple[int, ...]
    ranks: tuple[int, ...]
    weights: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.parents)

    @classmethod
    def of(cls, child_counts: Sequence[Sequence[int]]) -> TreeShape:
        """Return the shape in which nodes have so many children, of ranks 0 and up.

        Args:
            child_counts: Per level, the root's first, the number of children of each of its nodes
                from left to right.
        """
        return cls.of_paths(_paths(child_counts))

    @classmethod
    def of_paths(cls, paths: Iterable[Path]) -> TreeShape:
        """Return the shape whose nodes are these paths of ranks; prefixes must be among them."""
        ordered = sorted(paths, key=lambda path: (-_worth(path), len(path), path))
        node = {(): 0} | {path: index + 1 for index, path in enumerate(ordered)}
        return cls(
            tuple(node[path[:-1]] for path in ordered),
            tuple(path[-1] for path in ordered),
            tuple(_worth(path) for path in ordered),
        )


def _paths(child_counts: Sequence[Sequence[int]]) -> Iterator[Path]:
    level: list[Path] = [()]
    for counts in child_counts:
        level = [(*path, rank) for path, n in zip(level, counts, strict=True) for rank in range(n)]
        yield from level


def _worth(path: Path) -> float:
    worth = 1.0
    for rank in path:
        worth *= rank_prior(rank)
    return worth


STATIC_80: Final = TreeShape.of(
    (
        (8,),
        (8, 4, 3, 2, 1, 1, 1, 1),
        (8, 3, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0),
        (5, 2, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0),
        (3, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0),
        (2, 0, 0, 1, 0, 0, 0, 0),
    )
)
"""The tree of the paper: 80 nodes, six deep.

Source: Luo et al. 2024, arXiv:2408.08696, figure 5; the counts are those of the authors' code.
"""


def static_draft(root: int, matrix: RecycleMatrix, shape: TreeShape = STATIC_80) -> Draft:
    """Return *shape* filled with the successors of *root*, as far as rows are written.

    For reproduction: what a size costs on the machine, and what a row is worth, is not asked.
    """
    tokens, parents, weights = [root], [0], [1.0]
    rows: dict[int, list[int]] = {}
    kept = {0: 0}
    for index, (parent, rank) in enumerate(zip(shape.parents, shape.ranks, strict=True)):
        if (above := kept.get(parent)) is None:
            continue
        if above not in rows:
            rows[above] = matrix.row(tokens[above])[0]
        if rank < len(rows[above]):
            kept[index + 1] = len(tokens)
            tokens.append(rows[above][rank])
            parents.append(above)
            weights.append(shape.weights[index])
    return Draft(tuple(tokens[1:]), tuple(parents[1:]), tuple(weights[1:]))


def best_first(
    children: Callable[[Path], Iterable[Candidate]],
    *,
    n: int,
    depth: int,
    floor: float = 0.0,
) -> Draft:
    """Return the *n* nodes that the walk is likeliest to reach.

    A node's weight is the product of the probabilities along its path, so no child outweighs its
    parent, and taking the best node at hand each time gives the best tree of every size.
    Candidates of several sources are estimates of the same event: of those with one token the
    likeliest counts. What the candidates below one node claim together is cut, the least likely
    first, where it exceeds certainty.

    Args:
        children: The candidates below a path, in any order; asked once per node, the root first.
        n: Most nodes.
        depth: Longest path.
        floor: Only nodes with a greater weight are taken.

    Returns:
        A draft with weights falling and sources as given; equal weights in the order found.

    Source: EAGLE-2 (arXiv:2406.16858) and OPT-Tree (arXiv:2406.17276) rank nodes so; several
    sources in one tree after RACER (arXiv:2604.14885). The rule for claims is our own.
    """
    if n < 1 or depth < 1:
        return NOTHING
    taken: list[tuple[int, int, float, int]] = []
    heap: list[_Offer] = []
    serial = count()

    def offer(parent: int, path: Path, siblings: Iterator[Candidate]) -> None:
        for token, weight, source in siblings:
            heappush(heap, (-weight, next(serial), token, source, parent, path, siblings))
            return

    offer(0, (), _claims(children(()), 1.0, floor))
    while heap:
        negative, _, token, source, parent, path, siblings = heappop(heap)
        taken.append((token, parent, -negative, source))
        if len(taken) == n:
            break
        offer(parent, path, siblings)
        if len(path) + 1 < depth:
            below = (*path, token)
            offer(len(taken), below, _claims(children(below), -negative, floor))
    return Draft(*zip(*taken, strict=True)) if taken else NOTHING


_Offer: TypeAlias = tuple[float, int, int, int, int, Path, Iterator[Candidate]]


def _claims(candidates: Iterable[Candidate], above: float, floor: float) -> Iterator[Candidate]:
    """Yield the children of a node of weight *above* with weights of their own, falling."""
    left = 1.0
    seen = set()
    sane = [candidate for candidate in candidates if candidate[1] > 0.0]  # neither 0 nor NaN
    for token, prob, source in sorted(sane, key=_PROB, reverse=True):
        if token in seen:
            continue
        seen.add(token)
        claim = min(prob, left)
        left -= claim
        if not above * claim > floor:
            return
        yield token, above * claim, source
