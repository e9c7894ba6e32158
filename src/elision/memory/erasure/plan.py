"""What an erasure would take, counted before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elision.memory.erasure.closure import closure, counts, emptied

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.erasure.selector import Criteria


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes.

    Attributes:
        counts: Rows per table; see `Receipt.counts`.
        rids: The records' numbers.
        spaces: Ids of the namespaces in which nothing is left.
    """

    counts: Mapping[str, int]
    rids: frozenset[int] = field(repr=False)
    spaces: tuple[int, ...] = field(repr=False)


def planned(connection: Connection, criteria: Criteria) -> Plan:
    """Return what erasing *criteria* takes, as the database stands."""
    rids = closure(connection, criteria)
    spaces = emptied(connection, criteria, rids)
    return Plan(counts=counts(connection, rids, len(spaces)), rids=rids, spaces=spaces)
