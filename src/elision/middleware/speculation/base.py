"""The nouns of drafting: a tree of proposed tokens, and who proposes and learns.

One forward scores the root and every proposed token; the walk then asks the unmodified chain at
the root, draws, and follows the child that carries the token drawn, as far as there is one. What
is proposed never changes the text, only the speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Mode: TypeAlias = Literal["auto", "off", "force"]
"""Draft where it pays, never, or at every step."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A tree of proposed tokens below a root that is already certain.

    Nodes come in the order in which they are worth scoring: parents before children, weights
    falling. So the first nodes of a draft are a draft themselves.

    Attributes:
        tokens: Proposed tokens; node ``i + 1`` carries ``tokens[i]``, node 0 is the root.
        parents: Parent node of each, always an earlier node.
        weights: Estimated probability that the walk reaches each node; as long as *tokens*.
        sources: Which estimate each weight came from, for whoever proposed it; may be empty.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    sources: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def child(self, node: int, token: int) -> int | None:
        """Return the child of *node* that carries *token*; the first of several; else None."""
        for index, (proposed, parent) in enumerate(zip(self.tokens, self.parents, strict=True)):
            if parent == node and proposed == token:
                return index + 1
        return None

    def first(self, n: int) -> Draft:
        """Return the draft of the first *n* proposed tokens."""
        if n >= len(self.tokens):
            return self
        return Draft(self.tokens[:n], self.parents[:n], self.weights[:n], self.sources[:n])

    @property
    def expected(self) -> float:
        """Expected tokens of a step that scores it: one, and the weight of every node."""
        return 1.0 + sum(self.weights)

    @property
    def depths(self) -> tuple[int, ...]:
        """Distance of every node from the root, the root first."""
        return _depths(self.parents)

    @property
    def ancestors(self) -> NDArray[np.bool_]:
        """Which nodes each node may attend to, itself included; shape ``(n + 1, n + 1)``."""
        return _ancestors(self.parents)


NOTHING = Draft()


@lru_cache(maxsize=256)
def _depths(parents: tuple[int, ...]) -> tuple[int, ...]:
    depths = [0]
    for parent in parents:
        depths.append(depths[parent] + 1)
    return tuple(depths)


@lru_cache(maxsize=256)
def _ancestors(parents: tuple[int, ...]) -> NDArray[np.bool_]:
    seen = np.eye(len(parents) + 1, dtype=np.bool_)
    for index, parent in enumerate(parents):
        seen[index + 1] |= seen[parent]
    seen.setflags(write=False)
    return seen


class Drafter(Protocol):
    """Proposes how one reply may go on, and learns from what became of it.

    Lives for one reply, on the engine's thread. Called in turns: `propose`, then `learn`.
    """

    def propose(self, tokens: Sequence[int], *, n: int, depth: int) -> Draft:
        """Return a draft below the last of *tokens*.

        Args:
            tokens: The reply so far; never empty. It may have been rewound since the last turn.
            n: Most tokens to propose.
            depth: Longest path to propose.
        """
        ...

    def learn(
        self,
        tokens: Sequence[int],
        draft: Draft,
        logits: Tensor,
        path: Sequence[int],
        shaped: Mapping[int, Tensor],
    ) -> None:
        """Take in what a step has shown.

        Args:
            tokens: The reply before the step, the root last.
            draft: What was scored: a draft that `propose` returned, or its first nodes.
            logits: The model's own scores behind the root and every node,
                shape ``(n + 1, vocab)``, any float type.
            path: The nodes that were visited, the root first; each drew one token, the last a
                token that no child carried, or none at all.
            shaped: Scores before temperature and truncation, shape ``(vocab,)``, of the visited
                nodes at which some recipe acted.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoDraft:
    """Proposes nothing: plain decoding is a tree of one node."""

    def propose(self, tokens: Sequence[int], *, n: int, depth: int) -> Draft:
        """See `Drafter.propose`."""
        return NOTHING

    def learn(
        self,
        tokens: Sequence[int],
        draft: Draft,
        logits: Tensor,
        path: Sequence[int],
        shaped: Mapping[int, Tensor],
    ) -> None:
        """See `Drafter.learn`."""
