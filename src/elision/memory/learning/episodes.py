"""What agents did: one episode a task, with what it met, what it spent and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, insert, select, update

from elision.errors import ConflictError, NotFoundError, RequestError
from elision.memory.learning import spending
from elision.memory.learning.exposures import adopt, count, meet, met
from elision.memory.learning.history import History, mine, rooms, row_of
from elision.memory.learning.outcomes import (
    EPISODE,
    RANK,
    REWARDED,
    RUNNING,
    SUCCESS,
    check_ending,
    check_reward,
    first_row,
    new_id,
    outcome_of,
)
from elision.memory.records import Draft, Scope, Trust
from elision.memory.schema import episodes, records

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.index.vectors import Vectors
    from elision.memory.learning.drawing import Mode
    from elision.memory.learning.exposures import Exposure
    from elision.memory.learning.outcomes import By, Ending
    from elision.memory.learning.playbook import Playbook
    from elision.memory.learning.spending import Spent
    from elision.memory.store import Store
    from elision.memory.writing import Writing


class Episodes(History):
    """Episodes in a store; thread-safe, and safe among processes.

    Whatever changes what an episode counts for, in any order and however often it is sent, changes
    the evidence of the entries that it met in the same transaction, and moves them. So the
    evidence is at all times that of the rewards, tokens and costs that stand in the rows.

    Args:
        store: Where.
        playbook: Whose entries it counts for.
    """

    def __init__(self, store: Store, playbook: Playbook) -> None:
        super().__init__(store)
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
        row = first_row(name, mode, lane, decision)
        draft = None
        if mode != "frozen":
            vector = self._encoded(scope.tenant, task) if vector is None else vector
            draft = Draft(
                text=task, key=name, kind=EPISODE, trust=trust, subjects=frozenset(subjects)
            )
        with self._store.writing() as writing:
            if row_of(writing.connection, name) is not None:
                raise ConflictError("there is an episode of that id", code="episode_exists")
            rid = None if draft is None else _kept(writing, scope, draft, vector)
            place = rooms(writing.connection, self._store).enter(scope)
            row |= {"tenant": scope.tenant, "space": place.space, "rid": rid}
            writing.connection.execute(insert(episodes), {**row, "started_at": writing.now})
            if mode != "frozen":
                meet(writing.connection, scope.tenant, name, exposures)
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
                adopt(writing.connection, episode, adopted)

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

    # --- transactions ----------------------------------------------------------------------------

    @contextmanager
    def _changing(
        self, episode: str, tenant: str | None = None
    ) -> Iterator[tuple[Writing, Row[Any]]]:
        """Open a transaction on an episode's row; at its end, count what it then counts for."""
        with self._store.writing() as writing:
            connection = writing.connection
            row = mine(row_of(connection, episode), tenant)
            was = met(connection, episode)
            yield writing, row
            after = outcome_of(mine(row_of(connection, episode), tenant))
            if after is not None:
                changed = count(connection, episode, was, outcome_of(row), after)
                self._playbook.learn(writing, row.tenant, changed)

    def _encoded(self, tenant: str, task: str) -> Vectors | None:
        rows = self._store.encoded(tenant, [task])
        return None if rows is None else rows[0]


def _kept(writing: Writing, scope: Scope, draft: Draft, vector: Vectors | None) -> int | None:
    """Keep a task's words; return their record, or None if they may not be remembered."""
    try:
        return writing.rid_of(scope.tenant, writing.put(scope, draft, vector).id)
    except RequestError as exc:
        if exc.code != "screened":
            raise
        return None


def _tell(writing: Writing, tenant: str, rid: int) -> None:
    """Let an episode's record be found by those that ask for rewarded ones."""
    record = writing.connection.scalar(select(records.c.id).where(records.c.rid == rid))
    try:
        writing.change(tenant, str(record), state=REWARDED)
    except (NotFoundError, RequestError) as exc:
        # Expired, or forbidden since it was written: nobody will find it, and its figures count.
        if exc.code not in ("record_not_found", "screened"):
            raise


def _set(connection: Connection, episode: str, values: Mapping[str, Any]) -> None:
    connection.execute(update(episodes).where(episodes.c.id == episode).values(**values))
