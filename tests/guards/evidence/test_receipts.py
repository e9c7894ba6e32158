"""Receipts: signed, verifiable with the public key alone, and without a word of the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elision.errors import ConflictError, NotFoundError
from elision.guards.evidence.receipts import (
    STATEMENT,
    canonical,
    commitment,
    receipt_for,
    verify_receipt,
)
from elision.guards.register.audit import verify_export
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase

TARGET = ForgetTarget(
    title="zanzibar file",
    names=("Marguerite Delacroix",),
    phrases=(Phrase(text="Marguerite Delacroix"), Phrase(text="Xanadu Road 17")),
    probes=("Who is Marguerite Delacroix?",),
    case_ref="case 4711",
)
# Letters that no hash, id, date or field name is made of, so that finding one is telling.
WORDS = st.text("ghjkqvwxyzGHJKQVWXYZéßñ", min_size=12, max_size=24)


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    with Register.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def issued(register: Register) -> dict[str, Any]:
    target = register.add(TARGET, actor="ann").target
    return receipt_for(register, "default", target.id)


def test_a_receipt_verifies_as_an_object_and_as_any_json_of_it(
    register: Register, issued: dict[str, Any]
) -> None:
    key = register.audit.public_key()
    pretty = orjson.dumps(issued, option=orjson.OPT_INDENT_2)
    assert verify_receipt(issued, key)
    assert verify_receipt(canonical(issued), key)
    assert verify_receipt(pretty.decode(), key)


def test_one_flipped_byte_anywhere_fails(register: Register, issued: dict[str, Any]) -> None:
    key, whole = register.audit.public_key(), canonical(issued)
    for place in range(len(whole)):
        for bit in (0x01, 0x20):
            flipped = bytearray(whole)
            flipped[place] ^= bit
            assert not verify_receipt(bytes(flipped), key), (place, bit)


def test_a_field_added_changed_or_left_out_fails(
    register: Register, issued: dict[str, Any]
) -> None:
    key = register.audit.public_key()
    assert not verify_receipt(issued | {"more": 1}, key)
    for name in issued:
        assert not verify_receipt({k: v for k, v in issued.items() if k != name}, key)
        assert not verify_receipt(issued | {name: "other"}, key)


@pytest.mark.parametrize("junk", [b"", b"[]", b"{", b'{"type": "suppression-receipt"}', "null"])
def test_what_is_no_receipt_does_not_verify(register: Register, junk: bytes | str) -> None:
    assert not verify_receipt(junk, register.audit.public_key())


def test_another_registers_key_does_not_verify_it(tmp_path: Path, issued: dict[str, Any]) -> None:
    with Register.open(tmp_path / "other") as other:
        assert not verify_receipt(issued, other.audit.public_key())


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=WORDS, phrase=WORDS, name=WORDS, probe=WORDS)
def test_no_word_of_the_target_is_in_its_receipt(
    register: Register, title: str, phrase: str, name: str, probe: str
) -> None:
    target = ForgetTarget(
        title=title,
        names=(name,),
        phrases=(Phrase(text=phrase),),
        probes=(probe,),
        case_ref=f"about {phrase}",
        legal_basis=title,
    )
    done = register.add(target, actor="ann")
    receipt = receipt_for(register, "default", done.target.id)
    unsigned = {k: v for k, v in receipt.items() if k != "signature"}
    told = canonical(unsigned).decode().casefold()
    for word in (title, phrase, name, probe):
        assert word.casefold() not in told
    assert receipt["case_ref"] is None


def test_a_receipt_says_what_is_done_and_not_more(
    register: Register, issued: dict[str, Any]
) -> None:
    assert issued["statement"] == STATEMENT == "suppression at inference time"
    assert issued["case_ref"] == "case 4711"
    assert issued["epoch"] == register.epoch("default")
    assert issued["state"] == "active"
    assert issued["self_test"]["leaked"] == 0
    assert issued["self_test"]["cases"] == 14
    assert set(issued["self_test"]["by_check"]) == {"base64", "rot13", "reversed"}
    for word in ("erasure", "deleted", "compliant"):
        assert word not in canonical(issued).decode()


def test_a_receipt_is_bound_to_the_log_that_it_was_written_beside(
    register: Register, issued: dict[str, Any]
) -> None:
    lines = [*register.audit.export()]
    assert verify_export(lines, register.audit.public_key()).ok
    head = issued["audit_head"]
    assert lines[head["seq"]]["hash"] == head["hash"]


def test_the_commitment_depends_on_the_content_the_tenant_and_nothing_else(
    register: Register,
) -> None:
    made = commitment(TARGET, register)
    turned = replace(TARGET, phrases=TARGET.phrases[::-1], title="another", case_ref="")
    respelled = replace(TARGET, names=("MARGUERITE  delacroix",))
    assert made == commitment(turned, register) == commitment(respelled, register)
    assert made != commitment(replace(TARGET, tenant="b"), register)
    assert made != commitment(replace(TARGET, names=("Somebody Else",)), register)


def test_there_is_no_receipt_for_what_was_purged_or_is_another_tenants(
    register: Register,
) -> None:
    target = register.add(TARGET, actor="ann").target
    with pytest.raises(NotFoundError):
        receipt_for(register, "other", target.id)
    register.revoke("default", target.id, actor="ann", reason="asked")
    assert receipt_for(register, "default", target.id)["state"] == "revoked"
    register.purge("default", target.id, actor="ann")
    with pytest.raises(ConflictError, match="purged"):
        receipt_for(register, "default", target.id)
