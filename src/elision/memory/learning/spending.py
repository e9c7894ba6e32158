"""What an episode spent, role by role."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from math import inf
from typing import Final, Literal, TypeAlias, get_args

from sqlalchemy import Connection, insert, select

from elision.errors import RequestError
from elision.memory.records import LONGEST_LABEL, check_label
from elision.memory.schema import ledger

Role: TypeAlias = Literal[
    "student", "teacher", "judge", "arbiter", "distiller", "probe", "embedder", "guard"
]
_MOST: Final = 2**31 - 1
"""What PostgreSQL's INTEGER holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the calls of one role to one model used.

    Attributes:
        role: Who called.
        model: The model's alias; never a prompt.
        calls: How often.
        tokens_in: Of the prompts, the cached ones among them.
        tokens_cached: Of the prompts, read from a cache.
        tokens_out: Of the answers.
        wall_ms: Milliseconds, summed over the calls.
        cost: In the price table's currency.
        estimated: Whether the backend told no usage, so that tokens were counted from the text.

    Raises:
        RequestError: If a figure is negative, not finite or too large, more is cached than came
            in, or the role is unknown.
    """

    role: Role
    model: str
    calls: int = 1
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    wall_ms: float = 0.0
    cost: float = 0.0
    estimated: bool = False

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise RequestError(f"a role is one of {', '.join(get_args(Role))}", param="role")
        check_label(self.model, "model", most=LONGEST_LABEL)
        counts = (self.calls, self.tokens_in, self.tokens_cached, self.tokens_out)
        if not all(0 <= n <= _MOST for n in counts) or self.tokens_cached > self.tokens_in:
            raise RequestError("calls and tokens are counts, and what is cached came in")
        if not (0 <= self.wall_ms < inf and 0 <= self.cost < inf):
            raise RequestError("time and cost are finite, and never negative")

    @property
    def tokens(self) -> int:
        """In and out; a cached token counts, for its price is the cost's affair."""
        return self.tokens_in + self.tokens_out


_COLUMNS: Final = tuple(ledger.c[field.name] for field in fields(Spent))


def write(connection: Connection, episode: str, rows: Iterable[Spent]) -> None:
    """Add *rows* to the ledger of *episode*."""
    names = [column.name for column in _COLUMNS]
    told = [{"episode": episode, **dict(zip(names, astuple(r), strict=True))} for r in rows]
    if told:
        connection.execute(insert(ledger), told)


def read(connection: Connection, episode: str) -> tuple[Spent, ...]:
    """Return the ledger of *episode*, in the order in which it was written."""
    query = select(*_COLUMNS).where(ledger.c.episode == episode).order_by(ledger.c.id)
    return tuple(Spent(**row) for row in connection.execute(query).mappings())
