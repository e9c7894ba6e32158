"""The command line, run as people run it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from elision.cli import app, main
from elision.errors import ConfigError, PermissionDeniedError, TargetError

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


def ok(*arguments: str, **options: Any) -> str:
    done = run.invoke(app, [*arguments], **options)
    assert done.exit_code == 0, done.output
    return str(done.output)


def target_of(said: str) -> str:
    (target_id,) = re.findall(r"ft_\w+", said)
    return str(target_id)


def test_a_draft_goes_all_the_way_and_the_log_tells_who_took_it(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('"by Marguerite Delacroix"\n{"text": "by nobody"}\n')
    painter = ("--title", "the painter", "--phrase", "Marguerite Delacroix")
    target = target_of(ok("forget", "add", *painter, "--draft", "--as", "ann"))
    assert "1 of 2 texts" in (said := ok("forget", "preview", target, "--corpus", str(corpus)))
    assert "by █████" in said
    assert "Delacroix" not in said
    steps = [
        ["submit", target], ["suspend", target, "--reason", "a complaint"], ["resume", target],
        ["extend", target, "--expires-at", "2999-01-01T00:00:00Z"], ["extend", target, "--never"],
        ["revoke", target, "--reason", "asked"], ["purge", target, "--yes"],
    ]  # fmt: skip
    states = [ok("forget", *step, "--as", "bob").split()[2] for step in steps]
    assert states == ["active", "suspended", "active", "active", "active", "revoked", "purged"]
    log = [orjson.loads(line) for line in ok("audit", "list", "--json").splitlines()]
    assert [entry["actor"] for entry in log if entry["object_id"] == target][-7:] == ["bob"] * 7
    assert log[-8 - 1]["actor"] == "ann"
    assert "Delacroix" not in str(log)
    assert "purged" in ok("forget", "list", "--state", "purged")
    assert "as it was written" in ok("audit", "verify")


def test_a_second_person_approves_where_that_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELISION_APPROVAL", "required")
    added = ok("forget", "add", "--title", "t", "--phrase", "Rosebud Lane", "--as", "ann")
    assert "pending_approval" in added
    approve = ["forget", "approve", target_of(added), "--as"]
    assert isinstance(run.invoke(app, [*approve, "ann"]).exception, PermissionDeniedError)
    assert "active" in ok(*approve, "bob")


def test_a_dry_run_stores_nothing() -> None:
    said = ok("forget", "add", "--title", "t", "--phrase", "Rosebud Lane", "--dry-run")
    assert "7 of 7 spellings are found" in said
    assert "Rosebud" not in ok("forget", "list", "--all")


def test_a_target_is_shown_with_every_word() -> None:
    given = ["--phrase", "Rosebud Lane", "--probe", "Where is it?", "--for-model", "m"]
    target = target_of(ok("forget", "add", "--title", "the lane", *given))
    shown = ok("forget", "show", target)
    for word in ("the lane", "Rosebud Lane", "Where is it?", target):
        assert word in shown
    body = orjson.loads(ok("forget", "show", target, "--json"))
    assert body["scope"] == {"models": ["m"], "keys": []}


def test_a_receipt_is_verified_with_the_key_alone_and_a_forged_one_is_not(tmp_path: Path) -> None:
    target = target_of(ok("forget", "add", "--title", "t", "--phrase", "Rosebud Lane"))
    receipt, key = tmp_path / "receipt.json", tmp_path / "key.pem"
    ok("forget", "receipt", target, "--out", str(receipt))
    ok("audit", "key", "--out", str(key))
    assert "Rosebud" not in receipt.read_text()
    elsewhere = {"ELISION_HOME": str(tmp_path / "elsewhere")}
    verify = ["audit", "verify", str(receipt), "--key", str(key)]
    assert "genuine" in ok(*verify, env=elsewhere)
    receipt.write_text(receipt.read_text().replace('"active"', '"purged"'))
    forged = run.invoke(app, verify, env=elsewhere)
    assert (forged.exit_code, "not genuine" in forged.output) == (1, True)
    assert not (tmp_path / "elsewhere").exists()


def test_an_exported_log_is_verified_and_a_cut_one_is_not(tmp_path: Path) -> None:
    log, key, mark = tmp_path / "log.jsonl", tmp_path / "key.pem", tmp_path / "mark.json"
    for n in range(3):
        ok("forget", "add", "--title", "t", "--phrase", f"Rosebud Lane {n}")
    ok("audit", "key", "--out", str(key))
    ok("audit", "checkpoint", "--out", str(mark))
    ok("audit", "export", "--out", str(log))
    verify = ["audit", "verify", str(log), "--key", str(key), "--checkpoint", str(mark)]
    assert "4 entries" in ok(*verify)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    cut = run.invoke(app, verify)
    assert (cut.exit_code, "checkpoint" in cut.output) == (1, True)


def test_an_export_comes_back_from_where_it_went(tmp_path: Path) -> None:
    file = tmp_path / "targets.jsonl"
    ok("forget", "add", "--title", "t", "--phrase", "Rosebud Lane")
    ok("forget", "export", "--out", str(file))
    assert "0 targets" in ok("forget", "import", str(file))
    file.write_text(file.read_text().replace("Rosebud", "Rosehip"))
    assert isinstance(run.invoke(app, ["forget", "import", str(file)]).exception, TargetError)


def test_a_check_sees_through_an_encoding_and_says_so_in_its_status() -> None:
    ok("forget", "add", "--title", "t", "--phrase", "Nightingale Square")
    hit = run.invoke(app, ["check", "It is bmlnaHRpbmdhbGUgc3F1YXJl."])
    assert (hit.exit_code, "rewind" in hit.output, "base64" in hit.output) == (1, True, True)
    assert "Nightingale" not in hit.output
    read = run.invoke(app, ["check", "-", "--json"], input="nightingale\nsquare")
    assert orjson.loads(read.output)["verdict"] == "rewind"
    assert ok("check", "It is a square.").strip() == "allow"


def test_a_purge_asks_first() -> None:
    target = target_of(ok("forget", "add", "--title", "t", "--phrase", "Rosebud Lane"))
    ok("forget", "revoke", target, "--reason", "asked")
    assert run.invoke(app, ["forget", "purge", target], input="n\n").exit_code == 1
    assert "revoked" in ok("forget", "list", "--all")
    assert "purged" in ok("forget", "purge", target, input="y\n")


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
        (["forget", "list", "--state", "asleep"], "there is no such state"),
        (["forget", "extend", "ft_00000000000000000000"], "--never"),
        (["forget", "import", "/nonexistent/file"], "cannot be read"),
        (["forget", "resume", "ft_00000000000000000000"], "no forget target"),
        (["audit", "verify", "/nonexistent/file", "--key", "/nonexistent/key"], "cannot be read"),
        (["audit", "verify", "--key", "/nonexistent/key"], "with a file"),
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


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny model of random weights and a tokenizer of bytes."""
    from elision.testing.models import tiny_model
    from elision.testing.tokenizers import byte_tokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = byte_tokenizer()
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


TRACED = ("--profile", "focused", "--max-tokens", "8", "--seed", "1")
TINY = {"ELISION_DTYPE": "float32", "ELISION_THREADS": "1"}


def body_of(*arguments: str) -> dict[str, Any]:
    """Return what a command writes to standard output; progress goes elsewhere."""
    done = run.invoke(app, [*arguments, "--json"], env=TINY)
    assert done.exit_code == 0, done.output
    return dict(orjson.loads(done.stdout))


def test_a_trace_has_a_line_for_every_token(tiny_dir: Path) -> None:
    asked = ("trace", "hello", "--model", str(tiny_dir), *TRACED)
    body = body_of(*asked)
    assert len(body["trace"]) == 8
    acted = [name for entry in body["trace"] for name in entry["acted"]]
    assert acted.count("EntropyMinimisation") == body["report"]["notes"]["entropy_minimised"] > 0
    assert body["report"]["profile"] == "focused"
    shown = ok(*asked, env=TINY)
    assert "H before → after" in shown
    assert shown.count("Temperature") == 8
    assert "8 tokens, ended by length; recipes acted at 8; KL 0." in shown
    first = body["trace"][0]
    assert f"{first['entropy_before']:.3f} → {first['entropy_after']:.3f}" in shown


def test_a_trace_takes_the_rest_of_the_elision_object(tiny_dir: Path) -> None:
    asked = ("trace", "hello", "--model", str(tiny_dir), *TRACED)
    plain, forced = (
        body_of(*asked, "--elision", given) for given in ("{}", '{"speculation": "force"}')
    )
    assert forced["text"] == plain["text"]
    assert forced["report"]["speculation"]["steps"] <= 8
    for given in ("nonsense", "[1]"):
        refused = run.invoke(app, [*asked, "--elision", given], env=TINY)
        assert isinstance(refused.exception, ConfigError)


def test_what_a_token_writes_cannot_steer_the_terminal() -> None:
    from rich.console import Console

    from elision.cli.trace import summary_of, table_of
    from elision.contract import Choice, TokenTrace

    wild = TokenTrace(token="\x1b[2J[bold]\n", kl=2.0, prob_after=0.5, banned=0.0)
    read = TokenTrace(token="b", branches=("suffix", "prompt"))
    entries = (wild, TokenTrace(token="[redacted]"))
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(table_of(entries))
        console.print(table_of((read,)))
    said, _, other = captured.get().partition("branches")
    assert "suffix, prompt" in other
    assert "\x1b" not in said
    assert r"'\x1b[2J[bold]\n'" in said
    assert said.count("– → –") == 3  # a marker has no numbers
    assert summary_of(Choice(trace=entries)).startswith("1 tokens, ended by stop")


@pytest.mark.model
def test_a_trace_of_the_default_model_says_what_chat_says(smollm2_dir: Path) -> None:
    asked = ("trace", "What is the capital of France?", "--temperature", "0")
    body = body_of(*asked, "--model", str(smollm2_dir))
    assert body["text"] == "The capital of France is Paris."
    assert "".join(entry["token"] for entry in body["trace"]) == body["text"]
    assert body["trace"][5]["token"] == " Paris"
