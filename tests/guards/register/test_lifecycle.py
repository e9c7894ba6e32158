"""Every state, every operation, and the clock: on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

import pytest

from elision.errors import ConflictError, NotFoundError, PermissionDeniedError, TargetError
from elision.guards.lifecycle import TABLE, Operation, possible
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase, State

from .conftest import Clock, Place, on_either

SECRET = "Zyxwv Qponm"
STATES: tuple[State, ...] = get_args(State)
OPERATIONS = tuple(o for o in get_args(Operation) if o not in ("start", "expire"))


def target(**given: Any) -> ForgetTarget:
    return ForgetTarget(title="A title", phrases=(Phrase(text=SECRET),), **given)


@pytest.fixture
def clock(place: Place) -> Clock:
    return place.clock


@pytest.fixture
def register(place: Place) -> Register:
    return place.open()


def do(register: Register, operation: Operation, target_id: str, **given: Any) -> Any:
    name = "mark_previewed" if operation == "preview" else operation
    if operation == "extend":
        given = {"expires_at": register._clock() + 1000} | given
    if operation == "revoke":
        given = {"reason": "case closed"} | given
    return getattr(register, name)("default", target_id, **{"actor": "eli"} | given)


def in_state(register: Register, state: State, clock: Clock) -> str:
    """Bring a new target into *state* and return its id."""
    times = {
        "scheduled": {"effective_at": clock.now + 100},
        "expired": {"expires_at": clock.now + 1},
    }
    steps: dict[State, tuple[Operation, ...]] = {
        "draft": (),
        "previewed": ("preview",),
        "pending_approval": ("submit",),
        "suspended": ("suspend",),
        "revoked": ("revoke",),
        "purged": ("revoke", "purge"),
    }
    is_draft = state in ("draft", "previewed", "pending_approval")
    register.approval_required = state == "pending_approval"
    made = register.add(target(**times.get(state, {})), actor="dana", draft=is_draft)
    for step in steps.get(state, ()):
        do(register, step, made.target.id)
    if state == "expired":
        clock.now += 1
    register.approval_required = False
    assert register.get("default", made.target.id).state == state
    return made.target.id


# --- Laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_every_operation_in_every_state_does_what_the_table_says_or_nothing(
    place: Place, state: State
) -> None:
    register = place.open()
    for operation in OPERATIONS:
        target_id = in_state(register, state, place.clock)
        before, epoch = register.get("default", target_id), register.epoch("default")
        n_entries = len(register.audit.entries("default", limit=999))
        then = TABLE.get((state, operation))
        if then is None:
            with pytest.raises(ConflictError) as caught:
                do(register, operation, target_id)
            assert (caught.value.status, caught.value.code) == (409, "illegal_transition")
            assert f"{state!r} has no operation {operation!r}" in str(caught.value)
        elif operation == "submit":  # where nobody has to approve
            assert do(register, operation, target_id).target.state == "active"
        else:
            changed = do(register, operation, target_id)
            assert changed.target.state == register.get("default", target_id).state == then
            assert changed.target == register.get("default", target_id)
        is_change = then is not None and (state, operation) not in [
            ("revoked", "revoke"),
            ("purged", "purge"),
        ]
        assert register.epoch("default") == epoch + is_change
        assert len(register.audit.entries("default", limit=999)) == n_entries + is_change
        if not is_change:
            assert register.get("default", target_id) == before


def test_what_is_possible_is_what_the_table_has() -> None:
    for state in STATES:
        assert set(possible(state)) == {o for o in OPERATIONS if (state, o) in TABLE}
    assert possible("purged") == ("purge",)


def test_no_operation_reaches_another_tenants_target(register: Register, clock: Clock) -> None:
    kept = register.get("default", in_state(register, "active", clock))
    for operation in OPERATIONS:
        name = "mark_previewed" if operation == "preview" else operation
        given: dict[str, Any] = {"reason": "a reason"}
        if operation == "extend":
            given["expires_at"] = clock.now + 1
        with pytest.raises(NotFoundError):
            getattr(register, name)("other", kept.id, actor="eli", **given)
    assert register.get("default", kept.id) == kept
    assert register.audit.entries("other") == ()


@on_either
def test_only_active_targets_are_in_force(register: Register, clock: Clock) -> None:
    ids = {state: in_state(register, state, clock) for state in STATES}
    assert [found.id for found in register.active("default")] == [ids["active"]]
    for state, target_id in ids.items():
        [found] = register.list("default", states=[state])
        assert found.id == target_id
    assert register.list("default", states=()) == ()
    assert len(register.list("default", include_revoked=True)) == len(STATES)


# --- Time ----------------------------------------------------------------------------------------


@on_either
def test_a_target_holds_from_the_second_it_is_due_until_the_second_it_expires(
    place: Place, register: Register, clock: Clock
) -> None:
    other, t = place.open(), clock.now
    made = register.add(target(effective_at=t + 100, expires_at=t + 200))
    assert made.target.state == "scheduled"
    seen = []
    for moment in (99.999, 100, 199.999, 200, 300):
        clock.now = t + moment
        state = other.get("default", made.target.id).state
        seen.append((state, len(other.active("default")), register.epoch("default")))
    assert seen == [
        ("scheduled", 0, 1),
        ("active", 1, 2),
        ("active", 1, 2),
        ("expired", 0, 3),
        ("expired", 0, 3),
    ]
    entries = register.audit.entries("default")
    assert [(e.action, e.actor) for e in entries] == [
        ("add", "unspecified"),
        ("start", "clock"),
        ("expire", "clock"),
    ]


def test_what_fell_due_while_nobody_asked_is_caught_up_in_order(
    register: Register, clock: Clock
) -> None:
    t = clock.now
    ids = [
        register.add(target(effective_at=t + begins, expires_at=t + ends)).target.id
        for begins, ends in ((20, 30), (10, 1000))
    ]
    clock.now = t + 500
    assert register.epoch("default") == 2 + 3
    entries = register.audit.entries("default", after=2)
    done = [(e.action, ids.index(e.object_id)) for e in entries]
    assert done == [("start", 1), ("start", 0), ("expire", 0)]
    assert [found.id for found in register.active("default")] == [ids[1]]


@on_either
def test_two_processes_that_see_it_fall_due_at_once_do_it_once(place: Place) -> None:
    one, other = place.open(), place.open()
    for n in range(10):
        one.add(target(expires_at=place.clock.now + 5, case_ref=f"case {n}"))
    place.clock.now += 5
    with ThreadPoolExecutor(8) as pool:
        epochs = list(pool.map(lambda n: (one, other)[n % 2].epoch("default"), range(16)))
    assert set(epochs) == {20}
    actions = [entry.action for entry in one.audit.entries("default")]
    assert actions == ["add"] * 10 + ["expire"] * 10


def test_a_suspended_target_expires_too_and_one_that_nobody_approved_never_begins(
    place: Place, clock: Clock
) -> None:
    register = place.open(approval_required=True)
    waiting = register.add(target(effective_at=clock.now + 5)).target
    register.approval_required = False
    held = register.add(target(expires_at=clock.now + 5)).target
    register.suspend("default", held.id)
    clock.now += 5
    assert register.get("default", held.id).state == "expired"
    assert register.get("default", waiting.id).state == "pending_approval"
    register.approve("default", waiting.id, actor="eli")
    assert register.get("default", waiting.id).state == "active"


@on_either
def test_extending_moves_the_end_and_none_takes_it_away(register: Register, clock: Clock) -> None:
    t = clock.now
    made = register.add(target(expires_at=t + 10)).target
    assert register.extend("default", made.id, t + 20).target.expires_at == t + 20
    clock.now = t + 19
    assert len(register.active("default")) == 1
    assert register.extend("default", made.id, None).target.expires_at is None
    clock.now = t + 10_000
    assert register.active("default") == (replace(made, expires_at=None),)
    for past in (clock.now, clock.now - 1):
        with pytest.raises(TargetError, match="expires_at is not ahead"):
            register.extend("default", made.id, past)


def test_activating_a_scheduled_target_does_not_wait(register: Register, clock: Clock) -> None:
    made = register.add(target(effective_at=clock.now + 100)).target
    changed = register.activate("default", made.id, actor="eli")
    assert changed.target == replace(made, state="active", effective_at=clock.now)
    assert register.active("default") == (changed.target,)


def test_a_target_whose_end_has_passed_is_not_brought_into_force(
    place: Place, clock: Clock
) -> None:
    register = place.open()
    with pytest.raises(TargetError, match="expires_at has passed"):
        register.add(target(expires_at=clock.now))
    made = register.add(target(expires_at=clock.now + 5), draft=True).target
    clock.now += 5
    for operation in ("submit", "activate"):
        with pytest.raises(ConflictError, match="extend it first"):
            do(register, operation, made.id)
    register.extend("default", made.id, clock.now + 5)
    assert do(register, "activate", made.id).target.state == "active"


# --- Approval ------------------------------------------------------------------------------------


@on_either
def test_a_second_person_must_approve(place: Place, clock: Clock) -> None:
    register = place.open(approval_required=True)
    made = register.add(target(), actor="dana").target
    assert (made.state, made.requested_by) == ("pending_approval", "dana")
    assert register.active("default") == ()
    with pytest.raises(PermissionDeniedError) as caught:
        register.approve("default", made.id, actor="dana")
    assert caught.value.status == 403
    assert register.epoch("default") == 1
    approved = register.approve("default", made.id, actor="eli").target
    assert (approved.state, approved.approved_by) == ("active", "eli")
    assert register.active("default") == (approved,)


def test_where_approval_is_required_a_draft_comes_into_force_no_other_way(
    place: Place, clock: Clock
) -> None:
    register = place.open(approval_required=True)
    made = register.add(target(effective_at=clock.now + 50), actor="dana", draft=True).target
    with pytest.raises(ConflictError, match="submit it first"):
        register.activate("default", made.id, actor="eli")
    register.submit("default", made.id, actor="dana")
    assert register.approve("default", made.id, actor="eli").target.state == "scheduled"
    assert register.activate("default", made.id, actor="dana").target.state == "active"


# --- Idempotency ---------------------------------------------------------------------------------


@on_either
def test_the_same_key_and_body_register_once_and_are_answered_alike(
    place: Place, register: Register, clock: Clock
) -> None:
    first = register.add(target(), idempotency_key="k1", actor="dana")
    register.suspend("default", first.target.id)
    again = place.open().add(target(), idempotency_key="k1", actor="dana")
    assert again.to_body() == first.to_body()
    assert again.target == first.target
    assert (first.repeated, again.repeated) == (False, True)
    assert register.epoch("default") == 2
    assert len(register.list("default", include_revoked=True)) == 1


@pytest.mark.parametrize("change", [{"case_ref": "another"}, {"draft": True}])
def test_the_same_key_with_another_body_is_a_conflict(
    register: Register, change: dict[str, Any]
) -> None:
    register.add(target(), idempotency_key="k1")
    other = target(case_ref=change.get("case_ref", ""))
    with pytest.raises(ConflictError) as caught:
        register.add(other, idempotency_key="k1", draft=change.get("draft", False))
    assert (caught.value.status, caught.value.code) == (409, "idempotency_conflict")
    assert register.epoch("default") == 1


def test_keys_are_their_tenants_own_and_are_kept_for_a_day(
    register: Register, clock: Clock
) -> None:
    first = register.add(target(), idempotency_key="k1")
    assert register.add(target(tenant="a"), idempotency_key="k1").target.tenant == "a"
    clock.now += 24 * 3600 - 1
    assert register.add(target(), idempotency_key="k1").target.id == first.target.id
    clock.now += 1
    assert register.add(target(), idempotency_key="k1").target.id != first.target.id


def test_neither_key_nor_body_is_kept_with_the_answer(place: Place, register: Register) -> None:
    register.add(target(), idempotency_key="Fqzx-17")
    kept = str(place.sql("SELECT * FROM idempotency"))
    assert "Fqzx" not in kept
    assert "Qponm" not in kept


@on_either
def test_fifty_requests_with_one_key_at_once_register_once(register: Register) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = pool.map(lambda _: register.add(target(), idempotency_key="k"), range(50))
    assert len({answer.target.id for answer in answers}) == 1
    assert register.epoch("default") == 1


@on_either
def test_a_list_of_targets_is_registered_whole_or_not_at_all(register: Register) -> None:
    made = register.add_many([target(), target(case_ref="b")], idempotency_key="k")
    assert [m.epoch for m in made] == [1, 2]
    again = register.add_many([target(), target(case_ref="b")], idempotency_key="k")
    assert [m.to_body() for m in again] == [m.to_body() for m in made]
    wrong: list[Callable[[], object]] = [
        lambda: register.add_many([target(), target(tenant="a")]),
        lambda: register.add_many([target(), replace(target(), title="")]),
        lambda: register.add_many([target(), target(expires_at=1.0)]),
    ]
    for call in wrong:
        with pytest.raises(TargetError):
            call()
    assert register.epoch("default") == 2
    assert register.add_many([]) == ()


@on_either
def test_fifty_activations_at_once_have_fifty_epochs(place: Place) -> None:
    registers = [place.open() for _ in range(3)]
    ids = [m.target.id for m in registers[0].add_many([target()] * 50, draft=True)]
    with ThreadPoolExecutor(10) as pool:
        done = pool.map(
            lambda n: registers[n % 3].activate("default", ids[n], actor="eli").epoch, range(50)
        )
        assert sorted(done) == list(range(51, 101))
    assert [found.id for found in registers[1].active("default")] == ids
    assert registers[2].audit.verify().ok
