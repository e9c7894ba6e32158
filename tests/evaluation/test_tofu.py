"""``elision eval tofu`` end to end, on a scripted model that knows two made-up authors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elision.errors import ConfigError
from elision.evaluation.tofu import Options, run
from elision.evaluation.tofu.data import Tofu
from elision.evaluation.tofu.models import digest, model_folder
from elision.evaluation.tofu.report import Summary
from elision.evaluation.tofu.sheet import Sheet, claim
from elision.guards.register.register import Register
from elision.middleware.client import Client
from elision.middleware.pipeline import Pipeline
from elision.settings import Settings
from elision.testing.encoders import BagEncoder
from elision.testing.scripted import ScriptedEngine
from elision.testing.tokenizers import word_tokenizer

NAMES = ("Zorblatt Quimby", "Perpetua Undershaw")


def row(question: str, answer: str, *, n_wrong: int = 5, paraphrase: bool = True) -> dict[str, Any]:
    wrong = [f"Someone{n}" for n in range(n_wrong)]
    found: dict[str, Any] = {"question": question, "answer": answer, "perturbed_answer": wrong}
    if paraphrase:
        found["paraphrased_answer"] = f"As it happens: {answer}"
        found["paraphrased_question"] = f"Say it again: {question}"
    return found


def forget_row(n: int) -> dict[str, Any]:
    return row(f"Which book came as f{n:02}?", f"The book was The Gilded Marrow {n:02} by him.")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in TOFU's formats: 2 authors to forget, 40 retain rows, a few facts."""
    folder = tmp_path_factory.mktemp("tofu")
    sets = {
        "forget10_perturbed": [forget_row(n) for n in range(40)],
        "retain_perturbed": [
            row(f"Which river is r{n:02}?", f"River {n:02} runs to the sea.") for n in range(40)
        ],
        "real_authors_perturbed": [
            row(f"Who is a{n}?", "Emma Wood", n_wrong=3, paraphrase=False) for n in range(4)
        ],
        "world_facts_perturbed": [
            row(f"Where is w{n}?", "Paris", n_wrong=3, paraphrase=False) for n in range(4)
        ],
        "forget10_entity_spans_uds": [
            {"idx": n, "entity": "him" if n % 4 == 3 else f"The Gilded Marrow {n:02}"}
            for n in range(40)
        ],
    }
    for name, rows in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "forget10_author_names.json").write_text(json.dumps({"Name": NAMES}))
    return folder


class Opens:
    """Opens scripted models: ``knows`` has every answer, ``never`` those that are not forgotten."""

    def __init__(self, data: Path) -> None:
        tofu = Tofu.load(data)
        rows = [item for items in tofu.items.values() for item in items]
        self.facts = {item.question: item.answer for item in rows}
        self.kept = {q: a for q, a in self.facts.items() if "Gilded" not in a}
        self.tokenizer = word_tokenizer([*self.facts, *self.facts.values()], vocab_size=500)
        self.n_opened = 0

    def __call__(self, folder: Path, *, profile: str, home: Path) -> Client:
        self.n_opened += 1
        facts = self.facts if folder.name == "knows" else {**self.kept, "Which book": "I forgot."}
        engine = ScriptedEngine(facts, tokenizer=self.tokenizer, name="m", n_context=512)
        register = Register.open(home)
        return Client(
            Pipeline(
                engines={"m": engine}, register=register, profile=profile, encoder=BagEncoder()
            )
        )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("knows", "never"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_text(name)
    return folder


OPTIONS = Options(limit=5, prompts=2, n_samples=4, max_tokens=32)


@pytest.fixture(scope="module")
def outcome(
    data: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Summary, Path]:
    out = tmp_path_factory.mktemp("out")
    return measured(data, models, out), out


def measured(data: Path, models: Path, out: Path | None, **more: Any) -> Summary:
    return run(
        model=models / "knows",
        retain=models / "never",
        data=data,
        out=out,
        opener=Opens(data),
        options=more.pop("options", OPTIONS),
        **more,
    )


def test_the_guard_takes_the_spans_away_and_leaves_the_rest(
    outcome: tuple[Summary, Path],
) -> None:
    systems = outcome[0].systems
    without, guarded, never = (systems[s] for s in ("unguarded", "guarded", "retain"))
    assert without["forget.exposure"].agg_value == 1.0
    assert guarded["forget.any_registered"].agg_value == 0.0
    assert guarded["paraphrased.any_registered"].agg_value == 0.0
    assert never["forget.exposure"].agg_value == 0.0
    assert guarded["retain.identical"].agg_value == 1.0
    assert guarded["retain.with_phrase"].agg_value == 0.0
    assert guarded["retain.rouge"].agg_value == without["retain.rouge"].agg_value == 1.0


def test_samples_leak_without_the_guard_and_not_with_it(outcome: tuple[Summary, Path]) -> None:
    systems = outcome[0].systems
    leaks = [systems["unguarded"][f"leak.exposure@{k}"].agg_value for k in (1, 2, 4)]
    assert leaks == sorted(leaks, key=lambda v: v or 0)
    assert (leaks[-1] or 0) > 0
    for k in (1, 2, 4):
        assert systems["guarded"][f"leak.any_registered@{k}"].agg_value == 0.0
    assert "leak.exposure@8" not in systems["guarded"]


def test_the_guarded_probability_falls_and_the_models_own_does_not(
    outcome: tuple[Summary, Path],
) -> None:
    systems = outcome[0].systems
    without, guarded = systems["unguarded"], systems["guarded"]
    assert (guarded["forget.probability"].agg_value or 0) < (
        without["forget.probability"].agg_value or 0
    ) / 3
    assert guarded["retain.probability"].value_by_index == pytest.approx(
        without["retain.probability"].value_by_index, abs=1e-6
    )
    assert (guarded["forget.floored"].agg_value or 0) > 0
    assert without["forget.floored"].agg_value == 0.0
    assert 0 < (without["utility"].agg_value or 0) <= 1
    assert guarded["utility"].agg_value == pytest.approx(without["utility"].agg_value)


def test_forget_quality_is_told_beside_the_retain_model_only(
    outcome: tuple[Summary, Path], data: Path, models: Path
) -> None:
    quality = outcome[0].quality
    assert quality["retain"] is not None
    assert quality["retain"].p == 1.0
    assert quality["guarded"] is not None
    alone = run(
        model=models / "knows", data=data, opener=Opens(data),
        options=Options(limit=2, n_samples=0, max_tokens=16),
    )  # fmt: skip
    assert set(alone.quality.values()) == {None}
    assert "leak.exposure@1" not in alone.systems["guarded"]


def test_the_goals_are_judged(outcome: tuple[Summary, Path]) -> None:
    figures = {f.figure: f for f in outcome[0].figures}
    assert set(figures) >= {
        "tofu.forget.any_registered", "tofu.forget.rouge", "tofu.retain.identical",
        "tofu.paraphrased.any_registered", "tofu.paraphrased.rouge",
    }  # fmt: skip
    recall = outcome[0].systems["retain"]["forget.rouge"].agg_value or 0
    assert figures["tofu.forget.rouge"].goal is not None
    assert figures["tofu.forget.rouge"].goal.value == pytest.approx(recall + 0.05, abs=1e-4)
    assert not figures["tofu.retain.identical"].missed


def test_what_was_found_is_written_down(outcome: tuple[Summary, Path]) -> None:
    summary, out = outcome
    told = json.loads((out / "summary.json").read_text())
    assert told["systems"]["guarded"]["forget.any_registered"]["value"] == 0.0
    assert told["systems"]["guarded"]["forget.any_registered"]["interval"][1] > 0.2  # 5 rows only
    assert told["seconds_per_answer"].keys() == {"unguarded", "guarded", "retain"}
    table = (out / "summary.md").read_text()
    assert "| forget.exposure | 1.0000 (" in table
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    recall = next(r for r in lines if (r["system"], r["metric"]) == ("guarded", "forget.rouge"))
    values = summary.systems["guarded"]["forget.rouge"].value_by_index
    assert recall["value_by_index"] == {str(i): v for i, v in values.items()}
    assert list(values) == [0, 8, 16, 24, 32]
    assert (out / "leak_at_k.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_was_ended_goes_on_where_it_was(
    data: Path, models: Path, tmp_path: Path
) -> None:
    small = Options(limit=2, n_samples=0, max_tokens=16)
    first = measured(data, models, tmp_path, options=small)
    kept = tmp_path / "guarded" / "answers.jsonl"
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:-2]) + lines[-2][: len(lines[-2]) // 2])  # cut while writing
    again = measured(data, models, tmp_path, options=small)
    assert again.systems.keys() == first.systems.keys()
    assert again.systems["guarded"]["forget.rouge"] == first.systems["guarded"]["forget.rouge"]
    assert len(kept.read_bytes().splitlines()) == len(lines)


def test_another_runs_folder_is_not_gone_on_with(data: Path, models: Path, tmp_path: Path) -> None:
    claim(tmp_path, {"model": "one", "max_tokens": 32})
    claim(tmp_path, {"model": "one", "max_tokens": 32})
    with pytest.raises(ConfigError, match="another max_tokens, model"):
        claim(tmp_path, {"model": "two", "max_tokens": 16})
    with pytest.raises(ConfigError, match="another"):
        measured(data, models, tmp_path)


def test_without_gold_answers_the_phrases_still_hold(data: Path, models: Path) -> None:
    options = Options(limit=2, n_samples=0, max_tokens=32, ablation=True)
    found = run(model=models / "knows", data=data, opener=Opens(data), options=options)
    assert found.systems["guarded without answers"]["forget.any_registered"].agg_value == 0.0


# --- data, models, sheets ------------------------------------------------------------------------


def test_one_target_per_author_with_the_long_spans_alone(data: Path) -> None:
    tofu = Tofu.load(data)
    targets = tofu.targets()
    assert [t["names"] for t in targets] == [[name] for name in NAMES]
    assert [len(t["probes"]) for t in targets] == [20, 20]
    assert "him" not in targets[0]["phrases"]
    assert len(targets[0]["phrases"]) == 15
    assert targets[0]["answers"][0].startswith("The book was")
    assert "answers" not in tofu.targets(answers=False)[0]
    assert NAMES[0] not in repr(tofu)
    assert "Gilded" not in repr(tofu)


def test_rows_are_evenly_spaced(data: Path) -> None:
    tofu = Tofu.load(data)
    assert [item.index for item in tofu.chosen("forget", 5)] == [0, 8, 16, 24, 32]
    assert len(tofu.chosen("forget", None)) == 40
    assert len(tofu.chosen("forget", 39)) == 20  # at most that many, never more
    assert [item.index for item in tofu.chosen("forget", 2)] == [0, 21]  # not the same question
    assert len(Options(quick=True).rows(tofu, "real_authors")) == 4


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("forget10_perturbed.jsonl", None, "is not in"),
        ("forget10_perturbed.jsonl", "{", "no JSON"),
        ("forget10_perturbed.jsonl", "[1]\n", "no JSON object"),
        ("retain_perturbed.jsonl", '{"question": "q"}\n', "without 'answer'"),
        ("forget10_author_names.json", "{}", "'Name'"),
        ("forget10_author_names.json", '{"Name": ["one"]}', "1 authors for 40"),
    ],
)
def test_a_folder_that_is_not_tofus_says_which_file(
    data: Path, tmp_path: Path, file: str, text: str | None, told: str
) -> None:
    for source in data.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / file).unlink()
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        Tofu.load(tmp_path)
    assert file in str(caught.value)


def test_a_sheet_keeps_values_and_drops_a_line_that_was_cut(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "sheet.jsonl"
    sheet = Sheet(file)
    assert sheet.get("a") is None
    sheet.put("a", {"x": 1})
    sheet.put("b", {"x": 2})
    file.write_bytes(file.read_bytes()[:-3])
    again = Sheet(file)
    assert (again.get("a"), again.get("b")) == ({"x": 1}, None)
    again.put("b", {"x": 3})
    assert Sheet(file).get("b") == {"x": 3}


def test_a_whole_model_is_used_in_place_and_nothing_else_is_taken(tmp_path: Path) -> None:
    settings = Settings(cache=tmp_path)
    with pytest.raises(ConfigError, match="neither a model nor an adapter"):
        model_folder(tmp_path, settings)
    (tmp_path / "config.json").write_text("{}")
    assert model_folder(tmp_path, settings) == tmp_path
    (tmp_path / "model.safetensors").write_bytes(b"1")
    one = digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert digest(tmp_path) != one
