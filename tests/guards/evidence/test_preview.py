"""What a target would meet: counted as its activation counts, masked where it is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elision.guards.evidence.preview import MAX_EXAMPLES, Collision, collisions, preview
from elision.guards.evidence.selftest import MAX_PHRASES, SPELLINGS, self_test
from elision.guards.guard import Guard
from elision.guards.phrases.normal import N
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase

PIECES = ["Rosebud Lane", "R-o-s-e-b-u-d Lane", "Ann", "ANN", "annex", "the ", "house ", "\n", ". "]
CORPUS = st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), max_size=12)


def target(*phrases: str, id_: str = "", **fields: object) -> ForgetTarget:
    given_ = tuple(Phrase(text=phrase) for phrase in phrases)
    return ForgetTarget(id=id_, title="t", phrases=given_, **fields)  # type: ignore[arg-type]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpus=CORPUS)
def test_a_preview_counts_what_the_activation_counts(tmp_path: Path, corpus: list[str]) -> None:
    with Register.open(tmp_path / "home") as register:
        draft = register.add(target("Rosebud Lane", "Ann"), actor="ann", draft=True).target
        seen = preview(draft, corpus)
        register.activate("default", draft.id, actor="ann")
        guard = Guard.compile(register.active("default"))
        hits = [hit for text in corpus for hit in guard.scan(text) if hit.target_id == draft.id]
        register.revoke("default", draft.id, actor="ann", reason="over")
    counted = Counter((hit.phrase, hit.form) for hit in hits)
    assert counted == {(p, f): n for p, forms in seen.by_phrase.items() for f, n in forms.items()}
    assert seen.n_hits == len(hits)
    assert seen.blocked.hits == sum(bool(guard.scan(text)) for text in corpus)


@given(corpus=CORPUS)
def test_no_example_shows_a_phrase(corpus: list[str]) -> None:
    shown = preview(target("Rosebud Lane"), corpus)
    for example in shown.examples:
        assert N("Rosebud Lane") not in N(example.excerpt)
    assert len(shown.examples) == min(MAX_EXAMPLES, shown.n_hits)


def test_a_preview_by_hand() -> None:
    corpus = ["Ann came.", "Annex.", "Nobody.", "Ann met Ann in Rosebud Lane."]
    body = preview(target("Ann", "Rosebud Lane"), corpus).to_body(examples=True)
    assert body["blocked"] == {
        "hits": 2, "n": 4, "share": 0.5, "low": 0.150039, "high": 0.849961,
    }  # fmt: skip
    assert body["n_hits"] == 4
    assert body["by_phrase"] == [
        {"phrase": 0, "hits": 3, "texts": 2, "by_form": {"N_b": 3}},
        {"phrase": 1, "hits": 1, "texts": 1, "by_form": {"N": 1}},
    ]
    assert [row["phrase"] for row in body["most_blocked"]] == [0, 1]
    assert body["examples"][0]["excerpt"] == "█████ came."
    assert body["examples"][-1]["excerpt"] == "█████ met █████ in █████."
    assert [warning["code"] for warning in body["warnings"]] == ["few_letters"]


def test_only_who_may_see_examples_gets_them() -> None:
    assert "examples" not in preview(target("Ann"), ["Ann came."]).to_body(examples=False)


def test_a_match_at_the_excerpts_edge_is_masked_too() -> None:
    text = "Rosebud Lane " + "x" * 35 + " Rosebud Lane"
    for example in preview(target("Rosebud Lane"), [text]).examples:
        assert "ud" not in example.excerpt
        assert "Lane" not in example.excerpt


def test_phrases_in_common_with_targets_in_force_are_told() -> None:
    new = target("Rosebud Lane", "Marlowe", id_="new")
    others = [
        target("ROSEBUD LANE", id_="a"),
        target("12 Rosebud Lane, Dover", id_="b"),
        target("Christopher Marlowe", id_="c"),
        target("nothing of it", id_="d"),
    ]
    assert collisions(new, others) == (
        Collision("a", 0, 0, "same"),
        Collision("b", 0, 0, "within"),
        Collision("c", 0, 1, "within"),
    )
    assert collisions(others[1], [new]) == (Collision("new", 0, 0, "around"),)


def test_a_target_does_not_collide_with_itself() -> None:
    mine = target("Rosebud Lane", id_="a")
    assert preview(mine, [], active=[mine]).collisions == ()


# --- self-test ------------------------------------------------------------------------------------


@pytest.mark.parametrize("phrase", ["Rosalind Franklin", "Ann", "New York", "Grüße aus Köln"])
def test_every_spelling_of_a_phrase_is_found(phrase: str) -> None:
    tested = self_test(target(phrase))
    assert set(tested.cases) == set(SPELLINGS)
    assert {family: n for family, n in tested.leaked.items() if n} == {}


def test_a_guard_that_finds_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "hides", lambda _self, _text: False)
    tested = self_test(target("Rosalind Franklin", "Ann"))
    assert tested.leaked == dict.fromkeys(SPELLINGS, 2)
    assert tested.to_body()["leaked"] == 14


def test_what_is_not_enforced_is_not_tried() -> None:
    soft = ForgetTarget(title="t", phrases=(Phrase(text="Rosalind Franklin", mode="soft"),))
    watched = replace(target("Rosalind Franklin"), action="observe")
    assert self_test(soft).n_phrases == self_test(watched).n_phrases == 0


def test_of_a_long_list_some_are_tried() -> None:
    tested = self_test(target(*(f"phrase number {n} of many" for n in range(300))))
    assert 100 < tested.n_phrases <= MAX_PHRASES
    assert sum(tested.leaked.values()) == sum(tested.missed.values()) == 0
