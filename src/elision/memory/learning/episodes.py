"""What agents did: one episode a task, with what it met, what it spent and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import Row, insert, select, update

from elision.errors import ConflictError, NotFoundError, RequestError
from elision.memory.bodies import Place
from elision.memory.drafts import check_code
from elision.memory.learning import exposures, spending
from elision.memory.learning.outcomes import (
    EPISODE,
    RANK,
    REWARDED,
    RUNNING,
    SUCCESS,
    Episode,
    Past,
    check_ending,
    check_id,
    check_reward,
    new_id,
    outcome_of,
)
from elision.memory.records import Draft, Scope, Trust
from elision.memory.rooms import Rooms
from elision.memory.schema import episodes, records, spaces

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sqlalchemy import Connection, Select

    from elision.memory.index.vectors import Vectors
    from elision.memory.learning.drawing import Mode
    from elision.memory.learning.exposures import Exposure
    from elision.memory.learning.outcomes import By, Ending
    from elision.memory.learning.playbook import Playbook
    from elision.memory.learning.spending import Spent
    from elision.memory.store import Store
    from elision.memory.writing import Writing

LONGEST_DECISION: Final = 16_384
"""Bytes of what is kept of how a lane was chosen."""
_MODES: Final = ("on", "frozen", "shadow")
_DAY_S: Final = 86_400.0


class Episodes:
    """Episodes in a store; thread-safe, and safe among processes.

    Whatever changes what an episode counts for, in any order and however often it is sent, changes
    the evidence of the entries that it met in the same transaction, and moves them. So the
    evidence is at all times that of the rewards, tokens and costs that stand in the rows.

    Args:
        store: Where.
        playbook: Whose entries it counts for.
    """

    def __init__(self, store: Store, playbook: Playbook) -> None:
        self._store = store
        self._playbook = playbook

    # --- while it runs ---------------------------------------------------------------------------

    def begin(
        self,
        scope: Scope,
        task: str,
        *,
        mode: Mode,
        lane: str,
        decision: Mapping[str, Any] | None = None,
        exposures: Sequence[Exposure] = (),
        subjects: Iterable[str] = (),
        trust: Trust = Trust.USER,
        vector: Vectors | None = None,
        episode: str | None = None,
    ) -> str:
        """Write down that an episode begins; to be called before anything acts on its selection.

        What an entry counts in is told here and never later, so none is counted in the episode
        that it was made from.

        Args:
            scope: Where.
            task: The task's words. Not kept in ``frozen``, nor where they may not be remembered:
                then there is no record of the episode, but its figures.
            mode: ``frozen`` keeps no exposures; ``shadow`` keeps them, uncounted.
            lane: How closely it will be supervised, as a code.
            decision: How the lane was chosen: figures and codes, never words.
            exposures: The selection's.
            subjects: Ids of the persons that the task is about, for erasure.
            trust: In the task's words, and so in all that is made from them.
            vector: Of the task; None: encoded here.
            episode: Its id, from `new_id`; None: a new one.

        Returns:
            Its id.

        Raises:
            ConflictError: If there is such an episode.
            RequestError: If the mode is ``off``, or something cannot be kept as it is.
        """
        name = new_id(self._store.clock()) if episode is None else episode
        row = _first(name, mode, lane, decision)
        draft = None
        if mode != "frozen":
            vector = self._encoded(scope.tenant, task) if vector is None else vector
            draft = Draft(
                text=task, key=name, kind=EPISODE, trust=trust, subjects=frozenset(subjects)
            )
        with self._store.writing() as writing:
            if _row(writing.connection, name) is not None:
                raise ConflictError("there is an episode of that id", code="episode_exists")
            rid = None if draft is None else _kept(writing, scope, draft, vector)
            place = _rooms(writing.connection, self._store).enter(scope)
            row |= {"tenant": scope.tenant, "space": place.space, "rid": rid}
            writing.connection.execute(insert(episodes), {**row, "started_at": writing.now})
            if mode != "frozen":
                _meet(writing.connection, scope.tenant, name, exposures)
        return name

    def spend(self, episode: str, rows: Iterable[Spent]) -> None:
        """Add to an episode's ledger; what is spent after its end still counts.

        Raises:
            NotFoundError: If there is no such episode.
        """
        told = tuple(rows)
        with self._changing(episode) as (writing, _):
            spending.write(writing.connection, episode, told)
            more = {
                "tokens": episodes.c.tokens + sum(row.tokens for row in told),
                "cost": episodes.c.cost + sum(row.cost for row in told),
            }
            _set(writing.connection, episode, more)

    def end(
        self,
        episode: str,
        *,
        state: Ending,
        retried: bool = False,
        adopted: Collection[str] = (),
    ) -> None:
        """Write down how an episode ended. The first end stands; a later one does nothing.

        Args:
            episode: Which.
            state: How.
            retried: Whether there was more than one attempt.
            adopted: Ids of the shown entries whose advice was followed; the others were not.

        Raises:
            NotFoundError: If there is no such episode.
        """
        check_ending(state)
        with self._changing(episode) as (writing, row):
            if row.ended_at is None:
                told = {"state": state, "retried": retried, "ended_at": writing.now}
                _set(writing.connection, episode, told)
                exposures.adopt(writing.connection, episode, adopted)

    def recover(self, older_than_s: float) -> int:
        """Abort the episodes that have run for so long that their process must have died.

        Should one of them end after all, that end stands.

        Args:
            older_than_s: Seconds since they began.

        Returns:
            How many.
        """
        with self._store.reading() as connection:
            query = select(episodes.c.id).where(
                episodes.c.state == RUNNING,
                episodes.c.started_at < self._store.clock() - older_than_s,
            )
            stale = connection.scalars(query).all()
        n_aborted = 0
        for episode in stale:
            with self._changing(episode) as (writing, row):
                if row.state == RUNNING:
                    _set(writing.connection, episode, {"state": "aborted"})
                    n_aborted += 1
        return n_aborted

    # --- afterwards ------------------------------------------------------------------------------

    def reward(
        self,
        tenant: str,
        episode: str,
        reward: float,
        *,
        success: bool | None = None,
        by: By = "env",
    ) -> bool:
        """Say what came of an episode; counted once, at its end or now, whichever is later.

        A reward takes the place of one from a source of lower rank, as if that had never been
        given; from one of the same or higher rank it is not taken.

        Args:
            tenant: Whose.
            episode: Which.
            reward: 0 to 1.
            success: Whether it counts as done; None: from a reward of `SUCCESS` on.
            by: Who says so.

        Returns:
            Whether it was taken.

        Raises:
            NotFoundError: If *tenant* has no such episode.
            RequestError: If it is no reward.
        """
        check_reward(reward, by)
        with self._changing(episode, tenant) as (writing, row):
            if row.rewarded_by is not None and RANK[by] <= RANK[row.rewarded_by]:
                return False
            done = reward >= SUCCESS if success is None else success
            told = {"reward": float(reward), "success": done, "rewarded_by": by}
            _set(writing.connection, episode, told)
            if row.rid is not None and row.rewarded_by is None:
                _tell(writing, tenant, row.rid)
            return True

    # --- what is asked of them -------------------------------------------------------------------

    def get(self, tenant: str, episode: str) -> Episode:
        """Return an episode.

        Raises:
            NotFoundError: If *tenant* has no such episode.
        """
        with self._store.reading() as connection:
            row = connection.execute(_WHOLE.where(episodes.c.id == episode)).one_or_none()
            return self._episode(_mine(row, tenant))

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
            _mine(_row(connection, episode), tenant)
            return exposures.read(connection, episode)

    def spent(self, tenant: str, episode: str) -> tuple[Spent, ...]:
        """Return an episode's ledger.

        Raises:
            NotFoundError: If *tenant* has no such episode.
        """
        with self._store.reading() as connection:
            _mine(_row(connection, episode), tenant)
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

    # --- transactions ----------------------------------------------------------------------------

    @contextmanager
    def _changing(
        self, episode: str, tenant: str | None = None
    ) -> Iterator[tuple[Writing, Row[Any]]]:
        """Open a transaction on an episode's row; at its end, count what it then counts for."""
        with self._store.writing() as writing:
            connection = writing.connection
            row = _mine(_row(connection, episode), tenant)
            was = exposures.met(connection, episode)
            yield writing, row
            after = outcome_of(_mine(_row(connection, episode), tenant))
            if after is not None:
                changed = exposures.count(connection, episode, was, outcome_of(row), after)
                self._playbook.learn(writing, row.tenant, changed)

    def _encoded(self, tenant: str, task: str) -> Vectors | None:
        rows = self._store.encoded(tenant, [task])
        return None if rows is None else rows[0]

    def _here(self, connection: Connection, scope: Scope, query: Select[Any]) -> Sequence[Row[Any]]:
        place = _rooms(connection, self._store).find(scope)
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


_WHOLE: Final = (
    select(episodes, records.c.id.label("record"), spaces.c.body, spaces.c.key_id)
    .join(spaces, spaces.c.id == episodes.c.space)
    .outerjoin(records, records.c.rid == episodes.c.rid)
)


def _first(
    episode: str, mode: str, lane: str, decision: Mapping[str, Any] | None
) -> dict[str, Any]:
    check_id(episode)
    check_code(lane, "lane")
    if mode not in _MODES:
        raise RequestError(f"an episode's mode is one of {', '.join(_MODES)}", param="mode")
    return {
        "id": episode,
        "state": RUNNING,
        "mode": mode,
        "lane": lane,
        "decision": _dumped(decision or {}),
        "retried": False,
        "tokens": 0,
        "cost": 0.0,
    }


def _dumped(decision: Mapping[str, Any]) -> str:
    try:
        told = orjson.dumps(dict(decision))
    except TypeError:
        raise RequestError("a decision is told in figures and codes", param="decision") from None
    if len(told) > LONGEST_DECISION:
        raise RequestError(
            f"a decision takes {len(told)} bytes; the most are {LONGEST_DECISION}", param="decision"
        )
    return told.decode()


def _kept(writing: Writing, scope: Scope, draft: Draft, vector: Vectors | None) -> int | None:
    """Keep a task's words; return their record, or None if they may not be remembered."""
    try:
        return writing.rid_of(scope.tenant, writing.put(scope, draft, vector).id)
    except RequestError as exc:
        if exc.code != "screened":
            raise
        return None


def _meet(connection: Connection, tenant: str, episode: str, met: Sequence[Exposure]) -> None:
    exposures.write(connection, tenant, episode, met)


def _tell(writing: Writing, tenant: str, rid: int) -> None:
    """Let an episode's record be found by those that ask for rewarded ones."""
    record = writing.connection.scalar(select(records.c.id).where(records.c.rid == rid))
    try:
        writing.change(tenant, str(record), state=REWARDED)
    except (NotFoundError, RequestError) as exc:
        # Expired, or forbidden since it was written: nobody will find it, and its figures count.
        if exc.code not in ("record_not_found", "screened"):
            raise


def _row(connection: Connection, episode: str) -> Row[Any] | None:
    return connection.execute(select(episodes).where(episodes.c.id == episode)).one_or_none()


def _mine(row: Row[Any] | None, tenant: str | None) -> Row[Any]:
    if row is None or (tenant is not None and row.tenant != tenant):
        raise NotFoundError("there is no such episode", code="episode_not_found")
    return row


def _set(connection: Connection, episode: str, values: Mapping[str, Any]) -> None:
    connection.execute(update(episodes).where(episodes.c.id == episode).values(**values))


def _rooms(connection: Connection, store: Store) -> Rooms:
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
