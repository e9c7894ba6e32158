"""The audit log shows every alteration, and holds nothing that a purge would have to reach."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError, GuardError
from elision.guards.register.audit import Checkpoint, Entry, verify_export
from elision.guards.register.chain import hash_of
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase

from .conftest import Clock, Place, on_either

SECRET = "Zyxwv Qponm"


def target(**given: Any) -> ForgetTarget:
    return ForgetTarget(title="A title", phrases=(Phrase(text=SECRET),), **given)


@pytest.fixture
def clock(place: Place) -> Clock:
    return place.clock


@pytest.fixture
def register(place: Place) -> Register:
    return place.open()


def fill(register: Register, clock: Clock, n: int = 6) -> list[str]:
    ids = []
    for k in range(n):
        clock.now += 1
        ids.append(register.add(target(case_ref=f"{k}"), actor="dana").target.id)
    return ids


def chain(n: int) -> list[dict[str, Any]]:
    """Return a log of *n* entries, made without a register."""
    made: list[dict[str, Any]] = []
    for seq in range(n):
        details = {"log_id": "L", "n": seq} if seq == 0 else {"n": seq}
        entry = Entry.linked(
            seq=seq, ts=f"2030-01-01T00:00:{seq:02}.000Z", tenant="t" if seq else "",
            actor="dana", action="add" if seq else "genesis", object_id="ft", object_version=1,
            details=details, prev_hash=made[-1]["hash"] if made else "0" * 64,
        )  # fmt: skip
        made.append(entry.to_body())
    return made


KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


# --- Laws ----------------------------------------------------------------------------------------


def _delete(log: list[Any], k: int, _j: int) -> None:
    del log[k]


def _insert(log: list[Any], k: int, j: int) -> None:
    log.insert(k, dict(log[j], details={"n": 99}))


def _duplicate(log: list[Any], k: int, _j: int) -> None:
    log.insert(k, log[k])


def _swap(log: list[Any], k: int, j: int) -> None:
    log[k], log[j] = log[j], log[k]


def _rotate(log: list[Any], k: int, _j: int) -> None:
    log.insert(0, log.pop(k))


def _edit(log: list[Any], k: int, j: int) -> None:
    field = ("seq", "ts", "tenant", "actor", "action", "object_id", "object_version", "prev_hash")
    name = field[j % len(field)]
    old = log[k][name]
    log[k] = dict(log[k], **{name: old + 1 if isinstance(old, int) else f"{old}x"})


def _edit_details(log: list[Any], k: int, j: int) -> None:
    log[k] = dict(log[k], details={**log[k]["details"], "n": -1 - j})


def _edit_hash(log: list[Any], k: int, _j: int) -> None:
    log[k] = dict(log[k], hash="f" * 64)


def _edit_and_seal_again(log: list[Any], k: int, j: int) -> None:
    _edit_details(log, k, j)
    log[k]["hash"] = hash_of(log[k])


ALTERATIONS = [
    _delete, _insert, _duplicate, _swap, _rotate, _edit, _edit_details, _edit_hash,
    _edit_and_seal_again,
]  # fmt: skip


@given(
    st.sampled_from(ALTERATIONS),
    st.integers(3, 9),
    st.integers(0, 20),
    st.integers(0, 20),
    st.booleans(),
)
def test_any_alteration_before_the_last_entry_is_seen(
    alter: Callable[[list[Any], int, int], None], n: int, k: int, j: int, as_text: bool
) -> None:
    good, log = chain(n), chain(n)
    alter(log, k % (n - 1), j % n)
    if log == good:
        return
    verification = verify_export([json.dumps(e) for e in log] if as_text else log, KEY)
    assert not verification.ok
    assert verification.why
    assert verification.first_bad is not None
    same = sum(
        1
        for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(good, log, strict=False))
    )
    assert same <= verification.first_bad <= same + 1  # one sealed again is seen by its successor
    assert verify_export(good, KEY).ok


def test_a_hash_is_the_sha256_of_the_canonical_json_of_every_other_field() -> None:
    import hashlib

    for entry in chain(3):
        fields = {key: value for key, value in entry.items() if key != "hash"}
        assert entry["hash"] == hashlib.sha256(rfc8785.dumps(fields)).hexdigest()
        assert set(entry) == set(
            "seq ts tenant actor action object_id object_version details prev_hash hash".split()
        )


@pytest.mark.parametrize(
    "lines", [[], ["{"], ["[]"], ["7"], [{}], ['{"seq": 0}'], [{"seq": 0}]], ids=str
)
def test_what_is_no_log_is_no_good_log(lines: list[Any]) -> None:
    verification = verify_export(lines, KEY)
    assert (verification.ok, verification.count, verification.first_bad) == (False, 0, 0)


# --- In the database -----------------------------------------------------------------------------

_SWAP = (
    "UPDATE audit SET seq = -1 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4; "
    "UPDATE audit SET seq = 4 WHERE seq = -1"
)
_COLUMNS = "ts, tenant, actor, action, object_id, object_version, details, prev_hash, hash"


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        ("UPDATE audit SET actor = 'eve' WHERE seq = 3", "its content does not have its hash"),
        ("UPDATE audit SET details = '{}' WHERE seq = 3", "its content does not have its hash"),
        ("UPDATE audit SET hash = prev_hash WHERE seq = 3", "its content does not have its hash"),
        ("DELETE FROM audit WHERE seq = 3", "3 is missing, or out of order"),
        ("DELETE FROM audit WHERE seq = 0", "0 is missing, or out of order"),
        (_SWAP, "it does not follow the entry before it"),
        (
            "UPDATE audit SET seq = seq + 100 WHERE seq > 3; "
            f"INSERT INTO audit (seq, {_COLUMNS}) SELECT 4, {_COLUMNS} FROM audit WHERE seq = 3; "
            "UPDATE audit SET seq = seq - 99 WHERE seq > 100",
            "it does not follow the entry before it",
        ),
        ("DELETE FROM audit", "the genesis is missing"),
    ],
    ids=["edit", "edit details", "edit hash", "delete", "no genesis", "swap", "duplicate", "empty"],
)
def test_who_can_write_to_the_database_cannot_alter_the_log_unseen(
    place: Place, statements: str, why: str
) -> None:
    register = place.open()
    fill(register, place.clock)
    assert register.audit.verify().ok
    for statement in statements.split("; "):
        place.sql(statement)
    verification = register.audit.verify()
    assert (verification.ok, verification.why) == (False, why)
    assert not verify_export(register.audit.export(), register.audit.public_key()).ok


def test_a_cut_tail_is_seen_with_a_checkpoint_from_elsewhere_only(
    place: Place, register: Register, clock: Clock
) -> None:
    fill(register, clock)
    kept_elsewhere = register.audit.checkpoint()
    place.sql("DELETE FROM audit WHERE seq > 4")
    place.sql("DELETE FROM checkpoints")
    assert register.audit.verify().ok
    cut = register.audit.verify(kept_elsewhere)
    assert (cut.ok, cut.count, cut.first_bad) == (False, 5, 5)
    assert "a signed checkpoint has more entries" in cut.why


def test_a_cut_tail_is_seen_with_a_kept_checkpoint_too(
    place: Place, register: Register, clock: Clock
) -> None:
    fill(register, clock)
    register.audit.checkpoint()
    place.sql("DELETE FROM audit WHERE seq = 6")
    assert not register.audit.verify().ok


def test_a_log_written_anew_from_some_point_on_does_not_fit_its_checkpoint() -> None:
    """The chain is whole again, and only the signature tells."""
    from elision.crypto.signing import Signer

    log, signer = chain(6), Signer(b"\7" * 32)
    mark = Checkpoint.signed(signer, log_id="L", seq=4, hash_=log[4]["hash"], ts=log[4]["ts"])
    for k in range(3, 6):
        log[k] = dict(log[k], actor="eve", prev_hash=log[k - 1]["hash"])
        log[k]["hash"] = hash_of(log[k])
    assert verify_export(log, signer.public_key()).ok
    seen = verify_export(log, signer.public_key(), mark)
    assert (seen.ok, seen.first_bad, seen.why) == (
        False, 4, "a signed checkpoint has another hash here",
    )  # fmt: skip


def test_a_clock_that_was_set_back_in_the_log_is_seen() -> None:
    log = chain(5)
    log[3]["ts"] = "2029-12-31T00:00:00.000Z"
    for k in (3, 4):
        log[k]["prev_hash"] = log[k - 1]["hash"]
        log[k]["hash"] = hash_of(log[k])
    seen = verify_export(log, KEY)
    assert (seen.first_bad, seen.why) == (3, "its clock is behind that of the entry before it")


@on_either
def test_a_clock_that_goes_back_is_told_and_the_log_stays_good(place: Place) -> None:
    register, t = place.open(), place.clock.now
    register.add(target())
    place.clock.now = t - 3600
    register.add(target())
    place.clock.now = t + 1
    register.add(target())
    entries = register.audit.entries("default")
    assert [e.details.get("clock_behind_s") for e in entries] == [None, 3600.0, None]
    assert entries[0].ts == entries[1].ts < entries[2].ts
    assert register.audit.verify().ok


# --- Checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"seq": 3, "count": 4}, {"hash": "0" * 64}, {"count": 9}, {"ts": "x"}, {"log_id": "M"}],
)
def test_a_forged_checkpoint_is_not_believed(
    register: Register, clock: Clock, change: dict[str, Any]
) -> None:
    fill(register, clock)
    mark = register.audit.checkpoint()
    assert register.audit.verify(mark).ok
    forged = register.audit.verify(replace(mark, **change))
    assert (forged.ok, forged.why) == (
        False, "a checkpoint's signature is not the register's",
    )  # fmt: skip


def test_a_checkpoint_of_another_log_does_not_fit(
    register: Register, clock: Clock, tmp_path: Path, place: Place
) -> None:
    other = Register(tmp_path / "other.db", keys=place.keys, clock=clock)
    with other:
        fill(other, clock, 2)
        mark = other.audit.checkpoint()
    assert not register.audit.verify(mark).ok
    fill(register, clock)
    assert not register.audit.verify(mark).ok


def test_checkpoints_are_made_every_hundred_entries_every_minute_and_at_the_end(
    place: Place, tmp_path: Path
) -> None:
    file, clock = tmp_path / "elsewhere.jsonl", place.clock
    with place.open(checkpoint_file=file) as register:
        for _ in range(120):
            register.add(target())
        clock.now += 59.999
        register.add(target())
        clock.now += 0.001
        register.add(target())
        register.add(target())
    marks = [Checkpoint.from_body(json.loads(line)) for line in file.read_text().splitlines()]
    assert [mark.seq for mark in marks] == [100, 122, 123]
    with place.open(checkpoint_file=file) as register:
        assert all(register.audit.verify(mark).ok for mark in marks)
        assert register.audit.checkpoint() == marks[-1]
    assert len(file.read_text().splitlines()) == 3
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_second_place_that_fails_stops_nothing_and_is_told(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        register = place.open(checkpoint_file=tmp_path / "no" / "such" / "folder")
        register.add(target())
        register.audit.checkpoint()
    assert "checkpoint 1 was not written to the file: No such file" in caplog.text


@pytest.mark.parametrize("body", [None, [], {}, {"seq": 1}, "x"])
def test_what_is_no_checkpoint_is_refused(body: object) -> None:
    with pytest.raises(ConfigError, match="this is no checkpoint"):
        Checkpoint.from_body(body)


def test_a_public_key_that_is_none_is_refused(register: Register) -> None:
    mark = register.audit.checkpoint()
    with pytest.raises(ConfigError, match="give an Ed25519 key in PEM"):
        verify_export(register.audit.export(), "not a key", mark)


# --- What it holds -------------------------------------------------------------------------------


@on_either
def test_the_log_tells_who_did_what_when_and_no_word_of_why_or_to_whom(place: Place) -> None:
    register, t = place.open(), place.clock.now
    made = register.add(target(names=("Qponm",), case_ref="Qponm"), actor="dana").target
    register.suspend("default", made.id, actor="eli", reason="Zyxwv asked")
    register.revoke("default", made.id, actor="eli", reason="Zyxwv asked again")
    body = [entry.to_body() for entry in register.audit.entries("default")]
    assert [(e["seq"], e["actor"], e["action"], e["object_version"]) for e in body] == [
        (1, "dana", "add", 1),
        (2, "eli", "suspend", 2),
        (3, "eli", "revoke", 3),
    ]
    assert {e["object_id"] for e in body} == {made.id}
    assert {e["ts"] for e in body} == {"2033-05-18T03:33:20.000Z"}
    assert [e["details"]["state"] for e in body] == ["active", "suspended", "revoked"]
    everything = json.dumps([*register.audit.export()])
    assert not re.search("qponm|zyxwv|asked|title", everything, re.IGNORECASE)
    reasons = register.reasons("default", made.id)
    assert [(r.seq, r.action, r.actor, r.text) for r in reasons] == [
        (2, "suspend", "eli", "Zyxwv asked"),
        (3, "revoke", "eli", "Zyxwv asked again"),
    ]
    assert "asked" not in repr(reasons)
    assert t == made.created_at


@on_either
def test_a_tenant_sees_its_own_entries_and_can_still_verify_the_whole(place: Place) -> None:
    register, clock = place.open(), place.clock
    for tenant in ("a", "b", "a"):
        register.add(target(tenant=tenant), actor=f"someone of {tenant}")
    assert [entry.seq for entry in register.audit.entries("a")] == [1, 3]
    assert [entry.seq for entry in register.audit.entries("a", after=1)] == [3]
    assert [entry.seq for entry in register.audit.entries("a", limit=1)] == [1]
    shown = [*register.audit.export("a")]
    assert "someone of b" not in json.dumps(shown)
    seen = verify_export(shown, register.audit.public_key(), register.audit.checkpoint())
    assert (seen.ok, seen.count, seen.hidden) == (True, 4, 1)
    shown[2]["hash"] = "0" * 64
    assert not verify_export(shown, register.audit.public_key()).ok
    assert clock.now == place.clock.now


def test_a_long_log_is_read_in_pages(register: Register) -> None:
    register.add_many([target()] * 2100)
    seen = register.audit.verify()
    assert (seen.ok, seen.count) == (True, 2101)
    assert len([*register.audit.export()]) == 2101


def test_a_change_that_cannot_be_logged_is_not_made(place: Place, register: Register) -> None:
    register.add(target())
    place.sql("UPDATE log SET seq = 0")  # the next entry's place is taken
    with pytest.raises(GuardError) as caught:
        register.add(target())
    assert "UNIQUE constraint failed: audit.seq" in str(caught.value)
    assert register.epoch("default") == 1
    assert len(register.list("default")) == 1
