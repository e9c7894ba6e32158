"""Episodes: counted once whatever is sent twice, and the evidence is that of what stands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from elision.encoders.hashing import HashingEncoder
from elision.errors import ConflictError, NotFoundError, RequestError
from elision.memory.learning.cues import Cue
from elision.memory.learning.drawing import selection
from elision.memory.learning.entries import Entry, EntryDraft
from elision.memory.learning.episodes import Episodes
from elision.memory.learning.evidence import Evidence, draw
from elision.memory.learning.exposures import Exposure, Tally
from elision.memory.learning.outcomes import RANK, new_id
from elision.memory.learning.playbook import Playbook
from elision.memory.learning.spending import Spent
from elision.memory.learning.states import Action, State
from elision.memory.records import Scope
from elision.memory.schema import metadata
from elision.memory.store import Store

SCOPE = Scope("acme", ("atlas",))
TASK = "why this late fee?"


def draft(imperative: str = "query the ledger first", **given: Any) -> EntryDraft:
    return EntryDraft(
        **{"imperative": imperative, "cue": Cue(type="keyword", pattern="late fee"), **given}
    )


def met(entry: Entry, *, applied: bool = True, propensity: float = 0.7, n: int = 0) -> Exposure:
    return Exposure(
        entry=entry.id, version=entry.version, applied=applied, propensity=propensity, position=n
    )


def tried(playbook: Playbook, scope: Scope, imperative: str = "query the ledger first") -> Entry:
    entry = playbook.add(scope, draft(imperative), actor="test")
    return playbook.admit(scope.tenant, entry.id, actor="test")


def close(found: Tally, wanted: Tally) -> bool:
    """Whether two tallies agree but for the rounding of sums."""
    ours, theirs = found.evidence.phases, wanted.evidence.phases
    if (found.adopted, found.adopted_ok) != (wanted.adopted, wanted.adopted_ok):
        return False
    return [p.propensity for p in ours] == [p.propensity for p in theirs] and all(
        getattr(getattr(one, arm), name)
        == pytest.approx(getattr(getattr(other, arm), name), abs=1e-9)
        for one, other in zip(ours, theirs, strict=True)
        for arm in ("applied", "withheld")
        for name in one.applied.__slots__
    )


# Laws, against a slow and obvious model


@dataclass
class Model:
    """One episode as it was told of, kept in plain attributes."""

    arms: dict[int, tuple[bool, float]]
    ended: bool = False
    adopted: frozenset[int] = frozenset()
    reward: float | None = None
    success: bool = False
    rank: int = -1
    rows: list[Spent] = field(default_factory=list)


def expected(episodes: list[Model], entry: int) -> Tally:
    evidence, adopted, adopted_ok = Evidence(), 0, 0
    for one in episodes:
        if one.reward is None or not one.ended or entry not in one.arms:
            continue
        applied, propensity = one.arms[entry]
        tokens, cost = sum(r.tokens for r in one.rows), sum(r.cost for r in one.rows)
        evidence = evidence.after(
            propensity, applied=applied, reward=one.reward, tokens=tokens, cost=cost
        )
        followed = applied and entry in one.adopted
        adopted += followed
        adopted_ok += followed and one.success
    return Tally(evidence, adopted, adopted_ok)


rewards = st.sampled_from([0.0, 0.1, 0.25, 1.0])
arms = st.dictionaries(
    st.integers(0, 1), st.tuples(st.booleans(), st.sampled_from([0.5, 0.7])), max_size=2
)
spent = st.builds(
    Spent,
    role=st.sampled_from(["student", "judge"]),
    model=st.just("m"),
    tokens_in=st.integers(0, 50),
    tokens_out=st.integers(0, 9),
    cost=st.sampled_from([0.0, 0.1, 0.37]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), st.integers(0, 2), st.lists(spent, max_size=2)),
        st.tuples(st.just("end"), st.integers(0, 2), st.frozensets(st.integers(0, 1))),
        st.tuples(
            st.just("reward"),
            st.integers(0, 2),
            st.tuples(rewards, st.sampled_from(sorted(RANK)), st.sampled_from([None, True, False])),
        ),
    ),
    max_size=9,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Episodes, Playbook]]:
    with Store.open(tmp_path_factory.mktemp("shared")) as store:
        playbook = Playbook(store)
        yield Episodes(store, playbook), playbook


_scopes = (Scope("acme", (f"run-{n}",)) for n in itertools.count())


@settings(max_examples=12)
@given(told=st.lists(arms, min_size=1, max_size=3), done=steps)
def test_the_evidence_is_that_of_what_was_told_last_in_whatever_order(
    shared: tuple[Episodes, Playbook],
    told: list[dict[int, tuple[bool, float]]],
    done: list[tuple[str, int, Any]],
) -> None:
    episodes, playbook = shared
    scope = next(_scopes)
    entries = [tried(playbook, scope, words) for words in ("query the ledger", "mail the bank")]
    models = [Model(one) for one in told]
    names = [
        episodes.begin(
            scope,
            TASK,
            mode="on",
            lane="auto",
            exposures=[
                met(entries[n], applied=applied, propensity=p, n=n)
                for n, (applied, p) in one.items()
            ],
        )
        for one in told
    ]
    for what, n, how in done:
        model, name = models[n % len(models)], names[n % len(models)]
        if what == "spend":
            episodes.spend(name, how)
            model.rows += how
        elif what == "end":
            episodes.end(name, state="open", adopted=[entries[i].id for i in how])
            if not model.ended:
                model.ended, model.adopted = True, how
        else:
            reward, by, success = how
            taken = episodes.reward("acme", name, reward, by=by, success=success)
            assert taken is (RANK[by] > model.rank)
            if taken:
                model.reward, model.rank = reward, RANK[by]
                model.success = reward >= 0.5 if success is None else success
    for n, entry in enumerate(entries):
        assert close(playbook.tallies([entry])[entry.id], expected(models, n))
    for name, model in zip(names, models, strict=True):
        kept = episodes.get("acme", name)
        assert kept.tokens == sum(row.tokens for row in model.rows)
        assert episodes.spent("acme", name) == tuple(model.rows)
        assert kept.reward == model.reward


def test_advice_that_was_followed_in_vain_is_told_apart_and_mended_with_the_reward(
    episodes: Episodes, playbook: Playbook
) -> None:
    entry = tried(playbook, SCOPE)
    name = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(entry)])
    episodes.end(name, state="failed", adopted=[entry.id])
    for reward, by, n_ok in ((0.4, "judge", 0), (1.0, "human", 1), (0.0, "env", 0)):
        assert episodes.reward("acme", name, reward, by=by)  # type: ignore[arg-type]
        known = playbook.tallies([entry])[entry.id]
        assert (known.adopted, known.adopted_ok) == (1, n_ok)
        assert known.evidence == Evidence().after(0.7, applied=True, reward=reward)


@pytest.mark.parametrize("first", ["end", "reward"])
def test_what_is_sent_at_once_by_many_is_counted_once(
    episodes: Episodes, playbook: Playbook, first: str
) -> None:
    entry = tried(playbook, SCOPE)
    name = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(entry)])

    def send(n: int) -> bool:
        if (n % 2 == 0) is (first == "end"):
            episodes.end(name, state="succeeded", adopted=[entry.id])
            return False
        return episodes.reward("acme", name, 1.0)

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(send, range(8)))
    assert sum(taken) == 1
    wanted = Tally(Evidence().after(0.7, applied=True, reward=1.0), 1, 1)
    assert playbook.tallies([entry])[entry.id] == wanted


def test_two_processes_lose_no_count(tmp_path: Path) -> None:
    with Store.open(tmp_path) as one, Store.open(tmp_path) as other:
        playbooks = [Playbook(one), Playbook(other)]
        entry = tried(playbooks[0], SCOPE)

        def play(playbook: Playbook, store: Store) -> None:
            episodes = Episodes(store, playbook)
            for _ in range(6):
                name = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(entry)])
                episodes.end(name, state="succeeded")
                episodes.reward("acme", name, 0.5)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(play, playbooks, (one, other)))
        assert playbooks[0].evidence("acme", entry.id).phases[0].applied.n == 12


def test_without_a_reward_nothing_is_counted(episodes: Episodes, playbook: Playbook) -> None:
    entry = tried(playbook, SCOPE)
    for state in ("succeeded", "failed", "aborted", "open"):
        name = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(entry)])
        episodes.end(name, state=state, adopted=[entry.id])  # type: ignore[arg-type]
        assert episodes.get("acme", name).reward is None
    assert playbook.tallies([entry])[entry.id] == Tally()
    assert playbook.effect("acme", entry.id) is None


def test_an_entry_is_not_counted_in_the_episode_that_made_it(
    episodes: Episodes, playbook: Playbook
) -> None:
    older = tried(playbook, SCOPE)
    name = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(older)])
    episodes.end(name, state="succeeded")
    made = playbook.add(SCOPE, draft("mail the bank"), actor="distiller", parents=[name])
    playbook.admit("acme", made.id, actor="gate")
    episodes.reward("acme", name, 1.0)
    assert playbook.evidence("acme", made.id) == Evidence()
    assert playbook.evidence("acme", older.id).phases[0].applied.n == 1


def test_what_was_told_of_older_words_does_not_count_for_newer_ones(
    episodes: Episodes, playbook: Playbook
) -> None:
    old = tried(playbook, SCOPE)
    name = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(old)])
    episodes.end(name, state="succeeded")
    new = playbook.revise("acme", old.id, draft("query both ledgers"), actor="test")
    episodes.reward("acme", name, 1.0)
    assert playbook.tallies([new])[new.id] == Tally()
    assert playbook.tallies([old])[old.id].n_applied == 1


# Modes


def _rows(store: Store) -> dict[str, int]:
    with store.reading() as connection:
        return {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in metadata.sorted_tables
        }


def test_frozen_writes_the_ledger_and_the_episodes_row_and_nothing_else(
    episodes: Episodes, playbook: Playbook, store: Store
) -> None:
    entry = tried(playbook, SCOPE)
    before, standing = _rows(store), store.list(SCOPE)
    shown = _chosen(playbook, mode="frozen", episode="e")
    assert [e.id for e in shown.entries] == [entry.id]
    name = episodes.begin(SCOPE, TASK, mode="frozen", lane="auto", exposures=shown.exposures)
    episodes.spend(name, [Spent(role="student", model="m", tokens_in=5)])
    episodes.end(name, state="succeeded", adopted=[entry.id])
    assert episodes.reward("acme", name, 1.0)
    after = _rows(store)
    assert {n: after[n] - before[n] for n in after if after[n] != before[n]} == {
        "episodes": 1,
        "ledger": 1,
    }
    assert store.list(SCOPE) == standing
    assert playbook.tallies([entry])[entry.id] == Tally()
    assert (episodes.get("acme", name).reward, episodes.get("acme", name).tokens) == (1.0, 5)


def test_shadow_writes_down_what_it_met_and_counts_nothing(
    episodes: Episodes, playbook: Playbook
) -> None:
    entry = tried(playbook, SCOPE)
    shown = _chosen(playbook, mode="shadow", episode="e")
    name = episodes.begin(SCOPE, TASK, mode="shadow", lane="auto", exposures=shown.exposures)
    episodes.end(name, state="succeeded")
    episodes.reward("acme", name, 1.0)
    assert episodes.exposures("acme", name) == shown.exposures
    assert playbook.tallies([entry])[entry.id] == Tally()


def test_off_is_no_episode(episodes: Episodes) -> None:
    with pytest.raises(RequestError):
        episodes.begin(SCOPE, TASK, mode="off", lane="auto")


def _chosen(playbook: Playbook, *, mode: Any, episode: str) -> Any:
    return selection(
        playbook,
        SCOPE,
        TASK,
        {},
        n_tokens=200,
        mode=mode,
        seed=0,
        episode=episode,
        count=len,
    )


# What is asked of them


@pytest.mark.parametrize(
    "decision",
    [{"why": TASK}, {TASK: 1}, {"a": [{"b": "Ann Lee"}]}, {"a": "x" * 33}, {"a": ""}, {"a": {1}}],
)
def test_a_decision_has_no_words(episodes: Episodes, decision: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="figures and codes") as told:
        episodes.begin(SCOPE, TASK, mode="on", lane="auto", decision=decision)
    assert "Ann" not in str(told.value)
    assert TASK not in str(told.value)


def test_an_episode_is_told_as_it_was_begun(
    episodes: Episodes, playbook: Playbook, store: Store, clock: Any
) -> None:
    entry = tried(playbook, SCOPE)
    name = episodes.begin(
        SCOPE,
        TASK,
        mode="on",
        lane="coach",
        decision={"confidence": 0.5, "source": "history"},
        exposures=[met(entry, applied=False)],
    )
    clock.now += 3
    episodes.end(name, state="failed", retried=True)
    kept = episodes.get("acme", name)
    assert UUID(name).version == 7
    assert (kept.id, kept.scope, kept.lane, kept.state) == (name, SCOPE, "coach", "failed")
    assert kept.decision == {"confidence": 0.5, "source": "history"}
    assert kept.ended_at == kept.started_at + 3 == clock.now
    assert kept.retried
    assert store.find("acme", [str(kept.record)])[0].text == TASK
    assert episodes.exposures("acme", name) == (met(entry, applied=False),)
    assert TASK not in repr(kept)
    assert episodes.list(SCOPE) == (kept,)
    assert episodes.list(SCOPE, after=name) == episodes.list(Scope("acme")) == ()
    assert episodes.tasks(SCOPE) == (TASK,)


def test_another_tenant_finds_no_episode(episodes: Episodes) -> None:
    name = episodes.begin(SCOPE, TASK, mode="on", lane="auto")
    for ask in (episodes.get, episodes.exposures, episodes.spent):
        with pytest.raises(NotFoundError):
            ask("acm", name)
    with pytest.raises(NotFoundError):
        episodes.reward("acm", name, 1.0)
    with pytest.raises(NotFoundError):
        episodes.end(new_id(0.0), state="open")
    with pytest.raises(ConflictError):
        episodes.begin(Scope("acm"), TASK, mode="on", lane="auto", episode=name)


@pytest.mark.parametrize(
    ("reward", "by"),
    [(1.1, "env"), (-0.1, "env"), (float("nan"), "env"), (1.0, "me"), (True, "env")],
)
def test_what_is_no_reward_is_refused(episodes: Episodes, reward: float, by: Any) -> None:
    name = episodes.begin(SCOPE, TASK, mode="on", lane="auto")
    with pytest.raises(RequestError):
        episodes.reward("acme", name, reward, by=by)


def test_a_task_that_may_not_be_remembered_leaves_its_figures_only(tmp_path: Path) -> None:
    class Forbids:
        def may_write(self, tenant: str, text: str) -> bool:
            return "Jane" not in text

        may_read = may_write

    with Store.open(tmp_path, screen=Forbids()) as store:
        playbook = Playbook(store)
        episodes = Episodes(store, playbook)
        entry = tried(playbook, SCOPE)
        name = episodes.begin(
            SCOPE, "the late fee of Jane", mode="on", lane="auto", exposures=[met(entry)]
        )
        episodes.end(name, state="succeeded")
        episodes.reward("acme", name, 1.0)
        assert episodes.get("acme", name).record is None
        assert playbook.evidence("acme", entry.id).phases[0].applied.n == 1
    assert not any(b"Jane" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_neighbours_are_the_most_alike_of_those_whose_reward_is_known(
    episodes: Episodes, store: Store, clock: Any
) -> None:
    encoder = HashingEncoder(64)
    tasks = ["late fee of one invoice", "late fee", "a refund for shoes", "late fee unknown"]
    names = [episodes.begin(SCOPE, task, mode="on", lane="coach") for task in tasks]
    episodes.begin(Scope("acme", ("atlas", "below")), "late fee", mode="on", lane="auto")
    for n, name in enumerate(names[:3]):
        episodes.end(name, state="succeeded", retried=n == 1)
        episodes.reward("acme", name, n / 4)
    clock.now += 86_400
    vectors = encoder.embed(["late fee", *tasks], tenant="t").result()
    near = {name: float(vectors[0] @ row) for name, row in zip(names, vectors[1:], strict=True)}
    found = episodes.neighbours(SCOPE, vectors[0], 2)
    assert [past.episode for past in found] == [names[1], names[0]]
    assert [p.similarity for p in found] == pytest.approx([near[p.episode] for p in found])
    assert [(p.reward, p.retried, p.lane) for p in found] == [
        (0.25, True, "coach"),
        (0.0, False, "coach"),
    ]
    assert [p.age_days for p in found] == pytest.approx([1.0, 1.0])
    assert len(episodes.neighbours(SCOPE, vectors[0])) == 3
    assert episodes.neighbours(Scope("other"), np.ones(64, np.float32)) == ()


# Crashes


def test_an_episode_whose_process_died_is_aborted_and_may_still_end(
    episodes: Episodes, playbook: Playbook, clock: Any
) -> None:
    entry = tried(playbook, SCOPE)
    stale = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(entry)])
    clock.now += 100
    fresh = episodes.begin(SCOPE, TASK, mode="on", lane="auto")
    assert episodes.recover(60) == 1
    assert episodes.recover(60) == 0
    assert [episodes.get("acme", name).state for name in (stale, fresh)] == ["aborted", "running"]
    episodes.reward("acme", stale, 1.0)
    assert playbook.tallies([entry])[entry.id].adopted == 0
    episodes.end(stale, state="succeeded", adopted=[entry.id])
    assert episodes.get("acme", stale).state == "succeeded"
    assert playbook.tallies([entry])[entry.id] == Tally(
        Evidence().after(0.7, applied=True, reward=1.0), 1, 1
    )


def test_a_database_that_fails_midway_leaves_neither_reward_nor_count(
    episodes: Episodes, playbook: Playbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tried(playbook, SCOPE)
    name = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(entry)])
    episodes.end(name, state="succeeded")

    def fails(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Playbook, "learn", fails)
    with pytest.raises(OSError, match="gone"):
        episodes.reward("acme", name, 1.0)
    monkeypatch.undo()
    assert episodes.get("acme", name).reward is None
    assert playbook.tallies([entry])[entry.id] == Tally()
    assert episodes.reward("acme", name, 1.0)
    assert playbook.tallies([entry])[entry.id].n_applied == 1


# The lifecycle, driven through episodes


def _play(episodes: Episodes, playbook: Playbook, n: int, *, seed: int, effect: float) -> str:
    """Run one episode whose chance of success is .4, and *effect* more where it is advised."""
    name = str(UUID(int=(seed << 96) + n))
    found = selection(
        playbook,
        SCOPE,
        TASK,
        {},
        n_tokens=200,
        mode="on",
        seed=seed,
        episode=name,
        count=len,
    )
    episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=found.exposures, episode=name)
    chance = 0.4 + (effect if found.entries else 0.0)
    won = draw(seed, name, "reward", chance)
    episodes.spend(name, [Spent(role="student", model="m", tokens_out=99 + (not found.entries))])
    episodes.end(name, state="succeeded" if won else "failed")
    episodes.reward("acme", name, float(won))
    return name


def _state(playbook: Playbook, entry: Entry) -> State:
    return playbook.get("acme", entry.id).state


@pytest.mark.parametrize(("effect", "end"), [(0.6, State.PROVEN), (-0.4, State.DEMOTED)])
def test_what_strongly_helps_is_proven_and_what_strongly_harms_demoted(
    episodes: Episodes,
    playbook: Playbook,
    store: Store,
    planted: Callable[..., Entry],
    effect: float,
    end: State,
) -> None:
    entry = planted(store, "m_1")
    n = 0
    while _state(playbook, entry) is not end:
        _play(episodes, playbook, n, seed=5, effect=effect)
        n += 1
        assert n < 90
    move = playbook.moves("acme", entry.id)[-1]
    effect_now = playbook.effect("acme", entry.id)
    assert effect_now is not None
    assert move.figures["n_least"] == effect_now.n_least >= 8
    assert move.figures["mean"] == pytest.approx(effect_now.belief.mean)
    if end is State.DEMOTED:  # it is drawn for no more
        assert _state(playbook, entry) is State.DEMOTED
        last = _play(episodes, playbook, n, seed=5, effect=effect)
        assert episodes.exposures("acme", last) == ()


def test_rarity_never_demotes(episodes: Episodes, playbook: Playbook, clock: Any) -> None:
    entry = tried(playbook, SCOPE)
    for n in range(3):
        episodes.begin(SCOPE, "of something else", mode="on", lane="auto")
        clock.now += 90 * 86_400 * (n + 1)
        assert playbook.rest(SCOPE) == ()
    assert _state(playbook, entry) is State.PROVISIONAL


def test_an_entry_that_is_demoted_still_counts_what_it_was_shown_in(
    episodes: Episodes, playbook: Playbook
) -> None:
    entry = tried(playbook, SCOPE)
    name = episodes.begin(SCOPE, TASK, mode="on", lane="auto", exposures=[met(entry)])
    episodes.end(name, state="succeeded")
    playbook.act("acme", entry.id, Action.DEMOTE, actor="op")
    episodes.reward("acme", name, 1.0)
    assert playbook.evidence("acme", entry.id).phases[0].applied.n == 1
    assert _state(playbook, entry) is State.DEMOTED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("effect", "wanted", "least"),
    [(0.2, {State.ACTIVE, State.PROVEN}, 5), (-0.2, {State.DEMOTED}, 5)],
)
def test_within_two_hundred_episodes_a_planted_effect_decides(
    tmp_path: Path,
    planted: Callable[..., Entry],
    effect: float,
    wanted: set[State],
    least: int,
) -> None:
    ends = []
    for seed in range(6):
        with Store.open(tmp_path / str(seed)) as store:
            playbook = Playbook(store)
            episodes = Episodes(store, playbook)
            entry = planted(store, "m_1")
            for n in range(200):
                _play(episodes, playbook, n, seed=seed, effect=effect)
            ends.append(_state(playbook, entry))
    assert sum(end in wanted for end in ends) >= least, ends
