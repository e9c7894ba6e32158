"""Scripted investigators of the alert slice: from one who browses to one who can be taught."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from elision.evaluation.atlas.asking import Asked, asked, clues, overlap, words
from elision.evaluation.atlas.excytin import MOST_ANSWERS, Desk, value
from elision.evaluation.atlas.skills import Skill, chance

ENTITIES: Final = Skill(
    "knows_entities_json",
    "Select values from AlertEvidence by EntityType and Field instead of reading raw Entities.",
)
PIVOT: Final = Skill(
    "knows_join_on_host",
    "Join alerts on shared HostName or Sid, then take the one whose AlertName fits the question.",
)
VERIFY: Final = Skill(
    "knows_verify",
    "Before submitting, gather candidates of all equally fitting alerts and drop given values.",
)
FORMAT: Final = Skill(
    "knows_format",
    "Submit bare values one per line, ten at most, and nothing around them.",
)
SKILLS: Final = (ENTITIES, PIVOT, VERIFY, FORMAT)
"""In the order in which a teacher misses them."""

_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table'"
_COLUMNS: Final = "SELECT sql FROM sqlite_master WHERE name = 'SecurityAlert'"
_SHARED: Final = """SELECT DISTINCT a.SystemAlertId, a.AlertName FROM SecurityAlert a
JOIN AlertEvidence e ON e.AlertId = a.SystemAlertId
WHERE e.Field IN ('HostName', 'Sid') AND e.Value IN (SELECT Value FROM AlertEvidence
WHERE AlertId = {} AND Field IN ('HostName', 'Sid'))"""
_MOST_TRIES: Final = 4
_MOST_ALERTS: Final = 8


@dataclass(frozen=True, slots=True)
class Move:
    """One action and what was seen.

    Attributes:
        tool: ``execute`` or ``submit``.
        argument: The statement or the answer.
        seen: The observation.
    """

    tool: str
    argument: str = field(repr=False)
    seen: str = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether it was no error."""
        return not self.seen.startswith("error:")


class Investigator(Protocol):
    """Works one case at a desk until an answer is submitted or no step is left."""

    def work(self, desk: Desk, skills: frozenset[str], seed: str) -> tuple[Move, ...]:
        """Return the moves made.

        Args:
            desk: Fresh.
            skills: Names of those it has.
            seed: Of whatever it does by chance.
        """
        ...


class Session:
    """The moves made at one desk; lives as long as the episode."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.moves: list[Move] = []

    def execute(self, sql: str) -> list[list[str]]:
        """Return the rows that *sql* gives; none after an error or when no step but one is left."""
        if self.desk.steps_left <= 1:
            return []
        move = self._do("execute", sql)
        return [line.split(" | ") for line in move.seen.splitlines()] if move.ok else []

    def submit(self, answers: str) -> None:
        """Submit, which ends the episode."""
        if not self.desk.done:
            self._do("submit", answers)

    def _do(self, tool: str, argument: str) -> Move:
        move = Move(tool, argument, self.desk.act(f"{tool}[{argument}]"))
        self.moves.append(move)
        return move


class Browser:
    """S0: reads alerts at random and submits a value of the right shape, if it saw one."""

    def work(self, desk: Desk, skills: frozenset[str], seed: str) -> tuple[Move, ...]:
        """Return the moves made; *skills* do not help it."""
        del skills
        session, kind = Session(desk), asked(desk.case)
        ids = [row[0] for row in session.execute("SELECT SystemAlertId FROM SecurityAlert")]
        picked = sorted(ids, key=lambda alert: chance(seed, alert))[:_MOST_TRIES]
        found = _from_raw(session, kind, picked)
        session.submit(found[int(chance(seed) * len(found))] if found else "unknown")
        return tuple(session.moves)


class Pupil:
    """S2: looks at the schema, filters by what the context quotes, and does what it was taught.

    Without any skill it is S1, schema first.
    """

    def work(self, desk: Desk, skills: frozenset[str], seed: str) -> tuple[Move, ...]:
        """Return the moves made."""
        session, kind = Session(desk), asked(desk.case)
        if ENTITIES.name not in skills:
            session.execute(_TABLES)
            session.execute(_COLUMNS)
        alerts = self._alerts(session, skills)
        read = _from_evidence if ENTITIES.name in skills else _from_raw
        found = read(session, kind, alerts)
        if VERIFY.name in skills:
            told = value(desk.case.text)
            found = [one for one in found if value(one) not in told] or found
        one_each = FORMAT.name in skills
        session.submit("\n".join(found[:MOST_ANSWERS]) if one_each else ", ".join(found))
        return tuple(session.moves)

    def _alerts(self, session: Session, skills: frozenset[str]) -> list[str]:
        begun = _begun(session)
        if PIVOT.name in skills and begun:
            rows = session.execute(_SHARED.format(_literal(begun[0][0])))
            topic = words(session.desk.case.question)
            begun = _ranked([row[:2] for row in rows if len(row) > 1] or begun, topic)
            best = overlap(words(begun[0][1]), topic)
            begun = [row for row in begun if overlap(words(row[1]), topic) == best]
        most = _MOST_ALERTS if VERIFY.name in skills else 1
        return [row[0] for row in begun[:most]]


def _begun(session: Session) -> list[list[str]]:
    """Return id and name of the alerts that mention a clue of the context, or one of its words."""
    case = session.desk.case
    by_length = sorted(words(case.context), key=lambda word: (-len(word), word))
    for clue in (*clues(case), *by_length)[:_MOST_TRIES]:
        like = _literal(f"%{clue}%")
        rows = session.execute(
            "SELECT SystemAlertId, AlertName, Description FROM SecurityAlert"  # noqa: S608 -- a literal
            f" WHERE Description LIKE {like} OR Entities LIKE {like}"
        )
        if rows := [row[:2] for row in rows if len(row) > 1 and _is_id(row[0])]:
            return rows
    return []


def _ranked(rows: Sequence[list[str]], topic: Iterable[str]) -> list[list[str]]:
    theme = frozenset(topic)
    return sorted(rows, key=lambda row: (-overlap(words(row[1]), theme), row[0]))


def _from_evidence(session: Session, kind: Asked, alerts: Sequence[str]) -> list[str]:
    if not alerts:
        return []
    among = ", ".join(map(_literal, alerts))
    rows = session.execute(
        f"SELECT Value FROM AlertEvidence WHERE AlertId IN ({among})"  # noqa: S608 -- literals
        f" AND EntityType = {_literal(kind.entity)} AND Field = {_literal(kind.column)}"
    )
    return _by_frequency([" | ".join(row) for row in rows])


def _from_raw(session: Session, kind: Asked, alerts: Sequence[str]) -> list[str]:
    found: list[str] = []
    for alert in alerts:
        rows = session.execute(
            f"SELECT Entities FROM SecurityAlert WHERE SystemAlertId = {_literal(alert)}"  # noqa: S608 -- a literal
        )
        text = "\n".join(" | ".join(row) for row in rows)
        found += kind.shape.findall(text) if kind.shape else _named(text, kind.column)
    return _by_frequency(found)


def _named(text: str, named: str) -> list[str]:
    return re.findall(rf'"{named}":"((?:[^"\\]|\\.)*)"', text)


def _by_frequency(found: Sequence[str]) -> list[str]:
    return sorted(dict.fromkeys(found), key=lambda one: -found.count(one))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F-]{36}", text) is not None
