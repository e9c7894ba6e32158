"""The register keeps what it acknowledged, tells every process of it, and mixes no tenants."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from sqlalchemy import text

from elision.errors import ConflictError, GuardError, NotFoundError, TargetError
from elision.guards.lifecycle import TABLE
from elision.guards.register.register import Register, Registered
from elision.guards.targets import ForgetTarget, Phrase

SECRET = "Zyxwv Qponm"
TENANTS = ("default", "a", "B.2")


def target(text: str = SECRET, *, tenant: str = "default") -> ForgetTarget:
    return ForgetTarget(title="A title", phrases=(Phrase(text=text),), tenant=tenant)


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    with Register.open(tmp_path / "state") as register:
        yield register


# --- Laws ----------------------------------------------------------------------------------------


class AnyHistory(RuleBasedStateMachine):
    """Any order of operations and hours, read through two registers on one file, against a dict."""

    added = Bundle("added")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 2_000_000_000.0
        home = Path(self.folder.name)
        self.one = Register.open(home, clock=lambda: self.now)
        self.other = Register.open(home, clock=lambda: self.now)
        self.kept: dict[str, dict[str, ForgetTarget]] = {tenant: {} for tenant in TENANTS}
        self.n_changes = dict.fromkeys(TENANTS, 0)

    def teardown(self) -> None:
        self.a_register_that_is_imported_elsewhere_is_the_same()
        assert self.one.audit.verify().ok
        assert self.one.audit.verify().count == 1 + sum(self.n_changes.values())
        self.one.close()
        self.other.close()
        self.folder.cleanup()

    def a_register_that_is_imported_elsewhere_is_the_same(self) -> None:
        options: dict[str, Any] = {
            "keys": Path(self.folder.name) / "keys",
            "clock": lambda: self.now,
        }
        with tempfile.TemporaryDirectory() as folder, Register.open(Path(folder), **options) as new:
            for tenant, kept in self.kept.items():
                new.import_(tenant, self.one.export(tenant))
                assert new.list(tenant, include_revoked=True) == tuple(kept.values())
                assert new.active(tenant) == self.one.active(tenant)

    @rule(
        target=added,
        tenant=st.sampled_from(TENANTS),
        text=st.text("abc XYZé漢\0'\"\\", min_size=1).filter(lambda t: any(map(str.isalpha, t))),
        beta=st.sampled_from([1.0, 0.6]),
        names=st.lists(st.just("N. ame"), max_size=1).map(tuple),
        begins=st.none() | st.integers(-2, 4),
        lasts=st.none() | st.integers(5, 8),
        draft=st.booleans(),
    )
    def add(
        self,
        tenant: str,
        text: str,
        beta: float,
        names: tuple[str, ...],
        begins: int | None,
        lasts: int | None,
        draft: bool,
    ) -> tuple[str, str]:
        phrase = Phrase(text=text, beta=beta, allow_echo=beta < 1)
        given = ForgetTarget(
            title="t",
            tenant=tenant,
            phrases=(phrase,),
            names=names,
            effective_at=None if begins is None else self.now + begins,
            expires_at=None if lasts is None else self.now + lasts,
        )
        made = self.one.add(given, actor="dana", draft=draft)
        self.n_changes[tenant] += 1
        assert made.epoch == self.n_changes[tenant]
        state = "draft" if draft else "scheduled" if (begins or 0) > 0 else "active"
        mine = {"id": made.target.id, "created_at": self.now, "requested_by": "dana"}
        assert made.target == replace(given, state=state, **mine)
        self.kept[tenant][made.target.id] = made.target
        return tenant, made.target.id

    @rule(
        key=added,
        through=st.sampled_from(["one", "other"]),
        operation=st.sampled_from("suspend resume revoke purge activate".split()),
    )
    def operate(self, key: tuple[str, str], through: str, operation: str) -> None:
        tenant, target_id = key
        old = self.kept[tenant][target_id]
        act = partial(getattr(getattr(self, through), operation), reason="a reason")
        then = TABLE.get((old.state, operation))
        if then == "active" and (old.expires_at or self.now + 1) <= self.now:
            then = None
        if then is None:
            with pytest.raises(ConflictError):
                act(tenant, target_id)
            return
        changed = act(tenant, target_id)
        assert changed.epoch == self.epoch_after(tenant, done=then == old.state)
        self.kept[tenant][target_id] = self.after(old, operation)
        assert changed.target == self.kept[tenant][target_id]

    def epoch_after(self, tenant: str, *, done: bool) -> int:
        self.n_changes[tenant] += not done
        return self.n_changes[tenant]

    def after(self, old: ForgetTarget, operation: str) -> ForgetTarget:
        new = replace(old, state=TABLE[old.state, operation])
        if new.state == old.state:
            return old
        if operation == "revoke":
            return replace(new, revoked_at=self.now)
        if operation == "purge":
            return replace(new, title="", phrases=(), names=())
        if operation == "activate" and (old.effective_at or 0) > self.now:
            return replace(new, effective_at=self.now)
        return new

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        for tenant, kept in self.kept.items():
            for target_id, old in kept.items():
                new = old
                if new.state == "scheduled" and (new.effective_at or 0) <= self.now:
                    new = replace(new, state="active")
                    self.n_changes[tenant] += 1
                ends = new.expires_at or self.now + 1
                if new.state in ("active", "suspended") and ends <= self.now:
                    new = replace(new, state="expired")
                    self.n_changes[tenant] += 1
                kept[target_id] = new

    @rule(key=added)
    def no_other_tenant_reaches_it(self, key: tuple[str, str]) -> None:
        tenant, target_id = key
        for stranger in {*TENANTS, "nobody"} - {tenant}:
            with pytest.raises(NotFoundError):
                self.one.get(stranger, target_id)
            with pytest.raises(NotFoundError):
                self.one.revoke(stranger, target_id, reason="r")

    @invariant()
    def both_registers_show_what_was_done(self) -> None:
        for tenant in TENANTS:
            everything = tuple(self.kept[tenant].values())
            standing = tuple(t for t in everything if t.state == "active")
            for register in (self.one, self.other):
                assert register.active(tenant) == standing
                assert register.epoch(tenant) == self.n_changes[tenant]
                assert register.list(tenant, include_revoked=True) == everything
                assert register.list(tenant) == standing


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=6, stateful_step_count=14)


def test_ids_differ_sort_by_time_and_cannot_be_guessed(register: Register) -> None:
    ids = []
    for _ in range(20):
        ids.append(register.add(target()).target.id)
        time.sleep(0.002)
    assert ids == sorted(set(ids))
    assert all(len(i) == 23 and i.startswith("ft_") for i in ids)
    assert len({i[-11:] for i in ids}) == len(ids)


def test_active_is_the_same_object_until_something_changes(register: Register) -> None:
    first = register.add(target()).target
    before = register.active("default")
    assert register.active("default") is before
    register.add(target(tenant="a"))
    assert register.active("default") is before
    register.revoke("default", first.id, reason="done")
    assert register.active("default") == ()


def test_more_tenants_than_are_kept_in_memory_stay_apart(register: Register) -> None:
    for n in range(70):
        register.add(target(tenant=f"t{n}"))
    for n in (*range(70), 0):
        [found] = register.active(f"t{n}")
        assert found.tenant == f"t{n}"


def test_the_answer_on_the_wire_has_id_state_epoch_and_warnings(register: Register) -> None:
    made = register.add(target("male"))
    body = made.to_body()
    assert [w["code"] for w in body.pop("warnings")] == ["few_letters", "common_word"]
    assert body == {"id": made.target.id, "state": "active", "epoch": 1}


# --- Errors --------------------------------------------------------------------------------------


def test_an_unknown_id_is_not_found_and_not_repeated(register: Register) -> None:
    for unknown in ("ft_" + "0" * 20, SECRET, "", "\ud800"):
        for call in (register.get, partial(register.revoke, reason="r")):
            with pytest.raises(NotFoundError) as caught:
                call("default", unknown)
            assert str(caught.value) == "this tenant has no forget target of that id"
            assert (caught.value.status, caught.value.code) == (404, "target_not_found")


def test_what_cannot_be_kept_changes_nothing(register: Register) -> None:
    made = register.add(target()).target
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("id is given by the register; leave it empty", lambda: register.add(made)),
        (
            "actor is empty; write at least one character",
            lambda: register.add(target(), actor=""),
        ),
        (
            "reason has 1001 characters, at most 1000 are possible; shorten it",
            lambda: register.revoke("default", made.id, reason="x" * 1001),
        ),
        (
            "actor holds line breaks or control characters; write one line of plain text",
            lambda: register.revoke("default", made.id, reason="r", actor="a\nb"),
        ),
        (
            "phrases[0].text is empty; write at least one character",
            lambda: register.add(target("")),
        ),
    ]
    for message, call in wrong:
        with pytest.raises(TargetError) as caught:
            call()
        assert str(caught.value) == message
    assert register.list("default") == (made,)
    assert register.epoch("default") == 1


def test_a_failing_change_leaves_neither_row_nor_epoch_nor_words(
    register: Register, tmp_path: Path
) -> None:
    register.add(target())
    with sqlite3.connect(tmp_path / "state" / "register.db") as direct:
        direct.execute("DROP TABLE audit")
    direct.close()
    with pytest.raises(GuardError) as caught:
        register.add(target(tenant="a"))
    assert str(caught.value) == "the register's database failed: no such table: audit"
    assert SECRET not in f"{caught.value.__cause__}"
    assert register.epoch("a") == 0
    assert register.list("a") == ()


def test_the_databases_own_message_hides_what_was_to_be_kept(register: Register) -> None:
    register.add(target())
    with pytest.raises(GuardError) as caught, register._database.writing() as connection:
        connection.execute(
            text("INSERT INTO epochs VALUES (:t, 1, :s)"), {"t": "default", "s": SECRET}
        )
    assert str(caught.value).endswith("UNIQUE constraint failed: epochs.tenant")
    assert SECRET not in f"{caught.value.__cause__}"


def test_a_closed_register_says_so(tmp_path: Path) -> None:
    register = Register.open(tmp_path)
    register.close()
    register.close()
    for call in (register.epoch, register.list, register.active):
        with pytest.raises(GuardError, match="the register is closed; open it again"):
            call("default")


# --- Size and speed ------------------------------------------------------------------------------


def _p50_us(call: Callable[[], object]) -> float:
    times = []
    for _ in range(201):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return sorted(times)[100] * 1e6


def test_lookups_stay_quick_among_ten_thousand_targets(register: Register) -> None:
    register.add_many([target(f"phrase {k}") for k in range(10_000)])
    assert len(register.active("default")) == 10_000
    made = register.add(target())
    assert made.epoch == 10_001
    begun = time.thread_time()
    assert register.active("default")[-1] == made.target
    assert time.thread_time() - begun < 0.1  # what has not changed is not opened again
    assert _p50_us(lambda: register.epoch("default")) <= 100
    assert _p50_us(lambda: register.active("default")) <= 1000
    assert _p50_us(lambda: register.get("default", made.target.id)) <= 1000


def test_a_target_of_ten_thousand_phrases_is_kept_whole(register: Register) -> None:
    phrases = tuple(Phrase(text=f"the phrase number {n}", beta=0.7) for n in range(10_000))
    begun = time.perf_counter()
    made: Registered = register.add(ForgetTarget(title="t", phrases=phrases))
    assert time.perf_counter() - begun < 5
    [found] = register.active("default")
    assert found == made.target
    assert found.phrases == phrases
    assert _p50_us(lambda: register.active("default")) <= 1000


# --- Files ---------------------------------------------------------------------------------------


def test_folder_and_files_are_their_owners_alone(register: Register, tmp_path: Path) -> None:
    register.add(target())
    folder = tmp_path / "state"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o700
    found = [file for file in folder.rglob("*") if file.is_file()]
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in found}
    assert set(files) >= {"register.db", "register.db-wal", "master.key", "signing.key"}
    assert set(files.values()) == {0o600}
