"""What an episode costs, over all roles; nothing that speaks is left out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from elision.agents.speaking import Said
from elision.memory.learning.spending import Role as Role
from elision.memory.learning.spending import Spent as Spent


class Price(BaseModel):
    """What a model costs per million tokens, in any one currency.

    Attributes:
        input: Read afresh.
        cached: Read from a cache; None: as `input`.
        output: Written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    cached: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    output: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def of(self, spent: Spent) -> float:
        """Return the cost of *spent*."""
        cached = min(spent.tokens_cached, spent.tokens_in)
        dear = (spent.tokens_in - cached) * self.input + spent.tokens_out * self.output
        return (dear + cached * (self.input if self.cached is None else self.cached)) / 1e6


def spent_on(role: Role, model: str, said: Said) -> Spent:
    """Return the row of one call, not yet priced."""
    usage = said.usage
    return Spent(
        role=role,
        model=model,
        tokens_in=usage.prompt_tokens,
        tokens_cached=min(usage.cached_tokens, usage.prompt_tokens),
        tokens_out=usage.completion_tokens,
        wall_ms=said.wall_ms,
        estimated=said.estimated,
    )


def priced(rows: Iterable[Spent], prices: Mapping[str, Price]) -> tuple[Spent, ...]:
    """Return *rows* with their cost; a row that has one, or a model without a price, stays."""
    return tuple(
        replace(row, cost=prices[row.model].of(row))
        if not row.cost and row.model in prices
        else row
        for row in rows
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over rows of a ledger.

    Attributes:
        calls: Of any model.
        tokens_in: Read.
        tokens_cached: Those of them from a cache.
        tokens_out: Written.
        wall_ms: Milliseconds, as if nothing ran side by side.
        cost: In the currency of the prices.
        estimated: Whether any row was.
    """

    calls: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    wall_ms: float = 0.0
    cost: float = 0.0
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.tokens_in + self.tokens_out

    @classmethod
    def of(cls, rows: Iterable[Spent]) -> Totals:
        """Return the sums over *rows*."""
        kept = tuple(rows)
        return cls(
            sum(row.calls for row in kept),
            sum(row.tokens_in for row in kept),
            sum(row.tokens_cached for row in kept),
            sum(row.tokens_out for row in kept),
            sum(row.wall_ms for row in kept),
            sum(row.cost for row in kept),
            any(row.estimated for row in kept),
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that an episode spent, in the order in which it did.

    Attributes:
        rows: One per call or per role's turn.
    """

    rows: tuple[Spent, ...] = ()

    @property
    def total(self) -> Totals:
        """Over all roles: what the episode really cost."""
        return Totals.of(self.rows)

    @property
    def student(self) -> Totals:
        """The student's only: what others report."""
        return self.of("student")

    @property
    def roles(self) -> Mapping[Role, Totals]:
        """Sums of each role that spent anything."""
        found: dict[Role, None] = {row.role: None for row in self.rows}
        return {role: self.of(role) for role in found}

    def of(self, role: Role) -> Totals:
        """Return the sums of one role."""
        return Totals.of(row for row in self.rows if row.role == role)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may still be spent; asked before each call, so only the calls that run then overdraw.

    One after the other that is one call; side by side, each of those that run at once.

    Attributes:
        tokens: Left; None: without limit.
        cost: Left; None: without limit.
        until: When no further call is begun, by `time.monotonic`; None: never.
        prices: What calls cost that bring no cost of their own.
    """

    tokens: int | None = None
    cost: float | None = None
    until: float | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether another call may begin."""
        return (
            (self.tokens is None or self.tokens > 0)
            and (self.cost is None or self.cost > 0)
            and (self.until is None or time.monotonic() < self.until)
        )

    def after(self, rows: Iterable[Spent]) -> Allowance:
        """Return what *rows* leave."""
        total = Totals.of(priced(rows, self.prices))
        return replace(
            self,
            tokens=None if self.tokens is None else self.tokens - total.tokens,
            cost=None if self.cost is None else self.cost - total.cost,
        )

    def shared(self, n: int) -> Allowance:
        """Return the share of each of *n* that spend side by side."""
        return replace(
            self,
            tokens=None if self.tokens is None else self.tokens // n,
            cost=None if self.cost is None else self.cost / n,
        )

    def least(self, other: Allowance) -> Allowance:
        """Return what both allow."""
        tokens = [n for n in (self.tokens, other.tokens) if n is not None]
        cost = [c for c in (self.cost, other.cost) if c is not None]
        return replace(self, tokens=min(tokens, default=None), cost=min(cost, default=None))

    def reply(self, most: int) -> int:
        """Return how many tokens a reply may have: *most*, or what is left, and at least 1."""
        return max(1, most if self.tokens is None else min(most, self.tokens))
