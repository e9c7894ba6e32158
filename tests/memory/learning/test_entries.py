"""Learning entries: checked when made, and the same again when read from their record."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import RequestError, StoreError
from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import (
    ADVICE,
    LONGEST,
    EntryDraft,
    from_record,
    to_record,
    value_of,
)
from elision.memory.learning.states import State
from elision.memory.records import Record, Scope, Trust

CUE = Cue(type="keyword", pattern="overdue invoice")
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=120)
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2)
objects = st.recursive(
    st.dictionaries(st.text("xyz", min_size=1, max_size=2), scalars, max_size=3),
    lambda inner: st.dictionaries(st.text("xyz", min_size=1, max_size=2), inner, max_size=2),
    max_leaves=6,
)
drafts = st.builds(
    EntryDraft,
    imperative=texts.filter(str.strip),
    cue=st.builds(
        Cue,
        type=st.sampled_from(["keyword", "semantic"]),
        pattern=texts.filter(str.strip),
        min_sim=st.floats(-1, 1),
    ),
    audience=st.sampled_from(["student", "teacher", "judge"]),
    purpose=st.sampled_from(["guidance", "plan_seed", "failure_mode", "stop_rule"]),
    handle=st.just("sql.query"),
    args=st.none() | objects,
    effect=texts,
    limits=texts,
    body=texts,
)


def draft(**given: Any) -> EntryDraft:
    return EntryDraft(**{"imperative": "read the ledger first", "cue": CUE, **given})


def kept(one: EntryDraft, *, version: int = 1, **given: Any) -> Record:
    told = {
        "id": "m_1",
        "scope": Scope("t", ("atlas",)),
        "key": "k",
        "kind": ADVICE,
        "text": one.text,
        "value": value_of(one, version),
        "state": "active",
        "trust": Trust.TOOL,
        "version": 7,
        "created_at": 1.0,
        "updated_at": 2.0,
        **given,
    }
    return Record(**told)


@given(drafts, st.integers(1, 99))
def test_an_entry_comes_back_from_its_record_as_it_was(one: EntryDraft, version: int) -> None:
    entry = from_record(kept(one, version=version))
    assert all(getattr(entry, f.name) == getattr(one, f.name) for f in fields(EntryDraft))
    assert (entry.version, entry.state, entry.trust) == (version, State.ACTIVE, Trust.TOOL)
    assert value_of(entry, version) == value_of(one, version)


@given(drafts)
def test_a_new_record_is_a_candidate_of_the_first_version(one: EntryDraft) -> None:
    record = to_record(one, key="k", trust=Trust.EXTERNAL, parents=("m_2",))
    assert (record.kind, record.state, record.value["version"]) == (ADVICE, "candidate", 1)
    assert (record.trust, record.parents) == (Trust.EXTERNAL, ("m_2",))
    assert record.text.startswith(one.imperative)
    assert record.text.endswith(one.cue.pattern)


@pytest.mark.parametrize("name", LONGEST)
def test_a_text_is_refused_from_one_character_too_many_and_never_quoted(name: str) -> None:
    assert getattr(draft(**{name: "q" * LONGEST[name]}), name)
    with pytest.raises(RequestError) as refused:
        draft(**{name: "q" * (LONGEST[name] + 1)})
    assert refused.value.param == name
    assert "qq" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"imperative": "  "},
        {"imperative": "\ud800"},
        {"audience": "stranger"},
        {"purpose": "spam"},
        {"handle": ""},
        {"handle": "a\nb"},
        {"args": {"x": 1}},
        {"handle": "sql", "args": ["x"]},
        {"effect": 5},
    ],
)
def test_what_is_no_entry_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        draft(**wrong)


def test_neither_an_entry_nor_its_draft_shows_its_words_when_printed() -> None:
    one = draft(handle="tool-h", args={"a": "arg-a"}, effect="eff-e", limits="lim-l", body="bod-b")
    entry = from_record(kept(one))
    for word in ("ledger", "invoice", "tool-h", "arg-a", "eff-e", "lim-l", "bod-b", "atlas"):
        assert word not in repr(one)
        assert word not in repr(entry)


@given(st.data())
def test_a_damaged_record_is_told_by_its_id_and_nothing_of_its_words(data: st.DataObject) -> None:
    value = value_of(draft(body="secret body"), 1)
    name = data.draw(st.sampled_from(sorted(value)))
    if data.draw(st.booleans()):
        del value[name]
    else:
        value[name] = data.draw(st.sampled_from([3.5, "secret" * 200, ["secret"], {"secret": 1}]))
    if name in {"args", "handle"} and name in value:
        value["handle"] = 3.5
    with pytest.raises(StoreError, match="'m_1'") as damaged:
        from_record(kept(draft(), value=value))
    assert "secret" not in str(damaged.value)
    assert damaged.value.__suppress_context__


@pytest.mark.parametrize("given", [{"kind": "note"}, {"state": "glorious"}])
def test_a_record_of_another_kind_or_state_is_no_entry(given: dict[str, str]) -> None:
    with pytest.raises(StoreError):
        from_record(kept(draft(), **given))


@given(objects, objects, st.sampled_from(["sql", "mail", None]))
def test_a_call_follows_an_entry_if_it_is_the_tool_and_holds_the_arguments(
    wanted: dict[str, Any], more: dict[str, Any], tool: str | None
) -> None:
    one = draft(handle="sql", args=wanted)
    call = {**more, **wanted}
    assert one.is_followed_by(tool, call) is (tool == "sql")
    assert not replace(one, handle=None, args=None).is_followed_by(tool, call)
    assert not one.is_followed_by("sql", {}) or not wanted
    for name in wanted:
        assert not one.is_followed_by("sql", {k: v for k, v in call.items() if k != name})
        assert not one.is_followed_by("sql", {**call, name: "another"})


@pytest.mark.parametrize(("wanted", "found"), [(1, True), (0, False), (True, 1)])
def test_one_is_not_true_in_arguments(wanted: object, found: object) -> None:
    assert not draft(handle="sql", args={"x": wanted}).is_followed_by("sql", {"x": found})


def test_the_line_of_an_entry_is_what_its_advice_shows() -> None:
    entry = from_record(kept(draft(effect="saves a query", limits="the ledger is empty")))
    assert entry.line == (
        "[m_1] when overdue invoice -> read the ledger first; why saves a query;"
        " not when the ledger is empty"
    )
