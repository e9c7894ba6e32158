"""The lazy walk: the only verifier. Sample, then look whether the draft had guessed it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from elision.contract import BranchKey
from elision.middleware.speculation.base import Draft

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Walk:
    """What one step of a reply came to.

    Attributes:
        before: The reply before it, the root last.
        path: Nodes visited, the root first.
        shaped: Scores before temperature, shape ``(vocab,)``, of the nodes at which a recipe acted.
        n_written: Tokens written, those included that a rewind took back.
    """

    before: tuple[int, ...] = field(repr=False)
    path: list[int] = field(default_factory=lambda: [0])
    shaped: dict[int, Tensor] = field(default_factory=dict)
    n_written: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """What a walk waits for: other scores at the node it stands on.

    Attributes:
        keys: Which.
        node: The node of the draft; None before the first token, where only a prompt was read.
    """

    keys: tuple[BranchKey, ...]
    node: int | None


Answers: TypeAlias = "Mapping[BranchKey, Tensor]"
"""Other scores for a position, shape ``(vocab,)``, by what was asked for."""
Visit: TypeAlias = Generator[Need, Answers, int | None]
"""Yields what it needs, is sent the answers, and returns the token where the walk may go on."""
Walking: TypeAlias = Generator[Need, Answers, Walk]


def walk(draft: Draft, visit: Callable[[Walk], Visit], *, before: tuple[int, ...]) -> Walking:
    """Visit the root, then the child that carries the token drawn there, and so on.

    The token of every position is drawn by the same function of (true prefix, the model's scores,
    state of the draw) as without a draft; the draft decides only whether the scores of the next
    position are there already. So the text is the same for any sampler and any recipe, stateful
    ones included, and each is asked once per token, in order. No rejection scheme accepts more.

    A generator, so that whoever runs several walks can fetch what all of them need in one forward.

    Args:
        draft: What was scored.
        visit: Draws the token of the last node of the path and enters what that came to; returns
            the token, or None where the walk must end with it or without one.
        before: The reply before the step, the root last.

    Source:
        Sample-then-match, token_recycling.md 3.2 and 3.3 (algorithm W); the greedy case is that of
        Luo et al. 2024, arXiv:2408.08696.
    """
    done = Walk(before)
    while (token := (yield from visit(done))) is not None:
        child = draft.child(done.path[-1], token)
        if child is None:
            break
        done.path.append(child)
    return done


def needing_nothing(visit: Callable[[Walk], int | None]) -> Callable[[Walk], Visit]:
    """Return *visit*, which needs no other scores, as `walk` takes it."""

    def ask_nothing(done: Walk) -> Visit:
        yield from ()
        return visit(done)

    return ask_nothing
