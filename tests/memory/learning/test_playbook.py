"""The playbook: what may be shown, who repeats whom, who moves and who has no room."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from elision.encoders.hashing import HashingEncoder
from elision.errors import ConflictError, NotFoundError, RequestError
from elision.memory.learning import moving
from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import Entry, EntryDraft
from elision.memory.learning.episodes import Episodes
from elision.memory.learning.playbook import Playbook
from elision.memory.learning.states import SHOWN, Action, State
from elision.memory.records import Draft, Scope, Trust
from elision.memory.schema import records
from elision.memory.store import Store

SCOPE = Scope("acme", ("atlas",))
ADD = Callable[..., Entry]


def draft(imperative: str = "query the ledger first", **given: Any) -> EntryDraft:
    return EntryDraft(
        **{"imperative": imperative, "cue": Cue(type="keyword", pattern="late fee"), **given}
    )


@pytest.fixture
def tried(playbook: Playbook) -> ADD:
    """Add an entry and let it be tried."""

    def add(imperative: str = "query the ledger first", **given: Any) -> Entry:
        told = {name: given.pop(name) for name in ("scope", "trust", "parents") if name in given}
        scope = told.pop("scope", SCOPE)
        entry = playbook.add(scope, draft(imperative, **given), actor="test", **told)
        return playbook.admit(scope.tenant, entry.id, actor="test")

    return add


def demoted(playbook: Playbook, entry: Entry) -> Entry:
    return playbook.act("acme", entry.id, Action.DEMOTE, actor="test")


def eligible(playbook: Playbook, **given: Any) -> list[str]:
    found = playbook.eligible(SCOPE, "why this late fee?", {}, **given)
    return [entry.imperative for entry in found]


# What is shown


def test_only_shown_states_are_eligible(playbook: Playbook, store: Store, tried: ADD) -> None:
    entry = tried()
    for state in State:
        with store.writing() as writing:
            row = update(records).where(records.c.id == entry.id).values(state=state.value)
            writing.connection.execute(row)
        assert bool(eligible(playbook)) is (state in SHOWN)


def test_what_is_trusted_too_little_is_not_shown_whatever_its_state(
    playbook: Playbook, tried: ADD
) -> None:
    for n, trust in enumerate(Trust):
        for audience in ("student", "teacher", "judge"):
            tried(f"{audience} way {n} of it", audience=audience, trust=trust)
    for audience, least in (("student", 2), ("teacher", 3), ("judge", 3)):
        found = playbook.eligible(SCOPE, "late fee", {}, audience=audience)  # type: ignore[arg-type]
        assert sorted(entry.trust for entry in found) == list(range(least, 5))
        assert {entry.audience for entry in found} == {audience}
    assert len(playbook.eligible(SCOPE, "late fee", {}, least_trust=Trust.OPERATOR)) == 1


def test_neither_another_tenants_nor_another_namespaces_entries_are_shown(
    playbook: Playbook, tried: ADD
) -> None:
    labels = ["a", "ab", "a%", "_", "ä.b"]
    scopes = [Scope(t, (*n,)) for t in labels for n in ((), ("x",), ("x", "y"))]
    for n, scope in enumerate(scopes):
        tried(f"do number {n}", scope=scope)
    for n, scope in enumerate(scopes):
        found = playbook.eligible(scope, "late fee", {})
        assert [(e.imperative, e.scope) for e in found] == [(f"do number {n}", scope)]
        other = scopes[(n + 3) % len(scopes)]
        with pytest.raises(NotFoundError):
            playbook.get(other.tenant, found[0].id)
        with pytest.raises(NotFoundError):
            playbook.act(other.tenant, found[0].id, Action.QUARANTINE, actor="test")


def test_what_the_screen_forbids_later_is_no_longer_shown(tmp_path: Path) -> None:
    class Forbids:
        words = "nothing"

        def may_write(self, tenant: str, text: str) -> bool:
            return self.words not in text

        may_read = may_write

    screen = Forbids()
    with Store.open(tmp_path, screen=screen) as store:
        playbook = Playbook(store)
        entry = playbook.add(SCOPE, draft(limits="not for Jane Doe"), actor="test")
        playbook.admit("acme", entry.id, actor="test")
        assert eligible(playbook)
        screen.words = "Jane Doe"
        assert not eligible(playbook)
        with pytest.raises(RequestError) as refused:
            playbook.add(SCOPE, draft("ask", body="of Jane Doe"), actor="test")
        assert refused.value.code == "screened"
        assert "Jane" not in str(refused.value)


def test_an_unreadable_entry_is_passed_over_and_its_id_told(
    playbook: Playbook, store: Store, tried: ADD, caplog: pytest.LogCaptureFixture
) -> None:
    good = tried()
    bad = store.put(SCOPE, Draft(text="secret", value={"s": "t"}, kind="advice", state="active"))
    assert eligible(playbook) == [good.imperative]
    assert bad.id in caplog.text
    assert "secret" not in caplog.text


def test_a_semantic_cue_fires_by_the_tasks_vector(playbook: Playbook, tried: ADD) -> None:
    cue = Cue(type="semantic", pattern="customers ask about a late fee", min_sim=0.3)
    tried("query the ledger", cue=cue)
    assert playbook.eligible(SCOPE, "a customer asks about a late fee", {})
    assert not playbook.eligible(SCOPE, "zzz qqq", {})


def test_cues_read_the_facts(playbook: Playbook, tried: ADD) -> None:
    tried("query the ledger", cue=Cue(type="predicate", pattern="amount > 5 and refund"))
    assert playbook.eligible(SCOPE, "", {"amount": 6.0, "refund": True})
    assert not playbook.eligible(SCOPE, "amount > 5 and refund", {"amount": 5.0, "refund": True})


@pytest.mark.parametrize("sealed", [False, True])
def test_entries_are_the_same_after_the_store_was_closed(tmp_path: Path, sealed: bool) -> None:
    encoder = HashingEncoder(64)
    with Store.open(tmp_path, encoder=encoder, sealed=sealed) as store:
        made = Playbook(store).add(SCOPE, draft(handle="sql", args={"x": [1]}), actor="test")
        assert made.vector is not None
        assert made.vector == pytest.approx(encoder.embed([made.text], tenant="a").result()[0])
    with Store.open(tmp_path, encoder=encoder) as store:
        again = Playbook(store).get("acme", made.id)
        assert again == made
        assert (again.vector == made.vector).all()
    assert sealed is not any(b"query the" in f.read_bytes() for f in tmp_path.glob("memory.db*"))


# What it was made from


def test_trust_is_the_least_of_what_it_was_made_from_and_no_more_than_said(
    playbook: Playbook, store: Store, tried: ADD
) -> None:
    parents = [store.put(SCOPE, Draft(text=t.name, trust=t)).id for t in Trust]
    for most in Trust:
        for n in (1, 3):
            entry = tried(f"way {most} {n}", trust=most, parents=parents[n:])
            assert entry.trust == min(most, n)


def test_what_was_made_from_something_erased_is_not_kept(
    playbook: Playbook, episodes: Episodes, store: Store
) -> None:
    episode = episodes.begin(SCOPE, "a late fee", mode="on", lane="auto")
    record = episodes.get("acme", episode).record
    assert record is not None
    entry = playbook.add(SCOPE, draft(), actor="test", parents=[episode], trust=Trust.OPERATOR)
    assert entry.trust == Trust.USER
    store.remove("acme", [record])
    for parent in (episode, record):
        with pytest.raises(RequestError) as refused:
            playbook.add(SCOPE, draft("another thing"), actor="test", parents=[parent])
        assert refused.value.code == "no_parent"
    assert len(playbook.entries(SCOPE, states=tuple(State))) == 1


# Who repeats whom


def test_a_repetition_is_kept_once_and_leaves_the_older_as_it_is(
    playbook: Playbook, tried: ADD
) -> None:
    older = tried(effect="saves time")
    again = playbook.add(SCOPE, draft(effect="saves Time"), actor="test", trust=Trust.EXTERNAL)
    assert again == older
    assert playbook.get("acme", older.id) == older
    assert playbook.add(SCOPE, draft(effect="saves time", handle="sql"), actor="t").id != older.id
    assert playbook.add(Scope("acme", ("b",)), draft(), actor="test").id != older.id


def test_a_demoted_entry_takes_the_newer_words_and_is_tried_anew(
    playbook: Playbook, tried: ADD
) -> None:
    older = demoted(playbook, tried(effect="saves time"))
    again = playbook.add(SCOPE, draft(effect="saves Time"), actor="x", trust=Trust.TOOL)
    assert (again.id, again.version) == (older.id, older.version + 1)
    assert (again.effect, again.state) == ("saves Time", State.PROVISIONAL)
    assert again.trust == Trust.TOOL
    last = playbook.moves("acme", again.id)[-1]
    assert (last.source, last.target, last.reason) == (State.DEMOTED, State.PROVISIONAL, "revise")


def test_who_repeats_an_entry_under_quarantine_stays_there_with_it(playbook: Playbook) -> None:
    held = playbook.add(SCOPE, draft(), actor="scan", quarantine="instruction")
    assert held.state is State.QUARANTINED
    assert [m.reason for m in playbook.moves("acme", held.id)] == ["instruction"]
    assert playbook.add(SCOPE, draft(), actor="test") == held
    assert playbook.add(SCOPE, draft(), actor="test", quarantine="other") == held
    with pytest.raises(ConflictError):
        playbook.admit("acme", held.id, actor="test")
    assert playbook.act("acme", held.id, Action.APPROVE, actor="op").state is State.PROVISIONAL


def test_a_suspect_repetition_does_not_take_a_good_entry_with_it(
    playbook: Playbook, tried: ADD
) -> None:
    good = tried()
    held = playbook.add(SCOPE, draft(), actor="scan", quarantine="instruction")
    assert (held.state, held.id == good.id) == (State.QUARANTINED, False)
    assert playbook.get("acme", good.id) == good


# Who moves


def test_every_move_is_written_down(playbook: Playbook, tried: ADD, clock: Any) -> None:
    entry = tried()
    clock.now += 5
    playbook.act("acme", entry.id, Action.DEMOTE, actor="op", reason="complaint")
    restored = playbook.act("acme", entry.id, Action.RESTORE, actor="op")
    assert (restored.state, restored.version) == (State.ACTIVE, 2)
    told = [(m.source, m.target, m.reason, m.actor) for m in playbook.moves("acme", entry.id)]
    assert told == [
        ("candidate", "provisional", "admit", "test"),
        ("provisional", "demoted", "complaint", "op"),
        ("demoted", "active", "restore", "op"),
    ]
    assert [m.at - clock.now for m in playbook.moves("acme", entry.id)] == [-5, 0, 0]


def test_what_a_state_does_not_allow_changes_nothing(playbook: Playbook, tried: ADD) -> None:
    entry = tried()
    moves = playbook.moves("acme", entry.id)
    for action in (Action.ADMIT, Action.RESTORE, Action.APPROVE, Action.ERASE):
        with pytest.raises(ConflictError):
            playbook.act("acme", entry.id, action, actor="test")
    for reason in ("Jane Doe", "x" * 33, "a\nb"):
        with pytest.raises(RequestError):
            playbook.act("acme", entry.id, Action.DEMOTE, actor="test", reason=reason)
    assert playbook.get("acme", entry.id) == entry
    assert playbook.moves("acme", entry.id) == moves


def test_of_two_that_act_at_once_one_is_refused(playbook: Playbook) -> None:
    entry = playbook.add(SCOPE, draft(), actor="test")

    def admit(n: int) -> str:
        try:
            return playbook.admit("acme", entry.id, actor=f"op-{n}").state
        except ConflictError:
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(admit, range(4)))
    assert found == ["provisional", "refused", "refused", "refused"]
    assert len(playbook.moves("acme", entry.id)) == 1


def test_of_many_that_add_the_same_at_once_one_is_kept(playbook: Playbook) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: playbook.add(SCOPE, draft(), actor="t").id, range(8)))
    assert len(found) == 1


# Who has no room


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "ROOM", {State.PROVISIONAL: 3, State.ACTIVE: 2})


@pytest.mark.usefixtures("narrow")
def test_the_provisional_one_that_matched_longest_ago_goes_first(
    playbook: Playbook, episodes: Episodes, tried: ADD, clock: Any
) -> None:
    from elision.memory.learning.exposures import Exposure

    first, *_ = (tried(f"way {n} of all") for n in range(3))
    others = [e for e in playbook.entries(SCOPE) if e.id != first.id]
    clock.now += 60
    met = Exposure(entry=first.id, version=1, applied=False, propensity=0.7, position=0)
    episodes.begin(SCOPE, "late fee", mode="on", lane="auto", exposures=[met])
    clock.now += 60
    tried("quite another way")
    standing = {e.id for e in playbook.entries(SCOPE)}
    assert first.id in standing
    gone = [e for e in others if e.id not in standing]
    assert len(gone) == 1
    assert playbook.get("acme", gone[0].id).state is State.RETIRED
    last = playbook.moves("acme", gone[0].id)[-1]
    assert (last.reason, last.actor) == ("no_room", "lifecycle")
    assert len(playbook.entries(Scope("acme", ("other",)))) == 0


@pytest.mark.usefixtures("narrow")
def test_proven_entries_take_of_the_actives_room_and_never_retire(
    playbook: Playbook, store: Store, tried: ADD
) -> None:
    def active(name: str) -> Entry:
        demoted(playbook, entry := tried(name))
        return playbook.act("acme", entry.id, Action.RESTORE, actor="op")

    one, two = active("way one of it"), active("the second manner")
    store.change("acme", one.id, state="proven")
    three = active("third thing to try")
    states = {e.id: playbook.get("acme", e.id).state for e in (one, two, three)}
    assert states[one.id] is State.PROVEN
    assert sorted(states.values()) == ["active", "proven", "retired"]


def test_a_demoted_entry_retires_after_thirty_days_or_two_hundred_episodes(
    playbook: Playbook, episodes: Episodes, store: Store, tried: ADD, clock: Any
) -> None:
    early = demoted(playbook, tried("way one of it"))
    clock.now += 29.5 * 86_400
    late = demoted(playbook, tried("the second manner"))
    assert playbook.rest(SCOPE) == ()
    clock.now += 86_400
    assert [e.id for e in playbook.rest(SCOPE)] == [early.id]
    assert playbook.moves("acme", early.id)[-1].reason == "unchanged"
    playbook = Playbook(store, policy=moving.Policy(unchanged_episodes=2))
    episodes.begin(Scope("acme", ("other",)), "late fee", mode="on", lane="auto")
    episodes.begin(SCOPE, "late fee", mode="on", lane="auto")
    assert playbook.rest(SCOPE) == ()
    episodes.begin(SCOPE, "late fee", mode="on", lane="auto")
    assert [e.id for e in playbook.rest(SCOPE)] == [late.id]
    assert playbook.rest(SCOPE) == ()


def test_a_record_of_an_entry_holds_its_words_in_its_body_only(
    playbook: Playbook, store: Store, tried: ADD
) -> None:
    entry = tried("xylophone", effect="quartz", handle="zither", body="jukebox")
    playbook.act("acme", entry.id, Action.QUARANTINE, actor="op", reason="test")
    with store.reading() as connection:
        [row] = connection.execute(select(records).where(records.c.id == entry.id)).mappings()
    others = repr({name: value for name, value in row.items() if name != "body"})
    for word in ("xylophone", "quartz", "zither", "jukebox"):
        assert word in bytes(row["body"]).decode()
        assert word not in others
