"""Episodes as they were: read, listed, and found by how alike their tasks are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import Row, select

from elision.errors import NotFoundError
from elision.memory.bodies import Place
from elision.memory.learning import spending
from elision.memory.learning.exposures import read
from elision.memory.learning.outcomes import EPISODE, REWARDED, Episode, Past
from elision.memory.records import Scope
from elision.memory.rooms import Rooms
from elision.memory.schema import episodes, records, spaces

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sqlalchemy import Connection, Select

    from elision.memory.learning.exposures import Exposure
    from elision.memory.learning.spending import Spent
    from elision.memory.store import Store

_DAY_S: Final = 86_400.0
_WHOLE: Final = (
    select(episodes, records.c.id.label("record"), spaces.c.body, spaces.c.key_id)
    .join(spaces, spaces.c.id == episodes.c.space)
    .outerjoin(records, records.c.rid == episodes.c.rid)
)


class History:
    """What is asked of a store's episodes; see `Episodes`, which writes them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, tenant: str, episode: str) -> Episode:
        """Return an episode.

        Raises:
            NotFoundError: If *tenant* has no such episode.
        """
        with self._store.reading() as connection:
            row = connection.execute(_WHOLE.where(episodes.c.id == episode)).one_or_none()
            return self._episode(mine(row, tenant))

    def list(
        self, scope: Scope, *, limit: int = 100, after: str | None = None
    ) -> tuple[Episode, ...]:
        """Return the episodes of exactly *scope*, oldest first.

        Args:
            scope: Where.
            limit: At most so many.
            after: Only those beyond this one.
        """
        query = _WHOLE.where(episodes.c.id > (after or "")).order_by(episodes.c.id).limit(limit)
        with self._store.reading() as connection:
            return tuple(map(self._episode, self._here(connection, scope, query)))

    def tasks(self, scope: Scope, n: int = 50) -> tuple[str, ...]:
        """Return the words of the last *n* tasks of exactly *scope* that may be shown."""
        query = _WHOLE.where(episodes.c.rid.is_not(None)).order_by(episodes.c.id.desc()).limit(n)
        with self._store.reading() as connection:
            ids = [row.record for row in self._here(connection, scope, query)]
        return tuple(record.text for record in self._store.find(scope.tenant, ids))

    def exposures(self, tenant: str, episode: str) -> tuple[Exposure, ...]:
        """Return what an episode met and still stands, in the order of packing.

        Raises:
            NotFoundError: If *tenant* has no such episode.
        """
        with self._store.reading() as connection:
            mine(row_of(connection, episode), tenant)
            return read(connection, episode)

    def spent(self, tenant: str, episode: str) -> tuple[Spent, ...]:
        """Return an episode's ledger.

        Raises:
            NotFoundError: If *tenant* has no such episode.
        """
        with self._store.reading() as connection:
            mine(row_of(connection, episode), tenant)
            return spending.read(connection, episode)

    def neighbours(self, scope: Scope, vector: ArrayLike, k: int = 32) -> tuple[Past, ...]:
        """Return the *k* most similar episodes of exactly *scope* whose reward is known.

        Args:
            scope: Where.
            vector: Of the task, shape ``(D,)``.
            k: At most so many.
        """
        found = self._store.search(
            scope, vector, k, kinds=(EPISODE,), states=(REWARDED,), deep=False
        )
        near = {hit.record.key: hit.similarity or 0.0 for hit in found.hits}
        with self._store.reading() as connection:
            rows = connection.execute(select(episodes).where(episodes.c.id.in_(near))).all()
        past = (
            _past(row, near[row.id], self._store.clock()) for row in rows if row.reward is not None
        )
        return tuple(sorted(past, key=lambda one: (-one.similarity, one.episode)))

    def _here(self, connection: Connection, scope: Scope, query: Select[Any]) -> Sequence[Row[Any]]:
        place = rooms(connection, self._store).find(scope)
        if place is None:
            return ()
        return connection.execute(query.where(episodes.c.space == place.space)).all()

    def _episode(self, row: Row[Any]) -> Episode:
        place = Place(row.tenant, row.space, row.key_id)
        labels = self._store.bodies.namespace(place, bytes(row.body)) if row.body else ()
        names = ("id", "record", "state", "mode", "lane", "retried", "reward", "success",
                 "rewarded_by", "tokens", "cost", "started_at", "ended_at")  # fmt: skip
        return Episode(
            scope=Scope(row.tenant, labels),
            decision=orjson.loads(row.decision),
            **{name: row._mapping[name] for name in names},
        )


def row_of(connection: Connection, episode: str) -> Row[Any] | None:
    """Return the row of *episode*."""
    return connection.execute(select(episodes).where(episodes.c.id == episode)).one_or_none()


def mine(row: Row[Any] | None, tenant: str | None) -> Row[Any]:
    """Return *row*.

    Raises:
        NotFoundError: If there is none, or it is not *tenant*'s.
    """
    if row is None or (tenant is not None and row.tenant != tenant):
        raise NotFoundError("there is no such episode", code="episode_not_found")
    return row


def rooms(connection: Connection, store: Store) -> Rooms:
    """Return the namespaces as a transaction sees them."""
    return Rooms(connection, store.bodies, store.keys.vault)


def _past(row: Row[Any], similarity: float, now: float) -> Past:
    return Past(
        episode=row.id,
        similarity=similarity,
        reward=row.reward,
        lane=row.lane,
        retried=row.retried,
        age_days=max(0.0, now - row.started_at) / _DAY_S,
    )
