from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elision.contract import Screen
from elision.errors import NotFoundError
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.screening import RegisterScreen

SONG = "The keeper of Vell had seven lamps, and to each lamp he gave the name of a drowned ship."


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    with Register.open(tmp_path) as opened:
        yield opened


def add(register: Register, *, tenant: str = "default", **fields: object) -> str:
    target = ForgetTarget(title="A title", tenant=tenant, **fields)  # type: ignore[arg-type]
    return register.add(target).target.id


def test_what_a_target_speaks_of_is_neither_kept_nor_read(register: Register) -> None:
    screen = RegisterScreen(register)
    assert isinstance(screen, Screen)
    texts = ("Ask ZYXWV  QPONM.", "about Marmaduke Pell", f"He sang: {SONG}", "A brief verse!")
    assert all(screen.may_write("default", text) for text in texts)
    add(
        register, phrases=(Phrase(text="Zyxwv Qponm"),), names=("Marmaduke Pell",),
        passages=(SONG, "a brief verse"),
    )  # fmt: skip
    assert not any(screen.may_write("default", text) for text in texts)
    assert not any(screen.may_read("default", text) for text in texts)
    assert screen.may_read("default", "The lamps of the harbour are lit at six.")


def test_other_tenants_and_revoked_targets_forbid_nothing(register: Register) -> None:
    screen = RegisterScreen(register)
    made = add(register, phrases=(Phrase(text="Zyxwv Qponm"),))
    assert screen.may_write("other", "Zyxwv Qponm")
    register.revoke("default", made, reason="done")
    assert screen.may_write("default", "Zyxwv Qponm")


def test_an_observing_target_forbids_nothing(register: Register) -> None:
    add(register, phrases=(Phrase(text="Zyxwv Qponm"),), action="observe")
    assert RegisterScreen(register).may_write("default", "Zyxwv Qponm")


def test_one_target_tells_its_own_texts_even_when_it_is_not_in_force(register: Register) -> None:
    screen = RegisterScreen(register)
    draft = ForgetTarget(title="A title", phrases=(Phrase(text="Zyxwv Qponm"),))
    made = register.add(draft, draft=True).target
    add(register, phrases=(Phrase(text="Marmaduke Pell"),))
    concerns = screen.concerned("default", made.id)
    assert concerns("z y x w v - Qponm")
    assert not concerns("Marmaduke Pell")
    with pytest.raises(NotFoundError):
        screen.concerned("other", made.id)
