"""The benches of drafted and shared decoding: what they read, race, judge and report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Plan, Recipe, Request, Sampling, in_order
from elision.errors import ConfigError
from elision.evaluation import bench
from elision.evaluation.bench import Setup
from elision.evaluation.benches import batch, speed
from elision.evaluation.benches.generates_best import Entry, fastest, heats
from elision.evaluation.benches.identity import (
    Verdicts,
    first_difference,
    flips,
    is_tie,
    replay,
)
from elision.evaluation.benches.profiles import is_explained
from elision.evaluation.benches.racing import Course, Run, Stable, ask, race, stable, timed
from elision.evaluation.benches.ratios import (
    Ratios,
    by_group,
    decoding_rate,
    geometric_mean,
    overall,
    tokens_per_step,
)
from elision.evaluation.benches.rivals import Generate, Original
from elision.evaluation.benches.static_drafts import accepted_per_step, greedy_walk
from elision.evaluation.spec_bench import (
    FILE,
    GROUPS,
    Question,
    by_turns,
    first_of_each,
    own,
    read,
)
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions import Guidance, MinimalIntervention
from elision.middleware.interventions.bias import LogitBias
from elision.middleware.profiles import sampling_recipes
from elision.middleware.speculation.base import Draft
from elision.settings import Settings
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer

LETTERS = dict.fromkeys(range(ord("a"), ord("z") + 1), 60.0)


def causal(**options: Any) -> CausalModel:
    tokenizer = byte_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer), **options)
    return CausalModel(model, tokenizer, name="tiny")


@pytest.fixture
def tiny() -> Iterator[Stable]:
    engine = LocalEngine(causal())
    yield stable(engine)
    asyncio.run(engine.aclose())


def letters(text: str = "hello", *, temperature: float = 0.0, n_tokens: int = 24) -> Plan:
    """Return a plan whose answer is all letters, so that a token is a character."""
    request = ask(text, n_tokens, temperature=temperature, seed=5)
    return planned(replace(request, sampling=replace(request.sampling, logit_bias=LETTERS)))


def planned(request: Request) -> Plan:
    return Plan(request=request, recipes=sampling_recipes(request.sampling))


# --- questions -----------------------------------------------------------------------------------


def written(folder: Path, rows: list[Any]) -> Path:
    (folder / FILE).write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def row(category: str, text: str) -> dict[str, Any]:
    return {"question_id": 1, "category": category, "turns": [text, "and then?"]}


def test_conversations_of_every_kind_make_up_one_group(tmp_path: Path) -> None:
    rows = [row("writing", "w"), row("coding", "c"), row("rag", "r"), row("rag", "s")]
    found = read(written(tmp_path, rows))
    assert found == tuple(
        Question(*pair)
        for pair in (("mt_bench", "w"), ("rag", "r"), ("mt_bench", "c"), ("rag", "s"))
    )


def test_of_each_group_the_first_few_are_read_or_all(tmp_path: Path) -> None:
    data = written(tmp_path, [row(group, str(n)) for group in GROUPS for n in range(6)])
    assert [q.text for q in read(data)] == [str(n) for n in range(4) for _ in GROUPS]
    assert len(read(data, per_group=None)) == 36


def test_a_folder_without_the_file_and_a_line_that_is_no_question_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=FILE):
        read(tmp_path)
    with pytest.raises(ConfigError, match="line 2"):
        read(written(tmp_path, [row("qa", "who?"), {"category": "qa", "turns": []}]))


@given(st.lists(st.sampled_from(GROUPS)), st.integers(1, 4))
def test_turns_keep_every_question_and_each_groups_order(groups: list[str], n: int) -> None:
    questions = [Question(group, str(at)) for at, group in enumerate(groups)]
    turned = by_turns(questions)
    for group in GROUPS:
        mine = [q for q in questions if q.group == group]
        assert [q for q in turned if q.group == group] == mine
        assert [q for q in first_of_each(turned, n) if q.group == group] == mine[:n]
    assert len(turned) == len(questions)


def test_our_own_questions_are_one_of_each_group_and_two_of_them_are_long() -> None:
    words = {question.group: len(question.text.split()) for question in own()}
    assert tuple(words) == GROUPS
    assert {group for group, n in words.items() if n > 200} == {"summarization", "rag"}


# --- races ---------------------------------------------------------------------------------------


@dataclass
class Noted:
    """A contestant that notes when it ran."""

    name: str
    log: list[tuple[str, str]] = field(default_factory=list)

    def run(self, request: Request) -> Run:
        self.log.append((self.name, str(request.messages[0]["content"])))
        return Run("", n_tokens=4, seconds=2.0)


def test_contestants_are_warmed_and_then_take_turns_at_going_first() -> None:
    log = list[tuple[str, str]]()
    course = Course(questions=(Question("qa", "p"), Question("rag", "q")), n_tokens=8)
    results = race({name: Noted(name, log) for name in "abc"}, course)
    assert [name for name, _ in log[:3]] == ["a", "b", "c"]
    assert not {text for _, text in log[:3]} & {"p", "q"}
    assert log[3:] == [(n, "p") for n in "abc"] + [(n, "q") for n in "bca"]
    assert all(list(runs) == ["qa", "rag"] for runs in results.values())


def test_a_group_counts_all_its_tokens_over_all_its_seconds() -> None:
    fast = {"qa": [Run("", 10, 1.0), Run("", 1, 1.0)], "rag": [Run("", 8, 1.0)]}
    slow = {"qa": [Run("", 10, 2.0), Run("", 1, 2.0)], "rag": [Run("", 1, 1.0)]}
    ratios = Ratios.of(fast, slow)
    assert ratios.groups == {"qa": 2.0, "rag": 8.0}
    assert ratios.pairs == {"qa": [2.0, 2.0], "rag": [8.0]}
    assert ratios.overall == pytest.approx(4.0)
    figure = overall("x", ratios, goal=4.5)
    assert (figure.value, figure.spread, figure.missed) == (4.0, (2.0, 8.0), True)
    assert {f.figure: f.value for f in by_group("x", ratios, goal=1.0)} == {"x.qa": 2, "x.rag": 8}


def test_an_answer_without_a_token_costs_its_seconds_and_breaks_no_ratio() -> None:
    empty, short = Run("", 0, 1.0), Run("", 4, 1.0)
    ratios = Ratios.of(
        {"qa": [empty, short], "rag": [empty]}, {"qa": [short, short], "rag": [short]}
    )
    assert (ratios.groups, ratios.pairs) == ({"qa": 0.5}, {"qa": [1.0]})
    apart = Ratios.of({"qa": [empty, short]}, {"qa": [short, empty]})
    assert apart.pairs == {"qa": [1.0]}


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.floats(0.1, 10))
def test_a_geometric_mean_scales_and_lies_between_its_values(
    values: list[float], by: float
) -> None:
    mean = geometric_mean(values)
    assert min(values) * 0.999 <= mean <= max(values) * 1.001
    assert geometric_mean([by * value for value in values]) == pytest.approx(by * mean)


def test_steps_count_what_came_behind_the_prompt() -> None:
    assert tokens_per_step([Run("", 9, 1.0, n_steps=4), Run("", 5, 1.0, n_steps=4)]) == 1.5
    assert tokens_per_step([Run("", 9, 1.0)]) == 0
    runs = {"qa": [Run("", 11, 6.0, first_s=1.0)]}
    assert decoding_rate(runs) == 2.0


def test_our_engine_runs_as_a_contestant_and_tells_its_forwards(tiny: Stable) -> None:
    assert (tiny.dtype, tiny.n_threads) == ("float32", 1)
    plain = tiny.ours("off", "a").run(ask("hello", 24))
    twice = [tiny.ours("force", "b").run(ask("hello", 24)) for _ in range(2)]
    assert plain.n_tokens == 24
    assert (plain.n_steps, plain.text) == (0, twice[0].text)
    assert 0 < twice[1].n_steps < 23
    assert 0 < plain.first_s < plain.seconds
    both = tiny.ours("off", "a", reuse=True).run_together([ask("hello", 12), ask("there", 9)])
    assert both.n_tokens == 21


def test_generate_as_a_contestant_writes_what_our_plain_loop_writes() -> None:
    model = causal(eos=ord("e"))
    theirs = Original(model.model, model.tokenizer)
    requests = [ask(text, 24) for text in ("hello", "a longer question", "why")]
    engine = LocalEngine(model)
    ours = [stable(engine).ours("off", "a").run(request) for request in requests]
    asyncio.run(engine.aclose())
    alone = Generate(original=theirs, n_threads=1)
    assert [alone.run(r).n_tokens for r in requests] == [run.n_tokens for run in ours]
    assert alone.run_batch(requests).n_tokens == sum(run.n_tokens for run in ours)
    lookup = Generate(original=theirs, n_threads=1, lookup=True)
    assert lookup.run(requests[0]).text == alone.run(requests[0]).text


def test_the_better_entry_is_the_one_with_more_tokens_over_all_questions() -> None:
    early = {"qa": [Run("", 100, 1.0)], "rag": [Run("", 100, 10.0)]}
    steady = {"qa": [Run("", 100, 3.0)], "rag": [Run("", 100, 3.0)]}
    assert fastest({"early": early, "steady": steady}) == "steady"
    assert str(Entry("float32", 2, lookup=True)) == "float32 x2 lookup"


# --- identity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_replay_writes_what_the_engine_writes(tiny: Stable, temperature: float) -> None:
    plan = letters(temperature=temperature)
    text = tiny.ours("off", "a").run(plan.request).text
    found = tiny.engine.borrow(lambda model: replay(model, plan)).result()
    assert found.text == text
    assert [pick.start for pick in found.picks] == list(range(24))


@pytest.mark.parametrize(
    "recipe", [Guidance(scale=1.5), MinimalIntervention(tau=1.0, negative=(7, 8))]
)
def test_a_replay_is_guided_as_the_engine_is(tiny: Stable, recipe: Recipe) -> None:
    plan = replace(letters(), recipes=in_order((*letters().recipes, recipe)))
    text = asyncio.run(timed(tiny.engine, plan)).text
    assert tiny.engine.borrow(lambda model: replay(model, plan)).result().text == text
    assert text != tiny.ours("off", "a").run(letters().request).text


@pytest.fixture(scope="module")
def twins() -> tuple[CausalModel, str, str]:
    """Return a model to which two letters are one, and both: a plan's reply has the first."""
    model = causal()
    one = replay(model, letters()).text[3]
    first, second = sorted((one, "a" if one != "a" else "b"))  # of equals the lower id wins
    head = model.model.lm_head.weight
    with torch.no_grad():
        head[ord(first)] = head[ord(second)] = head[ord(one)].clone()
    return model, first, second


def leaning(letter: str, by: float) -> Plan:
    """Return the plan of `letters` with something added to one letter's scores."""
    plan = letters()
    return replace(plan, recipes=(*plan.recipes, LogitBias(bias={ord(letter): by})))


def test_a_text_that_parts_at_a_tie_is_explained(twins: tuple[CausalModel, str, str]) -> None:
    model, first, second = twins
    plain, other = replay(model, letters()), replay(model, leaning(second, 3e-5)).text
    at = first_difference(plain.text, other)
    assert (plain.text[at], other[at]) == (first, second)
    assert is_tie(plain, other, model.lexicon)
    assert not is_tie(plain, f"{plain.text[:at]}?{other[at:]}", model.lexicon)


def test_a_text_that_parts_where_nothing_is_tied_is_not_explained(tiny: Stable) -> None:
    plain = tiny.engine.borrow(lambda model: replay(model, letters())).result()
    other = tiny.engine.borrow(lambda model: replay(model, leaning("q", 6.0))).result().text
    assert other != plain.text
    lexicon = tiny.engine.lexicon
    assert lexicon is not None
    for wrong in (other, plain.text[:-1], plain.text[:5], f"!{plain.text}", f"{plain.text}x"):
        assert not is_tie(plain, wrong, lexicon)


def test_an_engines_text_is_explained_by_replaying_it_on_the_engine(tiny: Stable) -> None:
    plan = letters()
    text = tiny.ours("off", "a").run(plan.request).text
    assert not is_explained(tiny, plan, text[:7] + "?")


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_the_first_difference_is_where_the_common_beginning_ends(one: str, other: str) -> None:
    at = first_difference(one, other)
    assert one[:at] == other[:at]
    assert at == min(len(one), len(other)) or one[at] != other[at]


def test_verdicts_ask_for_an_explanation_of_texts_that_differ_only() -> None:
    verdicts = Verdicts()
    verdicts.add("a", "a", lambda: pytest.fail("there is nothing to explain"))
    verdicts.add("a", "b", lambda: True)
    assert verdicts.share == 1.0
    verdicts.add("a", "c", lambda: False)
    assert (verdicts.n, verdicts.n_ties, verdicts.n_wrong) == (3, 1, 1)
    assert verdicts.share == pytest.approx(2 / 3)
    assert flips(["a", "b"], ["a", "c"]) == 0.5


# --- the static tree -----------------------------------------------------------------------------


def test_a_greedy_walk_follows_the_best_token_as_far_as_it_was_proposed() -> None:
    draft = Draft((7, 5, 6), (0, 0, 2), (0.5, 0.4, 0.3))
    logits = torch.zeros(4, 9)
    for node, best in enumerate((5, 1, 6, 8)):
        logits[node, best] = 1.0
    assert greedy_walk(draft, logits) == ([5, 6, 8], [0, 2, 3])
    assert greedy_walk(draft, logits.flip(-1)) == ([3], [0])


def test_the_static_tree_decodes_each_reply_to_its_end_in_fewer_steps() -> None:
    model = causal(context=1024)
    requests = [ask("hello", 40), ask("hello", 40)]
    steps = accepted_per_step(model, requests)
    assert len(steps) == 2
    assert all(40 <= sum(gained) < 40 + 7 for gained in steps)
    assert len(steps[1]) < 30


# --- the benches ---------------------------------------------------------------------------------


@pytest.fixture
def quick(tmp_path: Path) -> Setup:
    """Return a hurried setup over a tiny model in a folder."""
    folder, model = tmp_path / "tiny", causal(context=2048)
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    settings = Settings(
        home=tmp_path / "home", cache=tmp_path / "cache", model=str(folder), threads=1
    )
    return Setup(settings=settings, quick=True, repeats=lambda full, quick: quick)


@pytest.mark.slow
def test_the_batch_bench_reports_every_way_of_answering(quick: Setup) -> None:
    found = {figure.figure: figure for figure in batch.measure(quick)}
    assert list(found) == [
        "batch.2", "batch.4", "batch.8", "batch.vs_generate", "batch.vs_interleaved",
    ]  # fmt: skip
    assert str(found["batch.8"].goal) == ">= 3"
    assert all(figure.value > 0 for figure in found.values())


def test_the_heats_race_every_format_thread_count_and_way(quick: Setup) -> None:
    found = heats(quick, speed.course_of(quick).shorter(1, 2))
    assert len(found) == 2 * 2 * len({entry.n_threads for entry in found})
    assert all(rate > 0 for rate in found.values())


@pytest.mark.slow
@pytest.mark.model
def test_the_speed_bench_reports_every_figure(
    quick: Setup, minilm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elision.evaluation.benches.encoder.pull", lambda *args, **more: minilm_dir)
    found = {figure.figure: figure for figure in speed.measure(quick)}
    groups = GROUPS[:2]
    for name in ("vs_plain", "vs_plain.fp32", "vs_lookup", "vs_lookup.fp32", "tokens_per_step"):
        assert all(f"speed.{name}.{group}" in found for group in groups)
    for name in (
        "vs_plain", "vs_plain.fp32", "vs_plain.t07", "flips.bf16", "worst", "guard_1000",
        "static_80", "identical", "vs_best_generate",
    ):  # fmt: skip
        assert f"speed.{name}" in found
    assert found["speed.identical"].value == 1.0
    assert "draft_hits_rank_0" in found["speed.tokens_per_step"].conditions["draft_hits"]
    assert found["speed.identical"].conditions["texts"] == 6


def test_both_are_benches() -> None:
    assert {"speed", "batch"} <= bench.BENCHES.keys()


def test_with_data_four_of_each_group_are_asked_for_128_tokens(tmp_path: Path) -> None:
    data = written(tmp_path, [row(group, str(n)) for group in GROUPS for n in range(6)])
    course = speed.course_of(Setup(settings=Settings(home=tmp_path), data=data))
    assert (len(course.questions), course.n_tokens) == (24, 128)
    assert course.conditions == {"questions": "24 of Spec-Bench", "tokens": "128 greedy"}
    seeds = [request.sampling.seed for _, request in course.requests()]
    assert seeds == list(range(24))
    assert course.shorter(1, 48).conditions["tokens"] == "48 greedy"


def test_a_wild_request_is_the_same_for_the_same_seed_only() -> None:
    from elision.evaluation.benches.extremes import random_text

    one, same, other = (random_text(8, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.prompt != other.prompt
    assert one.sampling == Sampling(temperature=10.0, seed=1)
