"""Exposures and the ledger in SQL: what was drawn is what is kept, and goes with its entry."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from elision.errors import NotFoundError, RequestError
from elision.memory.learning.cues import Cue
from elision.memory.learning.drawing import selection
from elision.memory.learning.entries import Entry, EntryDraft
from elision.memory.learning.episodes import Episodes
from elision.memory.learning.evidence import draw
from elision.memory.learning.exposures import Exposure, last_met
from elision.memory.learning.playbook import Playbook
from elision.memory.learning.spending import Spent
from elision.memory.records import Scope
from elision.memory.schema import evidence, exposures, moves
from elision.memory.store import Store

SCOPE = Scope("acme", ("atlas",))


def tried(playbook: Playbook, imperative: str, scope: Scope = SCOPE) -> Entry:
    cue = Cue(type="keyword", pattern="late fee")
    entry = playbook.add(scope, EntryDraft(imperative=imperative, cue=cue), actor="test")
    return playbook.admit(scope.tenant, entry.id, actor="test")


def met(name: str, position: int = 0) -> Exposure:
    return Exposure(entry=name, version=1, applied=True, propensity=0.7, position=position)


def begun(episodes: Episodes, *exposed: Exposure, scope: Scope = SCOPE) -> str:
    return episodes.begin(scope, "late fee", mode="on", lane="auto", exposures=exposed)


def test_what_is_kept_is_what_was_drawn_and_a_seed_draws_it_again(
    episodes: Episodes, playbook: Playbook, store: Store, planted: Callable[..., Entry]
) -> None:
    entries = [planted(store, "m_1", "query the ledger"), planted(store, "m_2", "mail the bank")]
    names = [str(UUID(int=n)) for n in range(40)]
    for name in names:
        found = selection(
            playbook,
            SCOPE,
            "late fee",
            {},
            n_tokens=200,
            mode="on",
            seed=9,
            episode=name,
            count=len,
        )
        episodes.begin(
            SCOPE, "late fee", mode="on", lane="auto", exposures=found.exposures, episode=name
        )
    kept = [one for name in names for one in episodes.exposures("acme", name)]
    assert len(kept) == 80
    for name in names:
        drawn = {entry.id: draw(9, name, entry.id, 0.7) for entry in entries}
        assert {one.entry: one.applied for one in episodes.exposures("acme", name)} == drawn
    assert {one.propensity for one in kept} == {0.7}
    rate = sum(one.applied for one in kept) / len(kept)
    assert abs(rate - 0.7) < 4 * sqrt(0.7 * 0.3 / len(kept))


def test_an_entry_that_is_gone_or_another_tenants_is_met_by_nobody(
    episodes: Episodes, playbook: Playbook
) -> None:
    mine = tried(playbook, "query the ledger")
    theirs = tried(playbook, "query the ledger", Scope("umbrella"))
    name = begun(episodes, met(mine.id), met(theirs.id, 1), met("m_gone", 2))
    assert [one.entry for one in episodes.exposures("acme", name)] == [mine.id]
    episodes.end(name, state="succeeded", adopted=[theirs.id])
    episodes.reward("acme", name, 1.0)
    assert playbook.tallies([theirs])[theirs.id].n_applied == 0


def test_what_is_known_of_an_entry_goes_with_its_record_and_the_episode_stays(
    episodes: Episodes, playbook: Playbook, store: Store
) -> None:
    entry, other = tried(playbook, "query the ledger"), tried(playbook, "mail the bank")
    name = begun(episodes, met(entry.id), met(other.id, 1))
    episodes.end(name, state="succeeded")
    episodes.reward("acme", name, 0.25, by="judge")
    store.remove("acme", [entry.id, str(episodes.get("acme", name).record)])
    with store.reading() as connection:
        for table in (exposures, evidence, moves):
            assert connection.scalar(select(func.count()).select_from(table)) == 1
    with pytest.raises(NotFoundError):
        playbook.evidence("acme", entry.id)
    kept = episodes.get("acme", name)
    assert (kept.record, kept.reward) == (None, 0.25)
    assert episodes.reward("acme", name, 1.0, by="human")
    [phase] = playbook.evidence("acme", other.id).phases
    assert (phase.applied.n, phase.applied.rewards) == (1, 1.0)


def test_sums_that_are_corrected_to_nothing_are_nothing_and_never_less(
    episodes: Episodes, playbook: Playbook
) -> None:
    entry = tried(playbook, "query the ledger")
    names = [begun(episodes, met(entry.id)) for _ in range(3)]
    for name, reward in zip(names, (0.1, 0.3, 0.9), strict=True):
        episodes.end(name, state="succeeded")
        episodes.reward("acme", name, reward, by="judge")
    for name in names:
        episodes.reward("acme", name, 0.0, by="env")
    [phase] = playbook.evidence("acme", entry.id).phases
    assert phase.applied.n == 3
    assert 0 <= phase.applied.rewards < 1e-12
    assert 0 <= phase.applied.rewards_sq < 1e-12


def test_an_entry_was_last_met_when_the_last_episode_began(
    episodes: Episodes, playbook: Playbook, store: Store, clock: Any
) -> None:
    entry, never = tried(playbook, "query the ledger"), tried(playbook, "mail the bank")
    for _ in range(2):
        clock.now += 10
        begun(episodes, met(entry.id))
    with store.reading() as connection:
        assert last_met(connection, (entry.id, never.id)) == {entry.id: clock.now}


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "stranger"},
        {"model": ""},
        {"model": "a\nb"},
        {"calls": -1},
        {"tokens_in": 2**31},
        {"tokens_in": 1, "tokens_cached": 2},
        {"tokens_out": -1},
        {"cost": -0.1},
        {"cost": float("inf")},
        {"wall_ms": float("nan")},
    ],
)
def test_what_nobody_can_have_spent_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Spent(**{"role": "student", "model": "m", **wrong})


def test_a_cached_token_is_a_token() -> None:
    row = Spent(role="student", model="m", tokens_in=10, tokens_cached=8, tokens_out=3)
    assert row.tokens == 13
