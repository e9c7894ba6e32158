"""The seam for drafting: propose a tree of tokens, score it in one forward, walk it lazily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Draft:
    """A tree of proposed tokens below a root that is already certain.

    Attributes:
        tokens: Proposed tokens; node ``i + 1`` carries ``tokens[i]``, node 0 is the root.
        parents: Parent node of each, always an earlier node.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()

    def child(self, node: int, token: int) -> int | None:
        """Return the child of *node* that carries *token*; the first of several; else None."""
        for index, (proposed, parent) in enumerate(zip(self.tokens, self.parents, strict=True)):
            if parent == node and proposed == token:
                return index + 1
        return None


class Drafter(Protocol):
    """Proposes what may come next. What it proposes never changes the text, only the speed."""

    def propose(self, tokens: Sequence[int], *, budget: int) -> Draft:
        """Return a draft that continues *tokens* by at most *budget* tokens in depth."""
        ...


@dataclass(frozen=True, slots=True)
class NoDraft:
    """Proposes nothing: plain decoding is a tree of one node."""

    def propose(self, tokens: Sequence[int], *, budget: int) -> Draft:
        """See `Drafter.propose`."""
        return Draft()
