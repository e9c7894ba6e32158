"""Recipes that break on purpose: what a law-abiding engine must survive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from elision.contract import ALLOW, Context, Here, Stage, Verdict

if TYPE_CHECKING:
    from torch import Tensor

Where: TypeAlias = Literal["begin", "adjust", "advance", "held", "verdict", "finish"]
PLACES: tuple[Where, ...] = ("begin", "adjust", "advance", "held", "verdict", "finish")
"""Where a recipe can break."""


class BrokenGuardError(RuntimeError):
    """What a `Breaking` recipe raises: not one of ours, as a bug in a plug-in would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaking:
    """A guard that works for a while, then raises.

    Attributes:
        where: The method that raises.
        after: Tokens that are judged before it does; `begin` raises at once.
        secret: What the exception's text gives away; an engine must not pass it on.
    """

    where: Where = "adjust"
    after: int = 0
    secret: str = ""
    stage: ClassVar[Stage] = Stage.HARD_MASK
    rank: ClassVar[int] = 0

    def begin(self, context: Context) -> BreakingSession:
        """Open a session, or break."""
        session = BreakingSession(self)
        session._reach("begin")
        return session


@dataclass(frozen=True, slots=True)
class BreakingSession:
    """A session of a `Breaking` recipe; it acts on nothing and lets all text leave at once."""

    recipe: Breaking
    position: int = 0

    @property
    def _due(self) -> int:
        match self.recipe.where:
            case "begin":
                return 0
            case "held" | "verdict":  # asked once a token has been taken in: that one is unjudged
                return self.recipe.after + 1
            case _:
                return self.recipe.after

    def _reach(self, where: Where) -> None:
        if where == self.recipe.where and self.position >= self._due:
            raise BrokenGuardError(f"broken on purpose in {where} {self.recipe.secret}".strip())

    @property
    def held(self) -> int:
        """Nothing is held."""
        self._reach("held")
        return 0

    @property
    def verdict(self) -> Verdict:
        """Everything is allowed."""
        self._reach("verdict")
        return ALLOW

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return *logits*."""
        self._reach("adjust")
        return logits

    def advance(self, token: int) -> BreakingSession:
        """Return the session after *token*."""
        self._reach("advance")
        return replace(self, position=self.position + 1)

    def finish(self) -> BreakingSession:
        """Return the session after the end."""
        self._reach("finish")
        return self
