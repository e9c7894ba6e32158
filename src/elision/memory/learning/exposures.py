"""Which entries an episode met, and the sums over episodes that decide what entries are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, insert, select, update

from elision.memory.learning.evidence import Arm, Evidence, Phase
from elision.memory.schema import episodes, evidence, exposures, records, spaces

_ARM: Final = tuple(field.name for field in fields(Arm))
_ADOPTED: Final = ("adopted", "adopted_ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One entry that was packed for one episode, and what the coin said.

    Attributes:
        entry: The entry's id.
        version: The entry's, then.
        applied: Whether it was shown; otherwise it was withheld.
        propensity: Probability with which it would be shown.
        position: Its place in the order of packing, from 0.
    """

    entry: str
    version: int
    applied: bool
    propensity: float
    position: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an episode adds to the evidence of each entry that it met.

    Attributes:
        reward: 0 to 1.
        success: Whether it counts as done; for the entries whose advice was followed.
        tokens: Over all roles.
        cost: Over all roles.
    """

    reward: float
    success: bool
    tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class Tally:
    """What is known of one version of an entry.

    Attributes:
        evidence: One phase for each propensity.
        adopted: Episodes that were shown it and followed it.
        adopted_ok: Those of them that succeeded.
    """

    evidence: Evidence = field(default_factory=Evidence)
    adopted: int = 0
    adopted_ok: int = 0

    @property
    def n_applied(self) -> int:
        """Episodes with a reward in which it was shown."""
        return sum(phase.applied.n for phase in self.evidence.phases)

    @property
    def n_withheld(self) -> int:
        """Episodes with a reward in which it was eligible and not shown."""
        return sum(phase.withheld.n for phase in self.evidence.phases)


def meet(connection: Connection, tenant: str, episode: str, exposed: Iterable[Exposure]) -> None:
    """Keep what *episode* met; an entry that is gone, or another tenant's, is passed over."""
    told = {one.entry: one for one in exposed}
    query = select(records.c.id, records.c.rid).join(spaces, spaces.c.id == records.c.space)
    query = query.where(spaces.c.tenant == tenant, records.c.id.in_(told))
    rows = [
        {"episode": episode, "rid": rid, "adopted": None, "counted": False, **_columns(told[name])}
        for name, rid in connection.execute(query)
    ]
    if rows:
        connection.execute(insert(exposures), rows)


def _columns(one: Exposure) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name != "entry"}


def read(connection: Connection, episode: str) -> tuple[Exposure, ...]:
    """Return what *episode* met and still stands, in the order of packing."""
    names = [field.name for field in fields(Exposure)][1:]
    query = select(records.c.id.label("entry"), *(exposures.c[name] for name in names))
    query = query.join(records, records.c.rid == exposures.c.rid)
    query = query.where(exposures.c.episode == episode).order_by(exposures.c.position)
    return tuple(Exposure(**row) for row in connection.execute(query).mappings())


def adopt(connection: Connection, episode: str, followed: Iterable[str]) -> None:
    """Say which of the entries shown in *episode* were followed; the others were not."""
    chosen = select(records.c.rid).where(records.c.id.in_(tuple(followed)))
    connection.execute(
        update(exposures)
        .where(exposures.c.episode == episode, exposures.c.applied)
        .values(adopted=case((exposures.c.rid.in_(chosen), True), else_=False))
    )


def met(connection: Connection, episode: str) -> dict[int, Row[Any]]:
    """Return what *episode* met as it lies there, by record; for `count`."""
    query = select(records.c.id.label("entry"), exposures)
    query = query.join(records, records.c.rid == exposures.c.rid)
    query = query.where(exposures.c.episode == episode).order_by(exposures.c.rid)
    return {row.rid: row for row in connection.execute(query)}


def count(
    connection: Connection,
    episode: str,
    was: Mapping[int, Row[Any]],
    before: Outcome | None,
    after: Outcome,
) -> dict[str, int]:
    """Bring the evidence of all that *episode* met to *after*.

    What was not counted is added, what was is corrected by the difference, so that the evidence
    is, up to rounding, as if only *after* had ever been told. Twice the same changes nothing.

    Args:
        connection: Of a writing transaction.
        episode: Its id.
        was: What `met` said before anything about the episode changed.
        before: What counted then; None if nothing did.
        after: What counts now.

    Returns:
        The version of each entry whose evidence changed, by id.
    """
    changed = {}
    for rid, row in met(connection, episode).items():
        old, new = _sums(was[rid], before if row.counted else None), _sums(row, after)
        more = {name: new[name] - old[name] for name in new}
        if any(more.values()):
            _add(connection, row, more)
            changed[row.entry] = row.version
    counted = update(exposures).where(exposures.c.episode == episode)
    connection.execute(counted.values(counted=True))
    return changed


def _sums(row: Row[Any], outcome: Outcome | None) -> dict[str, float]:
    """Return what one episode adds to one phase of one entry, column by column."""
    arm = "applied" if row.applied else "withheld"
    if outcome is None:
        return dict.fromkeys((*(f"{arm}_{name}" for name in _ARM), *_ADOPTED), 0)
    one = Arm().after(outcome.reward, tokens=outcome.tokens, cost=outcome.cost)
    followed = bool(row.applied and row.adopted)
    sums = {f"{arm}_{name}": value for name, value in asdict(one).items()}
    return {**sums, "adopted": followed, "adopted_ok": followed and outcome.success}


def _add(connection: Connection, row: Row[Any], more: Mapping[str, float]) -> None:
    key = {"rid": row.rid, "version": row.version, "propensity": row.propensity}
    here = and_(*(evidence.c[name] == value for name, value in key.items()))
    added = {name: _not_below_nought(evidence.c[name] + value) for name, value in more.items()}
    if connection.execute(update(evidence).where(here).values(added)).rowcount:
        return
    empty = {column.name: 0 for column in evidence.columns}
    connection.execute(insert(evidence), {**empty, **key, **more})


def _not_below_nought(sum_: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return *sum_*, or 0 where taking away what was added rounds to less."""
    return case((sum_ < 0, 0), else_=sum_)


def tallies(connection: Connection, versions: Mapping[str, int]) -> dict[str, Tally]:
    """Return what is known of each entry in its version; of one without episodes, nothing.

    Args:
        connection: Of any transaction.
        versions: By the entry's id.
    """
    query = select(records.c.id.label("entry"), evidence)
    query = query.join(records, records.c.rid == evidence.c.rid)
    query = query.where(records.c.id.in_(versions)).order_by(evidence.c.propensity)
    found: dict[str, list[Row[Any]]] = {entry: [] for entry in versions}
    for row in connection.execute(query):
        if row.version == versions[row.entry]:
            found[row.entry].append(row)
    return {entry: _tally(rows) for entry, rows in found.items()}


def _tally(rows: Sequence[Row[Any]]) -> Tally:
    phases = tuple(Phase(r.propensity, _arm(r, "applied"), _arm(r, "withheld")) for r in rows)
    adopted, adopted_ok = (sum(row._mapping[name] for row in rows) for name in _ADOPTED)
    return Tally(Evidence(phases), adopted, adopted_ok)


def _arm(row: Row[Any], arm: str) -> Arm:
    return Arm(**{name: row._mapping[f"{arm}_{name}"] for name in _ARM})


def last_met(connection: Connection, entries: Iterable[str]) -> dict[str, float]:
    """Return when an episode last met each of *entries*; those never met are left out."""
    query = select(records.c.id, func.max(episodes.c.started_at))
    query = query.join(exposures, exposures.c.rid == records.c.rid)
    query = query.join(episodes, episodes.c.id == exposures.c.episode)
    query = query.where(records.c.id.in_(tuple(entries))).group_by(records.c.id)
    return {row[0]: row[1] for row in connection.execute(query)}
