"""The store against a dict: whatever is put, changed, removed or expires, both say the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from elision.encoders.hashing import HashingEncoder
from elision.errors import ConflictError
from elision.memory.records import Draft, Record, Scope, Trust
from elision.memory.store import Store

LABELS = ("a", "ab", "%", "_", ".", "ä")
namespaces = st.lists(st.sampled_from(LABELS), max_size=3).map(tuple)
scopes = st.builds(Scope, st.sampled_from(("t", "t%", "T")), namespaces)
drafts = st.builds(
    Draft,
    text=st.sampled_from(("", "one cat", "two dogs", "three cats and a dog")),
    value=st.sampled_from(({}, {"n": 1}, {"n": 2, "to": {"x": "ü"}})),
    key=st.sampled_from((None, "k", "K", "%")),
    kind=st.sampled_from(("note", "item")),
    state=st.sampled_from(("", "new")),
    trust=st.sampled_from(Trust),
    ttl_s=st.sampled_from((None, None, 5.0, 50.0)),
)
ENCODER = HashingEncoder(16)


@dataclass
class Kept:
    """A record as the oracle has it."""

    id: str
    scope: Scope
    key: str | None
    draft: Draft
    version: int
    expires_at: float | None
    updated_at: float
    order: int = 0

    def content(self) -> tuple[Any, ...]:
        return (self.draft.kind, self.draft.text, repr(self.draft.value))


@dataclass
class Oracle:
    """Records in a list; slow and obvious."""

    now: float = 2e9
    kept: list[Kept] = field(default_factory=list)

    def live(self, scope: Scope | None = None, *, deep: bool = True) -> list[Kept]:
        self.kept = [k for k in self.kept if k.expires_at is None or k.expires_at > self.now]
        if scope is None:
            return self.kept
        n = len(scope.namespace)
        return [
            k
            for k in self.kept
            if k.scope.tenant == scope.tenant
            and (k.scope.namespace[:n] if deep else k.scope.namespace) == scope.namespace
        ]

    def standing(self, scope: Scope, draft: Draft) -> Kept | None:
        for one in self.live(scope, deep=False):
            same = (draft.kind, draft.text, repr(draft.value)) == one.content()
            if one.key == draft.key if draft.key else one.key is None and same:
                return one
        return None

    def put(self, scope: Scope, draft: Draft) -> tuple[str, int]:
        """Return what must become of it, and the version."""
        expires_at = None if draft.ttl_s is None else self.now + draft.ttl_s
        old = self.standing(scope, draft)
        if old is None:
            new = Kept("", scope, draft.key, draft, 1, expires_at, self.now, len(self.kept))
            self.kept.append(new)
            return "created", 1
        if (draft.kind, draft.text, repr(draft.value)) == old.content():
            draft = replace(draft, trust=max(draft.trust, old.draft.trust))
            unmoved = (draft.trust, draft.state) == (old.draft.trust, old.draft.state)
            if unmoved and expires_at is None and old.expires_at is None:
                return "same", old.version
        old.draft, old.version, old.expires_at = draft, old.version + 1, expires_at
        old.updated_at = self.now
        return "replaced", old.version


class StoreMachine(RuleBasedStateMachine):
    """Writes to both, and asks both."""

    sealed = False

    @initialize()
    def open(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        shutil.copytree(_template(sealed=self.sealed), self.home, dirs_exist_ok=True)
        self.oracle = Oracle()
        self.opened = 0
        self.reopen()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.home)

    @rule()
    def reopen(self) -> None:
        if self.opened:
            self.store.close()
        self.opened += 1
        self.store = Store.open(self.home, encoder=ENCODER, clock=lambda: self.oracle.now)

    @rule(scope=scopes, new=st.lists(drafts, min_size=1, max_size=4), together=st.booleans())
    def put(self, scope: Scope, new: list[Draft], together: bool) -> None:
        wanted = []
        stored = [] if not together else list(self.store.put_many(scope, new))
        for draft in new:
            if not together:
                stored.append(self.store.put(scope, draft))
            wanted.append(self.oracle.put(scope, draft))
            kept = self.oracle.standing(scope, draft)
            assert kept is not None
            assert kept.id in ("", stored[len(wanted) - 1].id)
            kept.id = stored[len(wanted) - 1].id
        assert [(one.status, one.version) for one in stored] == wanted

    @rule(data=st.data(), draft=drafts)
    def change(self, data: st.DataObject, draft: Draft) -> None:
        if not (live := self.oracle.live()):
            return
        one = data.draw(st.sampled_from(live))
        new = replace(one.draft, text=draft.text, value=draft.value, state=draft.state)
        if one.key is None:
            other = self.oracle.standing(one.scope, replace(new, key=None))
            if other is not None and other is not one:
                with pytest.raises(ConflictError):
                    self._change(one, new)
                return
        record = self._change(one, new)
        one.draft, one.version, one.updated_at = new, one.version + 1, self.oracle.now
        assert seen(record) == wanted_of(one)

    def _change(self, one: Kept, new: Draft) -> Record:
        given = {"text": new.text, "value": new.value, "state": new.state}
        return self.store.change(one.scope.tenant, one.id, version=one.version, **given)

    @rule(data=st.data(), tenant=st.sampled_from(("t", "t%", "T")))
    def remove(self, data: st.DataObject, tenant: str) -> None:
        if not (live := self.oracle.live()):
            return
        chosen = data.draw(st.lists(st.sampled_from(live), max_size=2))
        mine = {one.id for one in chosen if one.scope.tenant == tenant}
        assert self.store.remove(tenant, [one.id for one in chosen]) == len(mine)
        self.oracle.kept = [one for one in live if one.id not in mine]

    @rule(seconds=st.sampled_from((1.0, 5.0, 60.0)), swept=st.booleans())
    def wait(self, seconds: float, swept: bool) -> None:
        before = len(self.oracle.kept)
        self.oracle.now += seconds
        after = len(self.oracle.live())
        if swept:
            assert self.store.sweep() >= before - after  # more, where nobody has looked since

    @rule(scope=scopes, data=st.data())
    def touch(self, scope: Scope, data: st.DataObject) -> None:
        ttl = data.draw(st.sampled_from((None, 7.0)))
        found = [one for one in self.oracle.live(scope, deep=False) if one.key == "k"]
        mortal = [one for one in found if one.expires_at is not None]
        assert self.store.touch(scope, ["k", "nobody's"], ttl) == len(mortal)
        for one in mortal:
            one.expires_at = self.oracle.now + (ttl or one.draft.ttl_s or 0)

    @rule(scope=scopes, deep=st.booleans(), kinds=st.sampled_from(((), ("item",))), n=st.booleans())
    def ask(self, scope: Scope, deep: bool, kinds: tuple[str, ...], n: bool) -> None:
        where = {"n": 1} if n else None
        meant = [
            one
            for one in self.oracle.live(scope, deep=deep)
            if (not kinds or one.draft.kind in kinds) and (not n or one.draft.value.get("n") == 1)
        ]
        options: dict[str, Any] = {"kinds": kinds, "where": where, "deep": deep}
        listed = self.store.list(scope, **options)
        assert sorted(map(str, map(seen, listed))) == sorted(map(str, map(wanted_of, meant)))
        assert [record.id for record in listed] == sorted(record.id for record in listed)
        self._compare_search(scope, meant, options)
        newest = self.store.search(scope, None, 100, **options)
        assert {hit.record.id for hit in newest.hits} == {one.id for one in meant}
        times = [hit.record.updated_at for hit in newest.hits]
        assert times == sorted(times, reverse=True)

    def _compare_search(self, scope: Scope, meant: list[Kept], options: dict[str, Any]) -> None:
        found = self.store.search(scope, "a cat and two dogs", 3, **options)
        [query] = ENCODER.embed(["a cat and two dogs"], tenant="t").result()
        with_text = [one for one in meant if one.draft.text]
        rows = ENCODER.embed([one.draft.text for one in with_text], tenant="t").result()
        cosines = sorted(np.float64(rows @ query).tolist() if with_text else [], reverse=True)
        assert [hit.similarity for hit in found.hits] == pytest.approx(cosines[:3], abs=1e-5)
        assert {hit.record.id for hit in found.hits} <= {one.id for one in with_text}
        assert found.n_scanned == len(meant)
        assert (found.code == "ok") == bool(with_text)

    @rule(tenant=st.sampled_from(("t", "t%", "T")), prefix=namespaces)
    def name(self, tenant: str, prefix: tuple[str, ...]) -> None:
        there = {one.scope.namespace for one in self.oracle.live(Scope(tenant))}
        n = len(prefix)
        wanted = sorted(name for name in there if name[:n] == prefix)
        assert list(self.store.namespaces(tenant, prefix=prefix)) == wanted

    @invariant()
    def every_key_is_found(self) -> None:
        if not hasattr(self, "store"):
            return
        for one in self.oracle.live():
            if one.key is not None:
                record = self.store.get(one.scope, one.key)
                assert record is not None
                assert seen(record) == wanted_of(one)
                elsewhere = Scope(one.scope.tenant, (*one.scope.namespace, "z"))
                assert self.store.get(elsewhere, one.key) is None


def seen(record: Record) -> tuple[Any, ...]:
    return (
        record.id, record.scope, record.text, record.value, record.kind, record.state,
        record.trust, record.version, record.expires_at, record.updated_at,
    )  # fmt: skip


def wanted_of(one: Kept) -> tuple[Any, ...]:
    draft = one.draft
    return (
        one.id, one.scope, draft.text, draft.value, draft.kind, draft.state, draft.trust,
        one.version, one.expires_at, one.updated_at,
    )  # fmt: skip


_made: dict[bool, Path] = {}


def _template(*, sealed: bool) -> Path:
    """Return a home with an empty store in it: migrating is not what is tested here."""
    if sealed not in _made:
        _made[sealed] = Path(tempfile.mkdtemp())
        Store.open(_made[sealed], encoder=ENCODER, sealed=sealed).close()
    return _made[sealed]


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> Iterator[None]:
    yield
    while _made:
        shutil.rmtree(_made.popitem()[1])


class SealedMachine(StoreMachine):
    sealed = True


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=20, stateful_step_count=20)
TestSealedStore = SealedMachine.TestCase
TestSealedStore.settings = settings(max_examples=6, stateful_step_count=20)
