"""The alert slice: a database that can only be read, a checker, and scripted students."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError, NotFoundError, RequestError
from elision.evaluation.atlas import excytin_data
from elision.evaluation.atlas.asking import asked, clues
from elision.evaluation.atlas.excytin import MOST_CHARS, MOST_ROWS, Desk, credit, value
from elision.evaluation.atlas.excytin_data import Case, build, cases, evidence, folder
from elision.evaluation.atlas.investigators import FORMAT, PIVOT, SKILLS, Browser, Pupil

ALL = frozenset(skill.name for skill in SKILLS)
NONE: frozenset[str] = frozenset()


def case(answer: str = "mimikatz.exe", *steps: str) -> Case:
    return Case(
        id="0-0", context="`host-1` was seen.", question="What is the file name?",
        answer=answer, solution=(*steps, "last"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def incident(excytin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("built") / "5.db"
    return build(excytin / excytin_data.DATABASE, target, incident=5)


# What may be done at a desk

FORBIDDEN = [
    "DELETE FROM SecurityAlert", "UPDATE SecurityAlert SET AlertName = 'x'", "CREATE TABLE t (x)",
    "CREATE TEMP TABLE t (x)", "INSERT INTO AlertEvidence VALUES ('', '', '', '')",
    "DROP TABLE SecurityAlert", "ATTACH DATABASE 'other.db' AS other", "PRAGMA query_only = 0",
    "PRAGMA database_list", "VACUUM INTO 'copy.db'", "SELECT load_extension('x')", "BEGIN",
    "SELECT 1; DELETE FROM SecurityAlert", "not sql at all", "",
]  # fmt: skip


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_nothing_but_reading_is_let_through(incident: Path, tmp_path: Path, sql: str) -> None:
    before = incident.read_bytes()
    with Desk(incident, case()) as desk:
        seen = desk.act(f"execute[{sql}]")
        assert seen.startswith("error:") or not sql
        assert desk.act("execute[SELECT count(*) FROM SecurityAlert]") == "9"
    assert incident.read_bytes() == before
    assert {file.name for file in incident.parent.iterdir()} == {incident.name}


def test_a_statement_that_would_never_end_is_ended(incident: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    with Desk(incident, case()) as desk:
        assert desk.act(f"execute[{endless}]") == "error: interrupted"
        assert desk.act("execute[SELECT 1]") == "1"


def test_a_long_observation_is_cut_to_fifteen_rows(incident: Path) -> None:
    long = "SELECT a.Entities || b.Entities FROM SecurityAlert a, SecurityAlert b"
    with Desk(incident, case()) as desk:
        rows = desk.act(f"execute[{long}]").splitlines()
        assert len(rows) == MOST_ROWS
        assert sum(map(len, rows)) > MOST_ROWS
        short = desk.act("execute[SELECT Value FROM AlertEvidence]")
        assert len(short.splitlines()) > MOST_ROWS
        assert len(short) <= MOST_CHARS


def test_an_episode_ends_with_the_answer_or_with_its_steps(incident: Path) -> None:
    with Desk(incident, case(), most_steps=2) as desk:
        assert desk.act("look around").startswith("error: an action is")
        desk.act("submit[mimikatz.exe]")
        assert (desk.done, desk.reward) == (True, 1.0)
        with pytest.raises(RequestError, match="is over"):
            desk.act("execute[SELECT 1]")
    with Desk(incident, case(), most_steps=1) as desk:
        desk.act("execute[SELECT 1]")
        assert (desk.done, desk.reward) == (True, None)


# What an answer earns


@pytest.mark.parametrize(
    ("golden", "submitted"),
    [
        ("http://vectorsandarrows.com/", "vectorsandarrows.com"),
        ("vectorsandarrows.com", "HTTPS://www.VectorsAndArrows.com/"),
        (r"c:\windows\cmd.exe", r"C:\\Windows\\cmd.exe"),
        ('"browsercore.exe"', "`browsercore.exe`"),
        ("mimikatz.exe", "other.exe\n\n  Mimikatz.exe  \nthird.exe"),
    ],
)
def test_an_answer_counts_however_it_is_written(golden: str, submitted: str) -> None:
    assert credit(case(golden), submitted) == 1


def test_ten_values_are_an_answer_and_eleven_are_a_guess() -> None:
    others = [f"file-{n}" for n in range(9)]
    assert credit(case(), "\n".join([*others, "mimikatz.exe"])) == 1
    assert credit(case(), "\n".join([*others, "file-9", "mimikatz.exe"])) == 0
    assert credit(case(), "it is mimikatz.exe") == 0
    assert credit(case(), " \n ") == 0


def test_steps_earn_credit_backwards_from_the_one_before_the_last() -> None:
    asked_for = case("x", "saw `first`", "saw `second`", "saw `third`")
    assert credit(asked_for, "third") == pytest.approx(0.4)
    assert credit(asked_for, "second") == pytest.approx(0.16)
    assert credit(asked_for, "first\nsecond\nthird") == pytest.approx(0.4 + 0.16 + 0.064)
    assert credit(asked_for, "x\nthird") == 1


@given(st.text(max_size=40))
def test_values_are_compared_in_a_form_that_is_reached_at_once_and_case_does_not_matter(
    text: str,
) -> None:
    assert value(text.upper()) == value(text.upper().casefold())
    assert credit(case(text or "x"), text) in {0.0, 1.0}


# The data


def test_only_questions_that_the_alerts_answer_are_asked(excytin: Path) -> None:
    found = {incident: cases(excytin, incident) for incident in (5, 55)}
    assert {incident: len(one) for incident, one in found.items()} == {5: 9, 55: 12}
    with pytest.raises(NotFoundError, match="no questions"):
        cases(excytin, 6)


def test_the_built_database_holds_one_incident_and_its_evidence(
    excytin: Path, incident: Path
) -> None:
    with closing(sqlite3.connect(incident)) as connection:
        rows = connection.execute("SELECT DISTINCT AlertId FROM AlertEvidence").fetchall()
        ids = connection.execute("SELECT SystemAlertId FROM SecurityAlert").fetchall()
        numbers = connection.execute("SELECT IncidentNumber FROM SecurityIncident").fetchall()
    assert (sorted(rows), len(ids), numbers) == (sorted(ids), 9, [("5",)])
    with pytest.raises(ConfigError, match="there already"):
        build(excytin / excytin_data.DATABASE, incident, incident=5)


def test_nested_entities_are_listed_once_and_references_add_nothing() -> None:
    told = """[{"$id": "1", "Type": "process", "ProcessId": "7", "ImageFile":
      {"$id": "2", "Type": "file", "Name": "a.exe"}}, {"$ref": "2"},
      {"$id": "3", "Type": "host", "Asset": true, "Tags": ["x"], "Owner": {"$ref": "1"}}]"""
    assert evidence(told) == (
        ("process", "ProcessId", "7"), ("file", "Name", "a.exe"), ("host", "Asset", "true"),
    )  # fmt: skip
    assert evidence("") == ()
    with pytest.raises(ConfigError, match="no JSON"):
        evidence("{")


def test_without_the_data_it_says_how_to_name_it(
    tmp_path: Path, excytin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ELISION_EXCYTIN_DATA", raising=False)
    for given_folder in (None, tmp_path):
        with pytest.raises(NotFoundError, match="ELISION_EXCYTIN_DATA"):
            folder(given_folder)
    monkeypatch.setenv("ELISION_EXCYTIN_DATA", str(excytin))
    assert folder() == excytin
    assert folder(excytin) == excytin


# The students


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is the IP address of the host?", "ip"),
        ("Can you identify the AadUserId of the account?", "user_id"),
        ("A file was seen. What is the URL associated with it?", "url"),
        ("Which device was the payload launched on?", "host"),
        ("Who created the service?", "account"),
        ("Can you provide the command line of the process?", "command"),
    ],
)
def test_a_question_is_read_by_what_it_names_first(question: str, kind: str) -> None:
    read = Case(id="", context="`a`", question=question, answer="", solution=())
    assert asked(read).kind == kind


def test_clues_are_the_quoted_values_longest_first() -> None:
    read = Case(id="", context="`a` and `bcd` and `a`", question="?", answer="", solution=())
    assert clues(read) == ("bcd", "a")


def test_the_more_is_taught_the_more_is_solved_and_with_fewer_tokens(
    excytin: Path, incident: Path
) -> None:
    rates = {n: [] for n in range(len(SKILLS) + 1)}
    for n in rates:
        for some in combinations(SKILLS, n):
            rates[n].append(solved(excytin, incident, frozenset(skill.name for skill in some)))
    means = [fmean(one) for one in rates.values()]
    assert means[0] <= 0.3
    assert means[-1] == 1
    assert means == sorted(means)


def solved(excytin: Path, incident: Path, skills: frozenset[str]) -> float:
    rewards = []
    for one in cases(excytin, 5):
        with Desk(incident, one) as desk:
            Pupil().work(desk, skills, one.id)
            rewards.append(desk.reward or 0.0)
    return fmean(rewards)


def test_pupils_always_submit_and_do_the_same_again(excytin: Path, incident: Path) -> None:
    for investigator in (Browser(), Pupil()):
        for skills in (NONE, ALL, frozenset({PIVOT.name, FORMAT.name})):
            for one in cases(excytin, 5):
                with Desk(incident, one) as desk, Desk(incident, one) as again:
                    moves = investigator.work(desk, skills, "seed")
                    assert moves[-1].tool == "submit"
                    assert desk.reward is not None
                    assert moves == investigator.work(again, skills, "seed")


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_a_pupil_that_runs_out_of_steps_submits_with_its_last(
    excytin: Path, incident: Path, n_steps: int
) -> None:
    with Desk(incident, cases(excytin, 5)[0], most_steps=n_steps) as desk:
        moves = Pupil().work(desk, NONE, "seed")
        assert (moves[-1].tool, len(moves)) == ("submit", n_steps)
