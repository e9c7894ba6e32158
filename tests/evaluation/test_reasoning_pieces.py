"""The pieces of ``elision eval reasoning``: items, answers, paired comparisons, methods."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from elision.errors import ConfigError
from elision.evaluation.reasoning.addition import STEP, chains
from elision.evaluation.reasoning.data import SUITES, Choice, Problem, items, suite_named
from elision.evaluation.reasoning.methods import methods, waves
from elision.evaluation.reasoning.outcomes import of_choices, of_replies
from elision.evaluation.reasoning.paired import compare, mcnemar
from elision.evaluation.reasoning.writing import Reply, is_right, is_valid, last_number, repeats
from elision.middleware.interventions.mti import MinimalIntervention

DATA = Path(__file__).parent.parent / "data" / "reasoning"

# --- items ---------------------------------------------------------------------------------------


def test_a_cloze_asks_for_the_last_word_with_its_blank() -> None:
    first = items("lambada", DATA)[0]
    assert isinstance(first, Choice)
    assert first.options == (" signs",)
    assert first.prompt.endswith("I don't care about")
    assert "signs" not in repr(first)


def test_a_trap_tells_its_instruction_from_the_proverb_and_the_files_take_turns() -> None:
    found = items("memo-trap", DATA)
    assert len(found) == 16
    quote, translation = found[:2]
    assert isinstance(quote, Choice)
    assert isinstance(translation, Choice)
    assert quote.prompt == f"{quote.passage}Absence makes the heart grow"
    assert quote.passage == 'Write a quote that ends in the word "heavy": '
    assert translation.passage.startswith("Translate the following sentence")
    assert translation.prompt.removeprefix(translation.passage) == "Absence makes the heart grow"
    assert (quote.options, quote.gold) == ((" heavy.", " fonder."), 0)
    assert all(item.index == n for n, item in enumerate(found))


def test_problems_come_to_a_number() -> None:
    school, varied = items("gsm8k", DATA)[0], items("svamp", DATA)[0]
    assert isinstance(school, Problem)
    assert isinstance(varied, Problem)
    assert (school.answer, varied.answer) == ("18", "51")
    assert "on each pack. How much do you have to pay" in varied.prompt
    assert not school.raw


def test_piqa_has_two_solutions_and_a_label(tmp_path: Path) -> None:
    folder = tmp_path / "piqa"
    folder.mkdir()
    rows = [{"goal": "Boil water.", "sol1": "Heat it.", "sol2": "Freeze it."}] * 2
    (folder / "valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "valid-labels.lst").write_text("0\n1\n")
    first, second = items("piqa", tmp_path)
    assert isinstance(first, Choice)
    assert isinstance(second, Choice)
    assert first.prompt == "Question: Boil water.\nAnswer:"
    assert first.options == (" Heat it.", " Freeze it.")
    assert (first.gold, second.gold) == (0, 1)
    (folder / "valid-labels.lst").write_text("0\n")
    with pytest.raises(ConfigError, match="valid-labels"):
        items("piqa", tmp_path)


@pytest.mark.parametrize(
    ("suite", "file", "text"),
    [
        ("lambada", "lambada/lambada_test.jsonl", '{"text": "alone"}\n'),
        ("lambada", "lambada/lambada_test.jsonl", '{"words": "secret words"}\n'),
        ("memo-trap", "memo_trap/1-proverb-ending.csv", "prompt,classes,answer_index\nsecret,[],0"),
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "secret?", "answer": "no mark"}\n'),
        ("svamp", "svamp/SVAMP.json", "{"),
    ],
)
def test_a_file_that_is_not_its_authors_is_named_and_not_quoted(
    tmp_path: Path, suite: str, file: str, text: str
) -> None:
    shutil.copytree(DATA, tmp_path / "data")
    (tmp_path / "data" / file).write_text(text)
    with pytest.raises(ConfigError, match=Path(file).name) as caught:
        items(suite_named(suite), tmp_path / "data")
    assert "secret" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SVAMP\.json is not in"):
        items("svamp", tmp_path)
    with pytest.raises(ConfigError, match="--data"):
        items("svamp", None)
    with pytest.raises(ConfigError, match="no suite 'mmlu'; there are: lambada, memo-trap"):
        suite_named("mmlu")


def test_made_up_chains_are_the_same_in_every_process_and_true() -> None:
    found = [*chains()]
    assert found == [*chains()]
    assert len({made.prompt for made in found}) == len(found)
    for made in found[:50]:
        terms = [int(term) for term in made.prompt.rpartition(":")[2].split()]
        terms += [int(term) for term in made.answer.split()]
        steps = {after - before for before, after in pairwise(terms)}
        assert steps == {STEP}


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = $18.", 18), ("1,234.5 dollars", 1234.5), ("It is -3", -3),
        ("no number", None), ("first 4, then 7.", 7), ("#### 1,000,000", 1_000_000),
    ],
)  # fmt: skip
def test_the_last_number_of_a_reply_is_its_answer(text: str, number: float | None) -> None:
    assert last_number(text) == number
    problem = Problem(index=0, prompt="?", answer="18")
    assert is_right(problem, text) is (number == 18)
    assert is_valid(problem, text) is (number is not None)


def test_of_a_chain_every_term_must_be_right_and_what_follows_does_not_count() -> None:
    chain = Problem(index=0, prompt="+1: 1 2", answer="3 4 5", raw=True)
    assert is_right(chain, " 3 4 5")
    assert is_right(chain, " 3 4 5 6 7")
    assert not is_right(chain, " 3 4")
    assert not is_right(chain, " 3 5 6")
    assert is_valid(chain, " 3 5 6")
    assert not is_valid(chain, " 3 four 6")


def test_a_loop_is_twenty_words_that_come_again() -> None:
    words = [f"w{n}" for n in range(25)]
    assert not repeats(" ".join(words))
    assert repeats(" ".join(words * 2))
    assert not repeats(" ".join([*words, *words[:19]]))
    assert not repeats("")


# --- paired comparisons --------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_of_the_discordant_items(n_won: int, n_lost: int) -> None:
    wanted = binomtest(n_won, n_won + n_lost).pvalue if n_won + n_lost else 1.0
    assert mcnemar(n_won, n_lost) == pytest.approx(wanted)
    assert mcnemar(n_won, n_lost) == mcnemar(n_lost, n_won)


def test_the_published_split_has_its_p() -> None:
    assert mcnemar(21, 4) == pytest.approx(0.0009, abs=5e-5)
    assert mcnemar(23, 6) == pytest.approx(0.002, abs=5e-4)
    assert mcnemar(21, 13) == pytest.approx(0.23, abs=5e-3)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_a_comparison_turned_round_says_the_opposite(pairs: list[tuple[float, float]]) -> None:
    ours = {n: a for n, (a, _) in enumerate(pairs)}
    theirs = {n: b for n, (_, b) in enumerate(pairs)}
    there, back = compare(ours, theirs), compare(theirs, ours)
    assert there.gain == pytest.approx(-back.gain)
    assert (there.n_won, there.n_lost) == (back.n_lost, back.n_won)
    assert there.p == back.p
    low, high = there.interval
    assert low <= high
    if there.verdict == "better":
        assert there.gain > 0
    same = compare(ours, ours)
    assert (same.gain, same.interval, same.p) == (0, (0, 0), 1)
    assert same.verdict == "not told apart"


def test_a_verdict_is_what_the_interval_carries() -> None:
    theirs = dict.fromkeys(range(100), 0.0)
    assert compare({n: float(n < 20) for n in range(100)}, theirs).verdict == "better"
    assert compare({n: -float(n < 20) for n in range(100)}, theirs).verdict == "worse"
    mixed = {n: float((n < 12) - (n > 89)) for n in range(100)}
    assert compare(mixed, theirs).verdict == "not told apart"
    with pytest.raises(ConfigError, match="same items"):
        compare({1: 1.0}, {2: 1.0})


# --- outcomes ------------------------------------------------------------------------------------


def row(*logps: float, greedy: bool = False) -> dict[str, object]:
    n_tokens = [2] * len(logps)
    return {
        "logps": list(logps), "n_tokens": n_tokens, "greedy": greedy, "entropy_nats": 1.0,
        "notes": {"cfg_guided": 2.0 * len(logps)},
    }  # fmt: skip


def test_a_choice_is_right_where_its_option_is_likelier_per_character_in_piqa() -> None:
    choice = Choice(index=3, prompt="", options=(" a", " much longer"), gold=1)
    rows = {3: row(-2.0, -6.0)}
    assert of_choices([choice], rows, "memo-trap").values["accuracy"] == {3: 0.0}
    assert of_choices([choice], rows, "piqa").values["accuracy"] == {3: 1.0}
    even = {3: row(-2.0, -2.0)}
    assert of_choices([choice], even, "memo-trap").values["accuracy"] == {3: 0.0}
    assert of_choices([choice], rows, "piqa").usage == 1.0


def test_replies_of_several_seeds_are_averaged_by_item() -> None:
    problem = Problem(index=5, prompt="", answer="4")
    texts = ["It is 4", "It is 5", "None", "4"]
    notes = {"mti_guided": 1.0, "mti_gate_seen": 4.0}
    replies = [Reply(text=t, finish="stop", n_tokens=10, notes=notes) for t in texts]
    found = of_replies([(problem, reply) for reply in replies])
    assert found.values["accuracy"] == {5: 0.5}
    assert found.values["valid"] == {5: 0.75}
    assert found.values["n_tokens"] == {5: 10.0}
    assert found.usage == 0.25
    assert "It is" not in repr(replies)


# --- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_a_baseline_that_changes_nothing_and_controls_after_what_they_copy(
    suite: str,
) -> None:
    found = methods(suite_named(suite))
    choice = Choice(index=0, prompt="In it.", options=(" a",), passage="In")
    assert found[0].recipes(choice) == ()
    assert found[0].temperature == 0
    assert len({method.name for method in found}) == len(found)
    order = [method.name for wave in waves(found) for method in wave]
    for method in found:
        method.reading(choice)
        if method.like is not None:
            assert order.index(method.like) < order.index(method.name)


def test_a_control_comes_with_what_it_copies_and_acts_as_often() -> None:
    found = methods("lambada", ["mti-random"])
    assert [method.name for method in found] == ["plain", "mti", "mti-random"]
    choice = Choice(index=0, prompt="", options=(" a",))
    (recipe,) = found[-1].recipes(choice, share=0.4)
    assert isinstance(recipe, MinimalIntervention)
    assert (recipe.gate, recipe.share) == ("random", 0.4)
    assert found[-1].recipes(choice, share=0.0) == ()
    (untouched,) = found[1].recipes(choice, share=0.4)
    assert untouched == MinimalIntervention()


def test_a_method_that_a_suite_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match=r"no method mti, x; it has: plain, cfg-1.1"):
        methods("piqa", ["x", "mti"])
    cad = methods("memo-trap", ["cad-1"])[-1]
    with pytest.raises(ConfigError, match="passage"):
        cad.recipes(Choice(index=0, prompt="", options=(" a",)))
