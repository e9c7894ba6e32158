"""The ExCyTIn alert slice (derived): its questions, and its alerts as a database to be asked.

From microsoft/SecRL (MIT): the tables SecurityAlert and SecurityIncident and the official test
questions. Most of the benchmark's tables are not there, so no number from here is an
ExCyTIn-Bench score.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from elision.errors import ConfigError, NotFoundError

DATABASE: Final = "excytin_alert.db"
VARIABLE: Final = "ELISION_EXCYTIN_DATA"
"""Environment variable that names the folder with the data."""
_QUESTIONS: Final = "incident_{}_qa_incident_o1-ga_c42.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question about an incident.

    Attributes:
        id: Incident and place in its file: ``5-17``.
        context: What is known at the start.
        question: What is asked.
        answer: The golden answer.
        solution: One sentence per step that leads to it; values stand in backticks.
    """

    id: str
    context: str = field(repr=False)
    question: str = field(repr=False)
    answer: str = field(repr=False)
    solution: tuple[str, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """What the agent is told, as in the benchmark: context and question."""
        return f"{self.context} {self.question}"


def folder(data: Path | None = None) -> Path:
    """Return the folder that holds the slice: *data*, or what `VARIABLE` names.

    Raises:
        NotFoundError: If neither holds it.
    """
    named = data if data is not None else os.environ.get(VARIABLE)
    for place in () if named is None else (Path(named), Path(named) / "excytin"):
        if (place / DATABASE).is_file():
            return place
    raise NotFoundError(
        f"the ExCyTIn alert slice is not there; name the folder of {DATABASE} with --data"
        f" or {VARIABLE}"
    )


def cases(place: Path, incident: int) -> tuple[Case, ...]:
    """Return the questions of *incident* that its alerts answer, in the order of their file.

    Left out: those whose answer occurs in none of the incident's alerts (it lies in tables that
    the slice lacks), and those whose answer stands in their own text.

    Raises:
        NotFoundError: If the slice has no questions of that incident.
    """
    file = place / _QUESTIONS.format(incident)
    if not file.is_file():
        raise NotFoundError(f"there are no questions of incident {incident}")
    texts = _alert_texts(place / DATABASE, incident)
    asked = (_case(f"{incident}-{n}", row) for n, row in enumerate(json.loads(file.read_text())))
    return tuple(case for case in asked if _is_fair(case, texts))


def _case(name: str, row: Mapping[str, Any]) -> Case:
    return Case(
        id=name, context=row["context"], question=row["question"],
        answer=str(row["answer"]), solution=tuple(row["solution"]),
    )  # fmt: skip


def _is_fair(case: Case, texts: Sequence[str]) -> bool:
    answer = normal(case.answer)
    return any(answer in text for text in texts) and answer not in normal(case.text)


def _alert_texts(database: Path, incident: int) -> tuple[str, ...]:
    with closing(_opened(database)) as connection:
        return tuple(
            normal(" ".join(str(cell) for cell in row)) for row in _alerts(connection, incident)
        )


def _alerts(connection: sqlite3.Connection, incident: int) -> Iterator[tuple[Any, ...]]:
    found = connection.execute(
        "SELECT AlertIds FROM SecurityIncident WHERE IncidentNumber = ?", (str(incident),)
    ).fetchone()
    if found is None:
        raise NotFoundError(f"the slice has no incident {incident}")
    query = "SELECT * FROM SecurityAlert WHERE SystemAlertId = ?"
    for alert in json.loads(found[0]):
        yield from connection.execute(query, (alert,))


def normal(text: str) -> str:
    r"""Return *text* as answers are compared: case folded, runs of backslashes one, no quotes.

    JSON doubles the backslashes of a path, and a JSON text within JSON again; it escapes quotes.
    """
    return " ".join(re.sub(r'\\+"', '"', re.sub(r"\\{2,}", r"\\", text)).casefold().split())


def build(source: Path, target: Path, *, incident: int) -> Path:
    """Write the database of one *incident* to *target*; return it.

    It holds SecurityAlert and SecurityIncident, that incident's rows only, as the benchmark's
    containers do, and ``AlertEvidence(AlertId, EntityType, Field, Value)`` derived from the
    entities of the alerts: one row for each field that holds a text, a number or a truth value,
    with ``$ref`` followed.

    Raises:
        ConfigError: If *target* exists: it may be the source.
        NotFoundError: If the source lacks the incident.
    """
    if target.exists():
        raise ConfigError(f"{target} is there already")
    with closing(_opened(source)) as old, closing(sqlite3.connect(target)) as new, new:
        for (statement,) in old.execute("SELECT sql FROM sqlite_master WHERE type = 'table'"):
            new.execute(statement)
        alerts = list(_alerts(old, incident))
        incidents = old.execute(
            "SELECT * FROM SecurityIncident WHERE IncidentNumber = ?", (str(incident),)
        ).fetchall()
        for table, rows in (("SecurityAlert", alerts), ("SecurityIncident", incidents)):
            places = ", ".join("?" * len(rows[0]))
            new.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608 -- names of ours
        new.execute(
            "CREATE TABLE AlertEvidence (AlertId TEXT, EntityType TEXT, Field TEXT, Value TEXT)"
        )
        found = new.execute("SELECT SystemAlertId, Entities FROM SecurityAlert").fetchall()
        new.executemany(
            "INSERT INTO AlertEvidence VALUES (?, ?, ?, ?)",
            [(alert, *row) for alert, entities in found for row in evidence(entities)],
        )
    return target


def evidence(entities: str) -> tuple[tuple[str, str, str], ...]:
    """Return (entity type, field, value) of all *entities* of an alert, each once, in order.

    Nested entities (the image file of a process, its parent) stand for themselves. A reference
    names an entity that stands elsewhere in the same list, and adds nothing.

    Raises:
        ConfigError: If it is no JSON.
    """
    try:
        parsed = json.loads(entities or "[]")
    except ValueError as exc:
        raise ConfigError("the entities of an alert are no JSON") from exc
    rows = (
        (str(entity.get("Type", "")), name, _told(value))
        for entity in _entities(parsed)
        for name, value in entity.items()
        if name not in {"$id", "Type"} and isinstance(value, str | int | float | bool)
    )
    return tuple(dict.fromkeys(rows))


def _entities(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        if "$id" in node:
            yield node
        for value in node.values():
            yield from _entities(value)
    elif isinstance(node, list):
        for value in node:
            yield from _entities(value)


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _opened(database: Path) -> sqlite3.Connection:
    if not database.is_file():
        raise NotFoundError(f"there is no {database.name}")
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
