"""Erasing on PostgreSQL: rows and keys go, and the receipt says what that does not cover."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from elision.encoders.hashing import HashingEncoder
from elision.errors import RequestError
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.receipts import LIMITS, POSTGRES_CLEAR, POSTGRES_SEALED
from elision.memory.erasure.selector import Selector
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

pytestmark = pytest.mark.postgres
ME = Scope("me", ("notes",))
SECRET = "Zyxwv Qponm lives in the third house behind the old water mill"

# The register's tests start the server that these use too.
_spec = spec_from_file_location(
    "register_places_for_erasure", Path(__file__).parents[2] / "guards" / "register" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_places = sys.modules[_spec.name] = module_from_spec(_spec)
_spec.loader.exec_module(_places)
postgres_server, postgres_url = _places.postgres_server, _places.postgres_url


@pytest.mark.parametrize("sealed", [True, False])
def test_rows_and_keys_go_and_the_receipt_says_what_that_does_not_cover(
    postgres_url: str, tmp_path: Path, sealed: bool
) -> None:
    keys = tmp_path / "keys"
    with Store(postgres_url, encoder=HashingEncoder(32), keys=keys, sealed=sealed) as store:
        root = store.put(ME, Draft(text=SECRET, subjects=frozenset({"zyx"}))).id
        store.put(ME, Draft(text="what was made of it", parents=(root,)))
        kept = store.put(ME, Draft(text="tea is drunk at five")).id
        store.put(Scope("other"), Draft(text=SECRET))
        eraser, selector = Eraser(store), Selector(tenant="me", subject="zyx")
        plan = eraser.plan(selector)
        receipt = eraser.erase(selector, reason="gdpr.17", actor="zyx")
        assert receipt.counts == plan.counts
        assert receipt.counts["records"] == 2
        assert (receipt.state, receipt.keys_destroyed) == ("verified", int(sealed))
        assert receipt.limits == (*LIMITS, POSTGRES_SEALED if sealed else POSTGRES_CLEAR)
        assert eraser.verify(receipt)
        assert [record.id for record in store.list(ME)] == [kept]
        assert [record.text for record in store.list(Scope("other"))] == [SECRET]
        whole = eraser.erase(Selector(tenant="me"), reason="gdpr.17", actor="admin")
        assert (whole.state, whole.counts["spaces"]) == ("verified", 1)
        assert store.namespaces("me") == ()
        with pytest.raises(RequestError, match="own tools"):
            eraser.backup(tmp_path / "b.db")
