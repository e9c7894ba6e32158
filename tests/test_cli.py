"""The command line, run as people run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elision.cli import app, main

run = CliRunner()


@pytest.fixture(autouse=True)
def _home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_a_target_is_added_listed_tested_and_revoked() -> None:
    added = run.invoke(
        app, ["forget", "add", "--title", "the painter", "--phrase", "Marguerite Delacroix"]
    )
    assert added.exit_code == 0, added.output
    (target_id,) = re.findall(r"ft_\w+", added.output)

    listed = run.invoke(app, ["forget", "list"])
    assert target_id in listed.output
    assert "restrict" in listed.output

    hit = run.invoke(app, ["forget", "test", "It was M-a-r-g-u-e-r-i-t-e DELACROIX."])
    assert hit.exit_code == 1
    assert "N" in hit.output
    assert "M-a-r-g-u-e-r-i-t-e DELACROIX" in hit.output

    assert run.invoke(app, ["forget", "revoke", target_id, "--reason", "asked"]).exit_code == 0
    miss = run.invoke(app, ["forget", "test", "It was Marguerite Delacroix."])
    assert miss.exit_code == 0
    assert "nothing matches" in miss.output


def test_warnings_are_shown_and_name_no_phrase() -> None:
    added = run.invoke(app, ["forget", "add", "--title", "t", "--phrase", "male"])
    assert "warning" in added.output
    assert "word boundaries" in added.output


def test_profiles_are_listed() -> None:
    listed = run.invoke(app, ["profiles"]).output
    for name in ("plain", "guarded", "focused"):
        assert name in listed


def test_benches_are_listed() -> None:
    listed = run.invoke(app, ["bench", "--list"]).output
    for name in ("startup", "decode", "guard", "eminf", "gateway"):
        assert name in listed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pull", "nonsense"], "no model is called 'nonsense'"),
        (["forget", "revoke", "ft_00000000000000000000", "--reason", "r"], "no forget target"),
        (["serve", "--host", "0.0.0.0"], "no key is set"),
        (["serve", "--port", "99999"], "a setting cannot be used: port"),
        (["bench", "nonsense"], "there is no bench"),
        (["forget", "add", "--title", "t"], "nothing"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["elision", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = " ".join(capsys.readouterr().err.split())
    assert stopped.value.code == 1
    assert says in said
    assert "Traceback" not in said


@pytest.mark.model
def test_one_question_is_answered_on_standard_output(smollm2_dir: Path) -> None:
    asked = ["chat", "What is the capital of France?", "--temperature", "0"]
    done = run.invoke(app, [*asked, "--model", str(smollm2_dir)], env={"ELISION_DTYPE": "float32"})
    assert done.exit_code == 0, done.output
    assert "The capital of France is Paris." in done.output


@pytest.mark.model
def test_a_conversation_goes_on_until_the_input_ends(smollm2_dir: Path) -> None:
    env = {"ELISION_DTYPE": "float32", "ELISION_THREADS": "1"}
    asked = ["chat", "--model", str(smollm2_dir), "--temperature", "0", "--max-tokens", "8"]
    lines = "What is the capital of France?\n\n/new\nWhat is the capital of France?\n"
    done = run.invoke(app, asked, input=lines, env=env)
    assert done.output.count("The capital of France is Paris.") == 2
