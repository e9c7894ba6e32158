"""Receipts of erasures: signed to the last byte."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.crypto.signing import Signer
from elision.errors import RequestError
from elision.memory.erasure.receipts import LIMITS, Receipt, iso, verify_receipt

SIGNER = Signer(b"s" * 32)
KEY = SIGNER.public_key()


def receipt(**fields: Any) -> Receipt:
    given = {
        "id": "er_1", "tenant": "me", "at": iso(1.5), "issued_at": iso(2), "actor": "admin",
        "reason": "gdpr.17", "selector": "0" * 64, "state": "verified", "counts": {"records": 3},
        "scan": {"residual": 0},
    }  # fmt: skip
    return Receipt(**given | fields).signed(SIGNER)


def test_a_receipt_verifies_as_object_as_body_and_as_json() -> None:
    one = receipt()
    body = one.to_body()
    for form in (one, body, orjson.dumps(body), orjson.dumps(body).decode()):
        assert verify_receipt(form, KEY)
    assert Receipt.from_body(orjson.loads(orjson.dumps(body))) == one
    assert one.limits == LIMITS


@given(st.data())
def test_a_receipt_with_any_byte_changed_does_not_verify(data: st.DataObject) -> None:
    whole = orjson.dumps(receipt().to_body())
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    altered = whole[:at] + bytes([other]) + whole[at + 1 :]
    try:
        same = orjson.loads(altered) == orjson.loads(whole)
    except orjson.JSONDecodeError:
        same = False
    assert verify_receipt(altered, KEY) is same is False


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
def test_whatever_is_no_receipt_does_not_verify(body: dict[str, str]) -> None:
    assert not verify_receipt(body, KEY)
    with pytest.raises(RequestError):
        Receipt.from_body(body)


@pytest.mark.parametrize("junk", [b"", b"[]", "null", "{", b"\xff", {"type": "erasure-receipt"}])
def test_junk_does_not_verify(junk: Any) -> None:
    assert not verify_receipt(junk, KEY)


def test_another_key_does_not_verify_it() -> None:
    assert not verify_receipt(receipt(), Signer(b"o" * 32).public_key())


def test_times_are_in_utc_to_the_millisecond() -> None:
    assert iso(1.5) == "1970-01-01T00:00:01.500+00:00"
