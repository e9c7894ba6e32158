"""What is personal is sealed, and gone with its key."""

from __future__ import annotations

import base64
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from elision.crypto.vault import Keys, Sealed, Vault
from elision.errors import ConfigError, GuardError, StoreError
from elision.guards.register.register import Register
from elision.guards.scope import Scope
from elision.guards.targets import ForgetTarget, Phrase
from elision.sql import sqlite

from .conftest import Place, on_either

VAULT = Vault(b"\1" * 32)
WORDS = ("Zyxwv Qponm", "Gfedc", "Kjihg", "Rqpon", "Wvuts", "Lkjih", "Hgfed", "Tsrqp", "Mlkji")


def whole() -> ForgetTarget:
    """Return a target with a word of its own in every personal place."""
    title, phrase, name, probe, passage, answer, exception, case, basis = WORDS
    return ForgetTarget(
        title=title, phrases=(Phrase(text=phrase, beta=0.7),), names=(name,), probes=(probe,),
        passages=(passage * 50,), answers=(answer,), exceptions=(exception,), case_ref=case,
        legal_basis=basis, scope=Scope(models=("m",)), review_at=3_000_000_000.0,
    )  # fmt: skip


def holding(folder: Path, words: tuple[str, ...]) -> list[str]:
    """Return which of *words* stand in which file of *folder*, in UTF-8 or UTF-16."""
    return [
        f"{word} in {file.name}"
        for file in folder.rglob("*")
        if file.is_file()
        for word in words
        if any(
            word.encode(code) in file.read_bytes() for code in ("utf-8", "utf-16-le", "utf-16-be")
        )
    ]


# --- Laws ----------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.text("ab", min_size=1), st.text("xy", min_size=1))
def test_what_is_sealed_opens_in_its_own_place_only(plain: bytes, tenant: str, id_: str) -> None:
    sealed = VAULT.seal(plain, tenant=tenant, target_id=id_)
    assert VAULT.open(sealed, tenant=tenant, target_id=id_) == plain
    for place in ((tenant + "a", id_), (tenant, id_ + "x"), (id_, tenant)):
        with pytest.raises(StoreError, match="altered, or sealed under another master key"):
            VAULT.open(sealed, tenant=place[0], target_id=place[1])


@given(st.binary(min_size=1, max_size=60), st.data())
def test_one_flipped_bit_is_seen(plain: bytes, data: st.DataObject) -> None:
    sealed = VAULT.seal(plain, tenant="t", target_id="i")
    part = data.draw(st.sampled_from(["body", "wrapped"]))
    old = bytearray(getattr(sealed, part))
    old[data.draw(st.integers(0, len(old) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StoreError):
        VAULT.open(replace(sealed, **{part: bytes(old)}), tenant="t", target_id="i")


def test_no_two_seals_are_alike_and_none_has_the_key_of_another() -> None:
    one, two = (VAULT.seal(b"same", tenant="t", target_id="i") for _ in range(2))
    assert one.body != two.body
    with pytest.raises(StoreError):
        VAULT.open(Sealed(one.body, two.wrapped), tenant="t", target_id="i")
    with pytest.raises(StoreError):
        Vault(b"\2" * 32).open(one, tenant="t", target_id="i")
    assert "same" not in repr(one)
    assert str(one.body) not in repr(one)


def test_a_digest_is_of_its_purpose_tenant_and_key() -> None:
    digest = VAULT.digest("p", "t", b"x")
    assert digest == VAULT.digest("p", "t", b"x")
    others = [("q", "t", b"x"), ("p", "u", b"x"), ("p", "t", b"y"), ('p","t', "", b"x")]
    assert digest not in {VAULT.digest(*other) for other in others}
    assert digest != Vault(b"\2" * 32).digest("p", "t", b"x")


# --- On the disk ---------------------------------------------------------------------------------


def test_nothing_personal_is_ever_in_a_file_in_clear(tmp_path: Path) -> None:
    with Register.open(tmp_path) as register:
        made = register.add(whole(), idempotency_key="Zyxwv").target
        register.suspend("default", made.id, reason="Zyxwv asked")
        assert register.get("default", made.id).title == WORDS[0]
        assert holding(tmp_path, (*WORDS, "asked")) == []
    assert holding(tmp_path, (*WORDS, "asked")) == []
    assert holding(tmp_path, (made.id,)) != []  # the search does find what is there


@on_either
def test_a_purge_destroys_the_key_and_the_log_still_verifies(place: Place) -> None:
    register = place.open()
    other = register.add(whole()).target
    made = register.add(whole(), actor="dana").target
    register.revoke("default", made.id, reason="Zyxwv asked")
    kept = place.sql("SELECT wrapped FROM target_keys WHERE target = :id", id=made.id)
    assert len(kept) == 1
    purged = register.purge("default", made.id, actor="eli").target
    assert purged == register.get("default", made.id)
    bare = ForgetTarget(title="", id=made.id, state="purged", requested_by="dana")
    assert replace(purged, created_at=0, revoked_at=None, review_at=None) == bare
    assert register.reasons("default", made.id) == ()
    for table, column in (("target_keys", "target"), ("reasons", "target")):
        assert place.sql(f"SELECT * FROM {table} WHERE {column} = :id", id=made.id) == []
    assert place.sql("SELECT body FROM targets WHERE id = :id", id=made.id) == [(None,)]
    assert register.audit.verify().ok
    assert [e.action for e in register.audit.entries("default", after=1)] == [
        "add", "revoke", "purge",
    ]  # fmt: skip
    assert register.active("default") == (other,)


def test_after_a_purge_no_file_has_the_wrapped_key_or_the_sealed_body(tmp_path: Path) -> None:
    with Register.open(tmp_path) as register:
        register.add_many([whole()] * 30)
        made = register.add(whole()).target
        with sqlite3.connect(tmp_path / "register.db") as direct:
            query = "SELECT body, wrapped FROM targets JOIN target_keys ON id = target WHERE id = ?"
            body, wrapped = direct.execute(query, (made.id,)).fetchone()
        direct.close()
        tails = {"body": body[-40:], "key": wrapped}

        def found() -> set[str]:
            files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
            return {name for name, tail in tails.items() if any(tail in file for file in files)}

        assert found() == {"body", "key"}
        register.revoke("default", made.id, reason="done")
        register.purge("default", made.id)
        assert found() == set()
        assert (tmp_path / "register.db-wal").stat().st_size == 0


def test_a_purge_that_a_reader_hinders_says_so_and_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    with Register.open(tmp_path) as register:
        made = register.add(whole()).target
        register.revoke("default", made.id, reason="done")
        reader = sqlite3.connect(tmp_path / "register.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM targets").fetchone()
        with pytest.raises(GuardError, match="do it once more"):
            register.purge("default", made.id)
        assert register.get("default", made.id).state == "purged"
        reader.execute("ROLLBACK")
        reader.close()
        register.purge("default", made.id)
        assert (tmp_path / "register.db-wal").stat().st_size == 0
        assert [e.action for e in register.audit.entries("default")] == ["add", "revoke", "purge"]


def test_an_altered_row_stops_what_reads_it(place: Place) -> None:
    register = place.open()
    one, two = (register.add(whole()).target for _ in range(2))
    swap = "UPDATE targets SET body = (SELECT body FROM targets WHERE id = :b) WHERE id = :a"
    place.sql(swap, a=one.id, b=two.id)
    for call in (lambda: register.get("default", one.id), lambda: register.active("default")):
        with pytest.raises(GuardError) as caught:
            call()
        assert not any(word in str(caught.value) for word in WORDS)


# --- Keys ----------------------------------------------------------------------------------------


def test_keys_are_made_once_and_are_their_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Keys.load(folder), range(16)))
    assert len({keys.signer.key_id for keys in made}) == 1
    assert len({keys.vault.digest("p", "t", b"") for keys in made}) == 1
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert files == {"master.key": 0o600, "signing.key": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["master", "signing"])
def test_a_lost_or_wrong_key_is_told_and_never_replaced(tmp_path: Path, name: str) -> None:
    with Register.open(tmp_path) as register:
        register.add(whole())
    path = tmp_path / "keys" / f"{name}.key"
    good = path.read_bytes()
    path.unlink()
    with pytest.raises(ConfigError, match=f"{name} key .* is gone"):
        Register.open(tmp_path)
    assert not path.exists()
    path.write_bytes(base64.b64encode(b"\3" * 32))
    with pytest.raises(ConfigError, match=f"the {name} key is not the one"):
        Register.open(tmp_path)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="write 32 bytes in base64"):
        Register.open(tmp_path)
    path.write_bytes(good)
    with Register.open(tmp_path) as register:
        assert len(register.active("default")) == 1


def test_keys_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, byte in (("MASTER", b"\4"), ("SIGNING", b"\5")):
        monkeypatch.setenv(f"ELISION_{name}_KEY", base64.b64encode(byte * 32).decode())
    with Register.open(tmp_path) as register:
        register.add(whole())
    assert not (tmp_path / "keys").exists()
    monkeypatch.setenv("ELISION_MASTER_KEY", "nonsense")
    with pytest.raises(ConfigError) as caught:
        Register.open(tmp_path)
    assert "'ELISION_MASTER_KEY' is no key" in str(caught.value)
    assert "nonsense" not in str(caught.value)


@pytest.mark.postgres
def test_a_server_needs_to_be_told_where_its_keys_are(postgres_url: str) -> None:
    with pytest.raises(ConfigError, match="name a keys folder or set ELISION_MASTER_KEY"):
        Register(postgres_url)


# --- From before ---------------------------------------------------------------------------------


def test_a_register_of_plain_bodies_is_sealed_and_nothing_plain_is_left(tmp_path: Path) -> None:
    path = tmp_path / "register.db"
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", "elision.guards.register:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for n, state in ((1, "active"), (2, "revoked")):
            body = f'{{"title":"Zyxwv {n}","phrases":["Qponm {n}"],"names":["Gfedc"]}}'
            row = {"id": f"ft_{n:020}", "n": n, "state": state, "body": body.encode()}
            connection.execute(
                text(
                    "INSERT INTO targets VALUES (:id, 'default', 'string', 'redact', :state, :n, "
                    "5.0, NULL, :body)"
                ),
                row,
            )
            connection.execute(
                text(
                    "INSERT INTO changes VALUES (:n, 'default', :n, 5.0, 'dana', 'add', :id, NULL)"
                ),
                row,
            )
        connection.execute(
            text(
                "INSERT INTO changes VALUES (3, 'default', 3, 9.0, 'eli', 'revoke', "
                "'ft_00000000000000000002', 'Kjihg asked')"
            )
        )
        connection.execute(text("INSERT INTO epochs VALUES ('default', 3)"))
    engine.dispose()
    words = ("Zyxwv", "Qponm", "Gfedc", "Kjihg")
    assert len(holding(tmp_path, words)) == 4

    with Register.open(tmp_path) as register:
        assert holding(tmp_path, words) == []
        assert register.epoch("default") == 3
        [found] = register.active("default")
        assert (found.title, found.phrases, found.names) == (
            "Zyxwv 1", (Phrase(text="Qponm 1"),), ("Gfedc",),
        )  # fmt: skip
        assert found.action == "redact"
        entries = register.audit.entries("default")
        assert [(e.action, e.actor, e.details["at"]) for e in entries] == [
            ("add", "dana", "1970-01-01T00:00:05.000Z"),
            ("add", "dana", "1970-01-01T00:00:05.000Z"),
            ("revoke", "eli", "1970-01-01T00:00:09.000Z"),
        ]
        [reason] = register.reasons("default", "ft_00000000000000000002")
        assert reason.text == "Kjihg asked"
        assert register.audit.verify().ok
        assert register.add(whole()).epoch == 4
    assert holding(tmp_path, words) == []
