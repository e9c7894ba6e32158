"""A register's targets go out and come in again as they were, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elision.errors import ConflictError, PermissionDeniedError, TargetError
from elision.guards.register.register import Register
from elision.guards.scope import Scope
from elision.guards.targets import ForgetTarget, Phrase

from .conftest import Place, on_either


def target(n: int = 0, **given: Any) -> ForgetTarget:
    return ForgetTarget(title=f"Title {n}", phrases=(Phrase(text="Zyxwv Qponm"),), **given)


def filled(place: Place) -> Register:
    """Return a register with a target in most states."""
    register, now = place.open(), place.clock.now
    register.add(target(1, scope=Scope(keys=("k",)), names=("N",), case_ref="c"), actor="dana")
    register.add(target(2), draft=True)
    register.add(target(3, effective_at=now + 5.25, expires_at=now + 9.125))
    for _ in range(3):
        register.add(target(4), actor="eli")
    ids = [kept.id for kept in register.active("default")]
    register.suspend("default", ids[1])
    register.revoke("default", ids[2], reason="done")
    register.revoke("default", ids[3], reason="done")
    register.purge("default", ids[3])
    register.add(target(5, tenant="other"))
    return register


def elsewhere(place: Place, tmp_path: Path, **options: Any) -> Register:
    options = {"keys": place.keys, "clock": place.clock} | options
    return place.opened.enter_context(Register(tmp_path / "elsewhere" / "r.db", **options))


@on_either
def test_what_goes_out_comes_in_elsewhere_as_it_was(place: Place, tmp_path: Path) -> None:
    register = filled(place)
    everything = register.list("default", include_revoked=True)
    lines = [json.dumps(line) for line in register.export("default")]
    assert len(lines) == len(everything) + 1
    other = elsewhere(place, tmp_path)
    assert other.import_("default", lines, actor="dana") == everything
    assert other.list("default", include_revoked=True) == everything
    assert other.active("default") == register.active("default")
    assert other.list("other", include_revoked=True) == ()
    assert {e.action for e in other.audit.entries("default")} == {"import"}
    again = [json.dumps(line) for line in other.export("default")]
    assert again == lines
    place.clock.now += 6
    assert other.active("default") == register.active("default")
    assert len(other.active("default")) == 2


def test_an_export_may_come_from_a_register_of_other_keys_if_its_key_is_given(
    place: Place, tmp_path: Path
) -> None:
    register = filled(place)
    lines = list(register.export("default"))
    other = elsewhere(place, tmp_path, keys=tmp_path / "other keys")
    with pytest.raises(TargetError, match="signature is not this register's"):
        other.import_("default", lines)
    other.import_("default", lines, public_key=register.audit.public_key())
    kept = register.list("default", include_revoked=True)
    assert other.list("default", include_revoked=True) == kept


def test_importing_what_is_there_already_changes_nothing(place: Place) -> None:
    register = filled(place)
    epoch = register.epoch("default")
    assert register.import_("default", register.export("default")) == ()
    assert register.epoch("default") == epoch
    assert register.audit.verify().ok


def test_a_target_that_stands_otherwise_here_is_a_conflict_and_nothing_comes_in(
    place: Place, tmp_path: Path
) -> None:
    register = filled(place)
    lines = list(register.export("default"))
    [first] = register.active("default")
    register.suspend("default", first.id)
    with pytest.raises(ConflictError) as caught:
        register.import_("default", lines)
    assert caught.value.code == "target_exists"
    other = elsewhere(place, tmp_path)
    other.import_("other", register.export("other"))
    with pytest.raises(PermissionDeniedError):
        other.import_("default", register.export("other"))


def _set(key: str, value: object) -> Callable[[list[Any]], None]:
    def alter(lines: list[Any]) -> None:
        lines[1] = lines[1] | {key: value}

    return alter


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (_set("title", "Another"), "manifest does not fit"),
        (_set("state", "active"), "manifest does not fit"),
        (lambda lines: lines.pop(0), "manifest does not fit"),
        (lambda lines: lines.reverse(), "the manifest is missing"),
        (lambda lines: lines.insert(0, lines[0]), "manifest does not fit"),
        (lambda lines: lines.pop(), "the manifest is missing"),
        (lambda lines: lines.clear(), "the manifest is missing"),
        (lambda lines: lines[-1].update(count=3), "signature is not this register's"),
        (lambda lines: lines[-1].pop("signature"), "signature is not this register's"),
        (lambda lines: lines.insert(1, "Zyxwv{"), "line 2 is no JSON"),
        (lambda lines: lines.insert(0, "7"), "line 1 is no object"),
        (_set("title", 2**60), "canonical JSON"),
    ],
)
def test_an_altered_export_does_not_come_in(
    place: Place, tmp_path: Path, alter: Callable[[list[Any]], None], said: str
) -> None:
    lines = list(filled(place).export("default"))
    alter(lines)
    other = elsewhere(place, tmp_path)
    with pytest.raises(TargetError, match=said) as caught:
        other.import_("default", lines)
    assert "Zyxwv" not in str(caught.value)
    assert other.epoch("default") == 0


def test_an_export_of_nothing_is_a_manifest(place: Place) -> None:
    [manifest] = place.open().export("nobody")
    assert (manifest["object"], manifest["count"]) == ("manifest", 0)
    assert place.open().import_("nobody", [manifest]) == ()


def test_what_the_log_says_of_an_import_is_who_and_which(place: Place, tmp_path: Path) -> None:
    register = filled(place)
    other = elsewhere(place, tmp_path)
    made = other.import_("default", register.export("default"), actor="dana")
    entries = other.audit.entries("default")
    assert [(e.actor, e.object_id) for e in entries] == [("dana", t.id) for t in made]
    assert made == register.list("default", include_revoked=True)
