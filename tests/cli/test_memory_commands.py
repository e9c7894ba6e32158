"""What ``elision memory`` and ``elision atlas`` do with words and files that are not as hoped."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import orjson
import pytest
from typer.testing import CliRunner

from elision.cli.root import app
from elision.errors import ConfigError
from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import EntryDraft
from elision.memory.memory import Memory
from elision.memory.records import Scope, Trust
from elision.middleware.assembly import open_register
from elision.middleware.remembering import open_memory
from elision.settings import Settings

run = CliRunner()


@pytest.fixture(autouse=True)
def memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    monkeypatch.setenv("ELISION_ENCODER", "")
    settings = Settings(home=home, encoder=None)
    with open_register(settings) as register, open_memory(settings, register, None) as memory:
        yield memory


def test_a_playbook_is_shown_as_it_was_written_whatever_stands_in_brackets(memory: Memory) -> None:
    said, pattern = "Look at [red]lamps[/red] and [/b] first.", "[/a]lamp"
    draft = EntryDraft(imperative=said, cue=Cue(type="regex", pattern=pattern))
    memory.playbook.add(Scope("default", ("chat",)), draft, actor="op", trust=Trust.OPERATOR)
    shown = run.invoke(app, ["atlas", "playbook"], catch_exceptions=False).output
    words = " ".join(shown.split())
    assert pattern in words
    assert "[red]lamps[/red]" in words
    assert "[/b]" in words


def erased(tmp_path: Path) -> dict[str, object]:
    to = tmp_path / "receipt.json"
    run.invoke(
        app, ["memory", "erase", "--all", "-y", "-o", str(to), "--as", "op"], catch_exceptions=False
    )
    body: dict[str, object] = orjson.loads(to.read_bytes())
    return body


def test_whatever_is_no_receipt_is_refused_in_one_line(tmp_path: Path) -> None:
    genuine = erased(tmp_path)
    assert run.invoke(app, ["memory", "verify", "-"], input=orjson.dumps(genuine)).exit_code == 0
    wrong = [5, None, "x", [], [{}], {}, {"a": 1}]
    wrong += [genuine | {name: value} for name in ("unfinished", "limits") for value in (None, 5)]
    for body in wrong:
        told = run.invoke(app, ["memory", "verify", "-"], input=orjson.dumps(body))
        assert isinstance(told.exception, ConfigError), body
        assert "is no receipt" in str(told.exception)


def test_an_export_to_a_folder_is_refused(tmp_path: Path) -> None:
    for where in (tmp_path, Path("/"), Path()):
        told = run.invoke(app, ["memory", "export", str(where)])
        assert isinstance(told.exception, ConfigError)
        assert "is a folder" in str(told.exception)


def test_an_erasure_by_a_user_without_a_name_is_signed_with_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown() -> NoReturn:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", unknown)
    run.invoke(app, ["memory", "erase", "--all", "-y"], catch_exceptions=False)
    [receipt] = run.invoke(app, ["memory", "receipts", "--json"]).output.splitlines()
    assert orjson.loads(receipt)["actor"] == f"uid-{os.getuid()}"
