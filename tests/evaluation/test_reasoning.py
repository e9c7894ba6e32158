"""``elision eval reasoning`` end to end: real recipes, a real engine, random weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from elision.cli import app
from elision.errors import ConfigError, ContextLengthError
from elision.evaluation.reasoning import Options, Summary, run, suite_named
from elision.evaluation.reasoning.data import Choice, items
from elision.evaluation.reasoning.given import look
from elision.evaluation.reasoning.methods import Method, methods
from elision.evaluation.reasoning.outcomes import Outcomes
from elision.evaluation.tofu.sheet import Sheet
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions.contrast import ContextAware
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.views import Without
from elision.testing.models import tiny_model
from elision.testing.tokenizers import word_tokenizer

DATA = Path(__file__).parent.parent / "data" / "reasoning"


def texts() -> list[str]:
    found = [*items("lambada", DATA), *items("memo-trap", DATA), *items("addition", None)[:20]]
    return [item.prompt for item in found]


@pytest.fixture(scope="module")
def model() -> CausalModel:
    tokenizer = word_tokenizer(texts(), vocab_size=512)
    weights = tiny_model(vocab_size=len(tokenizer), context=1024, eos=tokenizer.eos_token_id)
    return CausalModel(weights, tokenizer, name="tiny")


@pytest.fixture(scope="module")
def engine(model: CausalModel) -> Iterator[LocalEngine]:
    engine = LocalEngine(model)
    yield engine
    asyncio.run(engine.aclose())


def ran(engine: LocalEngine, suite: str, out: Path | None = None, **more: Any) -> Summary:
    options = Options(**{"n_items": 6, "n_tuning": 2, "n_seeds": 2, "max_tokens": 6, **more})
    return run(suite=suite_named(suite), data=DATA, out=out, options=options, engine=engine)


# --- suites that are read ------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ["lambada", "memo-trap"])
def test_every_method_of_a_suite_that_is_read_speaks_of_the_same_items(
    engine: LocalEngine, suite: str
) -> None:
    found = ran(engine, suite)
    assert [*found.outcomes] == [m.name for m in found.methods]
    assert found.baseline == "plain"
    for outcome in found.outcomes.values():
        assert outcome.values["accuracy"].keys() == set(range(6))
        assert set(outcome.values["accuracy"].values()) <= {0.0, 1.0}
    assert found.outcomes["cfg-1.25"].usage == 1.0
    assert found.outcomes["plain"].usage is None


def test_greedy_hits_do_not_change_with_the_temperature_and_expected_ones_do(
    engine: LocalEngine,
) -> None:
    found = ran(engine, "lambada", methods=("t-0.1", "em-inf"))
    plain, cold, sharper = (found.outcomes[n].values for n in ("plain", "t-0.1", "em-inf"))
    assert plain["accuracy"] == cold["accuracy"] == sharper["accuracy"]
    assert plain["expected"] != cold["expected"]
    for index, nats in plain["entropy_nats"].items():
        assert cold["entropy_nats"][index] < nats
        assert sharper["entropy_nats"][index] <= nats + 1e-6


def test_the_random_gate_copies_the_realised_usage_of_mti(engine: LocalEngine) -> None:
    found = ran(engine, "lambada", methods=("mti-random",), n_items=8)
    assert [*found.outcomes] == ["plain", "mti", "mti-random"]
    real, control = found.outcomes["mti"], found.outcomes["mti-random"]
    assert real.n_tokens == control.n_tokens
    assert real.usage is not None
    assert control.usage is not None
    assert abs(real.usage - control.usage) < 0.35  # as often, on average, of some forty positions


def test_leaving_the_instruction_out_is_the_same_by_either_name(
    engine: LocalEngine, tmp_path: Path
) -> None:
    """Context-aware decoding at alpha is guidance at 1 + alpha, away from the same prompt."""
    item = items("memo-trap", DATA)[0]
    assert isinstance(item, Choice)
    view = Without(item.passage)
    pair = [
        Method(name="cad", summary="", build=lambda _: (ContextAware(scale=0.5, other=view),)),
        Method(name="cfg", summary="", build=lambda _: (Guidance(scale=1.5, other=view),)),
    ]
    rows = look(
        engine, item, pair, {"cad": None, "cfg": None}, Sheet(tmp_path / "sheet.jsonl"), seed=0
    )
    assert rows["cad"]["logps"] == pytest.approx(rows["cfg"]["logps"], abs=1e-5)


# --- suites that are written ---------------------------------------------------------------------


def test_written_suites_draw_every_reply_as_often_as_there_are_seeds(
    engine: LocalEngine, tmp_path: Path
) -> None:
    wanted = ("t-1", "em-inf", "target-entropy", "adaptive", "t-tuned")
    found = ran(engine, "addition", tmp_path, methods=wanted, n_items=3)
    assert set(found.outcomes) == {"greedy", *wanted}
    rows = [json.loads(line) for line in (tmp_path / "values.jsonl").read_text().splitlines()]
    keys = [row["key"] for row in rows]
    assert len(keys) == len(set(keys))
    assert sum(key.startswith("greedy/") for key in keys) == 3
    assert sum(key.startswith("t-1/") for key in keys) == 6
    assert sum(key.startswith("tuning/") for key in keys) == 5 * 2
    assert found.outcomes["t-tuned"].temperature in (0.1, 0.3, 0.5, 0.7, 1.0)
    texts = {row["key"]: row["text"] for row in rows}
    assert texts["t-1/0/0"] != texts["t-1/1/0"]  # another seed, another reply


def test_problems_put_to_a_chat_model_are_asked_as_chats(engine: LocalEngine) -> None:
    found = ran(engine, "gsm8k", methods=("mti",), n_items=2)
    assert found.outcomes["greedy"].values["n_tokens"].keys() == {0, 1}
    assert found.outcomes["mti"].usage is not None


def test_a_reply_that_there_is_no_room_for_ends_the_run_with_its_own_error(
    engine: LocalEngine,
) -> None:
    with pytest.raises(ContextLengthError, match="5000 more are asked for"):
        ran(engine, "gsm8k", methods=("greedy",), max_tokens=5000)


def test_a_run_that_was_ended_goes_on_and_one_of_few_items_grows(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ran(engine, "lambada", tmp_path, methods=("cfg-1.25",), n_items=3)
    kept = tmp_path / "values.jsonl"
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:-1]) + lines[-1][:9])  # cut while writing
    more = ran(engine, "lambada", tmp_path, methods=("cfg-1.25",), n_items=5)
    for name, outcome in few.outcomes.items():
        for index, value in outcome.values["expected"].items():
            assert more.outcomes[name].values["expected"][index] == pytest.approx(value)
    monkeypatch.setattr(engine, "borrow", None)  # nothing is left to read
    again = ran(engine, "lambada", tmp_path, methods=("cfg-1.25",), n_items=5)
    assert again.outcomes["cfg-1.25"].values == more.outcomes["cfg-1.25"].values
    with pytest.raises(ConfigError, match="another seed"):
        ran(engine, "lambada", tmp_path, methods=("cfg-1.25",), seed=1)


# --- what is told --------------------------------------------------------------------------------


def test_what_was_found_is_written_down(engine: LocalEngine, tmp_path: Path) -> None:
    found = ran(engine, "memo-trap", tmp_path, methods=("cad-1", "cfg-1.5"))
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["baseline"] == "plain"
    assert told["methods"]["cad-1"]["paired"]["verdict"] in ("better", "worse", "not told apart")
    assert told["methods"]["plain"]["paired"] is None
    names = [figure["figure"] for figure in told["figures"]]
    assert "reasoning.memo-trap.cad-1.gain" in names
    assert not found.missed
    table = (tmp_path / "summary.md").read_text()
    assert "| method | accuracy | against plain | won/lost | exact p | verdict |" in table
    assert "- `cad-1`: context-aware decoding" in table
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = {(line["method"], line["metric"]): line["value_by_index"] for line in lines}
    assert len(values["cfg-1.5", "accuracy"]) == 6
    everything = table + (tmp_path / "summary.json").read_text()
    assert "Absence" not in everything  # ids and counts, never text


def test_guidance_on_lambada_has_a_goal_where_there_are_items_enough() -> None:
    values = {n: float(n % 3 == 0) for n in range(200)}
    better = values | dict.fromkeys(range(1, 60, 3), 1.0)
    for n_items, judged in ((200, True), (60, False)):
        some = {
            name: Outcomes(values={"accuracy": {n: found[n] for n in range(n_items)}})
            for name, found in (("plain", values), ("cfg-1.25", better))
        }
        picked = methods("lambada", ["cfg-1.25"])
        summary = Summary(suite="lambada", methods=picked, outcomes=some, conditions={})
        goals = [figure.figure for figure in summary.figures if figure.goal is not None]
        wanted = ["reasoning.lambada.cfg-1.25.gain", "reasoning.lambada.cfg-1.25.p"]
        assert goals == (wanted if judged else [])
        assert not summary.missed
    worse = {"plain": Outcomes(values={"accuracy": better})}
    worse["cfg-1.25"] = Outcomes(values={"accuracy": values})
    summary = Summary(suite="lambada", methods=picked, outcomes=worse, conditions={})
    assert [figure.figure for figure in summary.missed] == [wanted[0]]


def test_the_command_says_what_it_lacks() -> None:
    for arguments, told in (
        (["--suite", "mmlu"], "there is no suite 'mmlu'"),
        (["--suite", "piqa"], "--data"),
        (["--suite", "addition", "--methods", "magic"], "no method magic"),
        (["--suite", "addition", "--items", "0"], "at least 1"),
    ):
        done = CliRunner().invoke(app, ["eval", "reasoning", *arguments])
        assert done.exit_code != 0
        assert told in f"{done.output}{done.exception}"


@pytest.mark.model
@pytest.mark.slow
def test_the_command_compares_methods_on_the_default_model(
    smollm2_dir: Path, tmp_path: Path
) -> None:
    command = [
        "eval", "reasoning", "--suite", "lambada", "--data", str(DATA), "--items", "4",
        "--methods", "cfg-1.25", "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["methods"]["cfg-1.25"]["metrics"]["accuracy"]["interval"][1] <= 1
    assert (tmp_path / "out" / "values.jsonl").is_file()
