"""Selection: packed before any draw, withheld as often as said, and one of a party at most."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.memory.learning.cues import Cue
from elision.memory.learning.drawing import (
    draw_all,
    packed_parties,
    selection,
    show_all,
    show_none,
)
from elision.memory.learning.entries import Entry, EntryDraft
from elision.memory.learning.evidence import Evidence
from elision.memory.learning.lifecycle import Policy
from elision.memory.learning.playbook import Playbook
from elision.memory.learning.states import SHOWN, State
from elision.memory.records import Scope, Trust
from elision.memory.store import Store

POLICY = Policy()
SCOPE = Scope("acme", ("atlas",))
RUNS = 1500


def words(text: str) -> int:
    return len(text.split())


def entry(name: str, *, angle: float | None = None, **given: Any) -> Entry:
    vector = None if angle is None else np.asarray([np.cos(angle), np.sin(angle)], np.float32)
    told = {
        "imperative": "query the ledger",
        "cue": Cue(type="keyword", pattern="late fee"),
        "id": name,
        "scope": SCOPE,
        "state": State.PROVISIONAL,
        "trust": Trust.USER,
        "version": 1,
        "created_at": 0.0,
        "updated_at": 0.0,
        "vector": vector,
        **given,
    }
    return Entry(**told)


def pair(*names: str) -> tuple[Entry, ...]:
    """Entries of which each contradicts its neighbours."""
    said = ("query the ledger", "do not query the ledger")
    return tuple(entry(n, angle=0.0, imperative=said[i % 2]) for i, n in enumerate(names))


@st.composite
def playbooks(draw: st.DrawFn) -> list[Entry]:
    names = draw(st.lists(st.text("abcdef", min_size=1, max_size=3), max_size=10, unique=True))
    return [
        entry(
            name,
            angle=draw(st.sampled_from([None, 0.0, 0.3, 0.7, 1.5])),
            state=draw(st.sampled_from(SHOWN)),
            imperative=draw(st.sampled_from(["query it", "do not query it", "mail them at once"])),
            effect=draw(st.text("ab ", max_size=40)),
        )
        for name in names
    ]


def packed(entries: list[Entry], n_tokens: int = 60) -> tuple[tuple[Entry, ...], ...]:
    return packed_parties(entries, dict.fromkeys((e.id for e in entries), 0.1), n_tokens, words)


@given(playbooks(), st.integers(0, 120))
def test_the_longest_line_of_each_place_fits_whatever_the_coin_will_say(
    entries: list[Entry], n_tokens: int
) -> None:
    found = packed(entries, n_tokens)
    assert sum(max(words(e.line) for e in party) for party in found) <= n_tokens
    assert len(found) <= 8
    assert {e.id for p in found for e in p} <= {e.id for e in entries}


@given(playbooks(), st.integers(0, 9), st.uuids())
def test_whoever_was_packed_is_in_an_arm_and_nobody_else(
    entries: list[Entry], seed: int, episode: Any
) -> None:
    found = packed(entries)
    met = draw_all(found, POLICY, seed=seed, episode=str(episode))
    assert [m.entry for m in met] == [e.id for party in found for e in party]
    assert [m.position for m in met] == list(range(len(met)))
    assert met == draw_all(found, POLICY, seed=seed, episode=str(episode))
    for party in found:
        shown = [m for m in met if m.applied and m.entry in {e.id for e in party}]
        assert len(shown) == 1 if len(party) > 1 else len(shown) <= 1
    evidence = Evidence()
    for one in met:  # each arm could be drawn under the propensity that is told
        evidence = evidence.after(one.propensity, applied=one.applied, reward=1.0)


@pytest.mark.parametrize("state", SHOWN)
def test_an_entry_is_shown_as_often_as_its_propensity_says(state: State) -> None:
    party = [(entry("m_1", state=state),)]
    met = [draw_all(party, POLICY, seed=3, episode=f"e{n}")[0] for n in range(RUNS)]
    propensity = POLICY.propensity(state)
    assert {m.propensity for m in met} == {propensity}
    off = sum(m.applied for m in met) / RUNS - propensity
    assert abs(off) < 4 * sqrt(propensity * (1 - propensity) / RUNS)


@pytest.mark.parametrize("n", [2, 3])
def test_of_a_party_each_is_shown_as_often(n: int) -> None:
    party = [pair(*(f"m_{i}" for i in range(n)))]
    counts: Counter[str] = Counter()
    for run in range(RUNS):
        met = draw_all(party, POLICY, seed=1, episode=f"e{run}")
        assert {m.propensity for m in met} == {1 / n}
        counts[next(m.entry for m in met if m.applied)] += 1
    for name in (e.id for e in party[0]):
        assert abs(counts[name] / RUNS - 1 / n) < 4 * sqrt((n - 1) / n / n / RUNS)


def test_two_entries_are_withheld_independently() -> None:
    parties = [(entry("m_1"),), (entry("m_2"),)]
    drawn = [draw_all(parties, POLICY, seed=0, episode=f"e{n}") for n in range(RUNS)]
    both = sum(a.applied and b.applied for a, b in drawn) / RUNS
    assert abs(both - 0.49) < 4 * sqrt(0.49 * 0.51 / RUNS)


def test_a_contradiction_that_says_nearly_the_same_is_packed_with_its_other_half() -> None:
    one, other = pair("m_1", "m_2")
    longest = max(words(one.line), words(other.line))
    assert packed([one, other], longest) == ((one, other),)
    assert packed([one, other], longest - 1) == ()


def test_frozen_shows_all_and_of_a_party_the_one_worth_most() -> None:
    parties = [pair("m_1", "m_2"), (entry("m_3"),)]
    met = show_all(parties, {"m_1": 0.1, "m_2": 0.2, "m_3": 0.0})
    assert [(m.entry, m.applied, m.propensity) for m in met] == [
        ("m_1", False, 0.0),
        ("m_2", True, 1.0),
        ("m_3", True, 1.0),
    ]


def test_shadow_shows_nothing_and_writes_all_down() -> None:
    met = show_none([pair("m_1", "m_2"), (entry("m_3"),)])
    assert [(m.entry, m.applied, m.propensity) for m in met] == [
        (name, False, 0.0) for name in ("m_1", "m_2", "m_3")
    ]


# From a playbook in a store


def chosen(playbook: Playbook, episode: str = "e", **given: Any) -> Any:
    told = {"n_tokens": 200, "mode": "on", "seed": 0, "count": words, **given}
    return selection(playbook, SCOPE, "why this late fee?", {}, episode=episode, **told)


def test_nothing_shown_is_no_block_at_all_and_its_digest_is_that_of_off(
    playbook: Playbook, store: Store, planted: Callable[..., Entry]
) -> None:
    off = selection(
        None,  # type: ignore[arg-type]  # off asks the playbook nothing
        SCOPE,
        "late fee",
        {},
        n_tokens=200,
        mode="off",
        seed=0,
        episode="e",
        count=words,
    )
    assert (off.block, off.exposures, off.entries) == ("", (), ())
    assert chosen(playbook) == off
    planted(store, "m_1")
    withheld = [s for s in (chosen(playbook, f"e{n}") for n in range(20)) if not s.entries]
    assert withheld
    assert all(s.block == "" and s.digest == off.digest and s.exposures for s in withheld)
    shadow = chosen(playbook, mode="shadow")
    assert (shadow.block, shadow.digest, len(shadow.exposures)) == ("", off.digest, 1)


def test_the_block_is_the_same_bytes_for_the_same_entries_and_versions(
    playbook: Playbook, store: Store, planted: Callable[..., Entry]
) -> None:
    first = planted(store, "m_1", "query the ledger")
    second = planted(store, "m_2", "mail the customer")
    blocks: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for n in range(60):
        found = chosen(playbook, f"e{n}")
        names = tuple(e.id for e in found.entries)
        blocks.setdefault(names, set()).add((found.block, found.digest))
    assert set(blocks) == {(), (first.id,), (second.id,), (first.id, second.id)}
    assert all(len(same) == 1 for same in blocks.values())
    assert len({one.pop() for one in blocks.values()}) == 4


def test_a_new_version_gives_another_block_and_digest(
    playbook: Playbook, store: Store, planted: Callable[..., Entry]
) -> None:
    old = planted(store, "m_1")
    before = chosen(playbook, mode="frozen")
    playbook.revise(
        "acme",
        old.id,
        EntryDraft(imperative="query the new ledger", cue=old.cue),
        actor="test",
    )
    after = chosen(playbook, mode="frozen")
    assert [e.id for e in after.entries] == [e.id for e in before.entries]
    assert (after.block, after.digest) != (before.block, before.digest)


def test_the_fence_differs_from_tenant_to_tenant(
    playbook: Playbook, store: Store, planted: Callable[..., Entry]
) -> None:
    planted(store, "m_1")
    mine = chosen(playbook, mode="frozen").block
    other = chosen(playbook, mode="frozen", secret=playbook.secret("umbrella")).block
    fence = re.compile(r"<<<advice ([0-9a-f]{8})>>>")
    assert fence.match(mine)
    assert fence.match(other)
    assert mine.splitlines()[1:-1] == other.splitlines()[1:-1]
    assert mine.splitlines()[0] != other.splitlines()[0]


def test_withheld_entries_leave_their_room_empty(
    playbook: Playbook, store: Store, planted: Callable[..., Entry]
) -> None:
    for n, imperative in enumerate(("query the ledger", "mail the customer", "wait for a bank")):
        planted(store, f"m_{n}", imperative)
    line = max(words(e.line) for e in playbook.entries(SCOPE))
    found = [chosen(playbook, f"e{n}", n_tokens=line) for n in range(30)]
    assert {len(s.exposures) for s in found} == {1}
    assert len({s.exposures[0].entry for s in found}) == 1
    assert {len(s.entries) for s in found} == {0, 1}
