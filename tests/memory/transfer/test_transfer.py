from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from elision.encoders import HashingEncoder
from elision.errors import ConfigError, ConflictError, ElisionError, RequestError, StoreError
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.selector import Selector
from elision.memory.learning.episodes import Episodes
from elision.memory.learning.exposures import Exposure
from elision.memory.learning.playbook import Playbook
from elision.memory.records import Draft, Scope, Trust
from elision.memory.schema import evidence, lineage, moves, records, spaces, subjects
from elision.memory.store import Store
from elision.memory.transfer import Bundle, export_to, import_from
from elision.memory.transfer.arriving import space_digest
from elision.memory.transfer.exporting import _sorted
from elision.memory.transfer.gathering import gathered
from elision.memory.transfer.lines import RecordLine, parsed
from elision.memory.transfer.report import Fate

ALL = Scope("acme")
ROOM = Scope("acme", ("notes", "jo"))


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Forbidding:
    def __init__(self, word: str) -> None:
        self.word = word

    def may_write(self, tenant: str, text: str) -> bool:
        return self.word not in text

    may_read = may_write


class Shelf:
    """Stores that share one folder of keys, unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[Store] = []

    def store(self, name: str, **options: Any) -> Store:
        options = {
            "encoder": HashingEncoder(32),
            "clock": Clock(),
            "keys": self.folder / "keys",
        } | options
        self.open.append(Store(self.folder / f"{name}.db", **options))
        return self.open[-1]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    for store in shelf.open:
        store.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tmp_path / "bundle.jsonl"


def filled(store: Store) -> list[str]:
    """A parent, a child of it about somebody, one that expires, and one of another namespace."""
    parent = store.put(ROOM, Draft(text="Jo grows tomatoes", key="garden", value={"n": 1}))
    child = Draft(
        text="prefers red ones",
        parents=(parent.id,),
        kind="advice",
        state="active",
        trust=Trust.OPERATOR,
        subjects=frozenset({"jo@example.org"}),
    )
    ids = [
        parent.id,
        store.put(ROOM, child).id,
        store.put(ROOM, Draft(text="rain tomorrow", ttl_s=3600)).id,
        store.put(Scope("acme", ("other",)), Draft(value={"ünï": [1.5, None, "ß"]}, key="k")).id,
    ]
    store.change("acme", parent.id, value={"n": 2})
    with store.writing() as writing:
        rid = writing.rid_of("acme", ids[1])
        arm = {"n": 2, "rewards": 1.5, "rewards_sq": 1.25, "tokens": 90, "tokens_sq": 4100}
        arms = {
            f"{a}_{name}": value for a in ("applied", "withheld") for name, value in arm.items()
        }
        row = {"rid": rid, "version": 1, "propensity": 0.5, "adopted": 1, "adopted_ok": 1}
        costs = {f"{a}_{c}": 0.25 for a in ("applied", "withheld") for c in ("cost", "cost_sq")}
        writing.connection.execute(insert(evidence), row | arms | costs)
        move = {"at": 7.0, "source": "provisional", "target": "active", "reason": "helps"}
        writing.connection.execute(
            insert(moves), move | {"rid": rid, "actor": "system", "figures": '{"mean":0.25}'}
        )
    return ids


def everything(store: Store) -> dict[str, Any]:
    """All that a bundle carries, by id and without row numbers."""
    with store.reading() as connection:
        ids = dict(connection.execute(select(records.c.rid, records.c.id)).all())
        found: dict[str, Any] = {
            "lineage": {(ids[a], ids[b]) for a, b in connection.execute(select(lineage))},
            "subjects": {(s, ids[rid]) for s, rid in connection.execute(select(subjects))},
        }
        for table in (evidence, moves):
            found[table.name] = [
                {k: v for k, v in row.items() if k not in ("rid", "id")} | {"of": ids[row["rid"]]}
                for row in connection.execute(select(table)).mappings()
            ]
        tenants = list(connection.scalars(select(spaces.c.tenant).distinct()))
    found["records"] = {r.id: r for t in tenants for r in store.list(Scope(t), limit=10_000)}
    return found


def fates(report: Any) -> dict[str, int]:
    return {fate.value: n for fate, n in report.fates.items()}


# --- there and back ------------------------------------------------------------------------------


def test_what_is_imported_is_what_was_exported(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    ids = filled(one)
    manifest = export_to(one, None, bundle)
    report = import_from(other, bundle)
    assert manifest.n_records == 4
    assert fates(report) == {"created": 4}
    assert report.n_embedded == 3
    assert report.is_known
    assert everything(other) == everything(one)
    assert set(everything(other)["records"]) == set(ids)
    found = other.search(ROOM, "Jo grows tomatoes", 1).hits[0]
    assert found.record.id == ids[0]
    assert found.similarity == pytest.approx(1)


def test_the_second_bundle_is_the_first_byte_for_byte(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other", sealed=True)
    filled(one)
    export_to(one, None, bundle)
    import_from(other, bundle)
    again = bundle.with_name("again.jsonl")
    export_to(other, None, again)
    assert again.read_bytes() == bundle.read_bytes()


def test_importing_twice_changes_nothing(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    filled(one)
    export_to(one, None, bundle)
    for mode, fate in (("skip", "same"), ("overwrite", "same")):
        import_from(other, bundle, on_conflict=mode)
        before = everything(other)
        report = import_from(other, bundle, on_conflict=mode)
        assert fates(report) == {fate: 4}
        assert report.n_embedded == 0
        assert everything(other) == before


def test_vectors_travel_when_asked_and_are_taken_from_the_same_encoder_only(
    shelf: Shelf, bundle: Path
) -> None:
    one = shelf.store("one")
    filled(one)
    export_to(one, None, bundle, vectors=True)
    same, wider = shelf.store("same"), shelf.store("wider", encoder=HashingEncoder(48))
    assert import_from(same, bundle, vectors=True).n_embedded == 0
    assert import_from(wider, bundle, vectors=True).n_embedded == 3
    for store in (one, same):
        [hit] = store.search(ALL, "Jo grows tomatoes", 1).hits
        assert hit.similarity == pytest.approx(1)
    assert import_from(shelf.store("wary"), bundle).n_embedded == 3


def test_only_what_was_asked_for_is_exported(shelf: Shelf, bundle: Path) -> None:
    store = shelf.store("one")
    store.put(ROOM, Draft(text="here"))
    store.put(Scope("acme", ("notes", "jonas")), Draft(text="a namespace with the same beginning"))
    store.put(Scope("acme-corp", ("notes", "jo")), Draft(text="a tenant with the same beginning"))
    store.put(ROOM, Draft(text="another kind", kind="advice"))
    store.put(ROOM, Draft(text="gone by then", ttl_s=1.5))
    assert export_to(store, ROOM, bundle, kinds=("note",)).n_records == 1
    assert export_to(store, ROOM, bundle).n_records == 2
    assert export_to(store, ALL, bundle).n_records == 3
    assert export_to(store, None, bundle).n_records == 4
    assert bundle.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in bundle.parent.glob("*bundle*")] == [bundle.name]


def test_a_bundle_that_cannot_be_written_leaves_the_old_one(shelf: Shelf, tmp_path: Path) -> None:
    store = shelf.store("one")
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    for name in ("absent/bundle.jsonl", "file/bundle.jsonl", "folder"):
        with pytest.raises(ConfigError, match="cannot be written"):
            export_to(store, None, tmp_path / name)
    assert (tmp_path / "file").read_text() == "old"
    assert not list(tmp_path.glob("**/*.tmp"))


def test_what_a_killed_export_left_goes_with_the_next_one(shelf: Shelf, bundle: Path) -> None:
    store = shelf.store("one")
    kept = [f".{bundle.name}.old.0123456789abcdef.tmp", f".{bundle.name}.0123.tmp", "mine.tmp"]
    for name in (f".{bundle.name}.0123456789abcdef.tmp", *kept):
        bundle.with_name(name).write_text("Jo grows tomatoes")
    export_to(store, None, bundle)
    left = {path.name for path in bundle.parent.iterdir() if "bundle" in path.name}
    assert left | {"mine.tmp"} == {bundle.name, *kept}


def test_a_time_to_live_goes_on(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    filled(one)
    export_to(one, None, bundle)
    import_from(other, bundle)
    [mortal] = [r for r in other.list(ALL) if r.expires_at]
    assert other.touch(mortal.scope, [mortal.key]) == 1
    [later] = other.find("acme", [mortal.id])
    assert 0 < (later.expires_at or 0) - (mortal.expires_at or 0) < 3600
    late = shelf.store("late", clock=lambda: 2_000_000.0)
    assert fates(import_from(late, bundle)) == {"created": 3, "expired": 1}


class Erasing:
    """Lets everything be read, and erases something else as soon as it is first asked."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self.id = ""

    def may_write(self, tenant: str, text: str) -> bool:
        return True

    def may_read(self, tenant: str, text: str) -> bool:
        store, self.store = self.store, None
        if store is not None:
            eraser, selector = Eraser(store), Selector(tenant=tenant, ids=(self.id,))
            eraser.erase(selector, reason="gdpr.17", actor="jo", wait_s=0)
        return True


def test_an_export_goes_on_while_an_erasure_seals_the_rest_anew(shelf: Shelf) -> None:
    screen = Erasing()
    store = shelf.store("one", sealed=True, screen=screen)
    ids = [store.put(ROOM, Draft(text=f"note {n}")).id for n in range(3)]
    screen.store, screen.id = store, ids[0]
    lines = gathered(store, "acme", ids, with_vectors=True)
    assert screen.store is None
    assert [(line.id, line.text) for line in lines if isinstance(line, RecordLine)] == [
        (ids[1], "note 1"),
        (ids[2], "note 2"),
    ]


def test_what_cannot_be_opened_whatever_its_key_is_told(shelf: Shelf, bundle: Path) -> None:
    store = shelf.store("one", sealed=True)
    store.put(ROOM, Draft(text="note"))
    with store.writing() as writing:
        writing.connection.execute(update(records).values(body=b"damaged"))
    with store.reading() as connection:
        ids = list(connection.scalars(select(records.c.id)))
    with pytest.raises(StoreError):
        gathered(store, "acme", ids, with_vectors=False)


# --- conflicts -----------------------------------------------------------------------------------


def conflicting(shelf: Shelf, bundle: Path) -> tuple[Store, str]:
    one, other = shelf.store("one"), shelf.store("other")
    id_ = one.put(ROOM, Draft(text="theirs", key="k", value={"n": 1})).id
    export_to(one, None, bundle)
    mine = other.put(ROOM, Draft(text="mine", key="k")).id
    assert id_ != mine
    return other, mine


def test_skip_leaves_what_is_there(shelf: Shelf, bundle: Path) -> None:
    other, mine = conflicting(shelf, bundle)
    before = everything(other)
    report = import_from(other, bundle)
    assert fates(report) == {"skipped": 1}
    assert report.n_embedded == 0
    assert everything(other) == before
    assert before["records"].keys() == {mine}


def test_overwrite_puts_the_bundles_in_its_place(shelf: Shelf, bundle: Path) -> None:
    other, mine = conflicting(shelf, bundle)
    child = other.put(ROOM, Draft(text="made of mine", parents=(mine,))).id
    assert fates(import_from(other, bundle, on_conflict="overwrite")) == {"replaced": 1}
    record = other.get(ROOM, "k")
    assert record is not None
    assert (record.text, record.value) == ("theirs", {"n": 1})
    assert record.id != mine
    assert everything(other)["lineage"] == {(child, record.id)}
    [hit] = other.search(ROOM, "theirs", 1).hits
    assert hit.record == record
    assert hit.similarity == pytest.approx(1)


def test_overwrite_moves_a_record_whose_id_lies_elsewhere(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    id_ = one.put(ROOM, Draft(text="the same words")).id
    export_to(one, None, bundle)
    import_from(other, bundle)
    one.change("acme", id_, text="other words, so another key")
    export_to(one, None, bundle)
    assert fates(import_from(other, bundle)) == {"skipped": 1}
    assert fates(import_from(other, bundle, on_conflict="overwrite")) == {"replaced": 1}
    assert everything(other) == everything(one)


def test_a_later_reward_never_corrects_evidence_that_an_import_replaced(
    shelf: Shelf, bundle: Path
) -> None:
    store = shelf.store("one")
    id_ = store.put(ROOM, Draft(text="query the ledger")).id
    export_to(store, None, bundle)
    store.change("acme", id_, state="active")
    episodes = Episodes(store, Playbook(store))
    met = Exposure(entry=id_, version=1, applied=True, propensity=0.5, position=0)
    name = episodes.begin(ROOM, "late fee", mode="on", lane="auto", exposures=[met])
    episodes.end(name, state="succeeded")
    episodes.reward("acme", name, 0.2, by="judge")
    import_from(store, bundle, on_conflict="overwrite")
    assert everything(store)["evidence"] == []
    assert episodes.reward("acme", name, 1.0, by="env")
    assert everything(store)["evidence"] == []


def test_new_ids_keep_both_and_only_once(shelf: Shelf, bundle: Path) -> None:
    one = shelf.store("one")
    ids = filled(one)
    export_to(one, None, bundle)
    assert fates(import_from(one, bundle, on_conflict="new_ids")) == {"created": 4}
    after = everything(one)
    assert len(after["records"]) == 8
    parent_of = dict(after["lineage"])
    [new_child] = parent_of.keys() - set(ids)
    assert parent_of[new_child] not in ids
    assert fates(import_from(one, bundle, on_conflict="new_ids")) == {"same": 4}
    assert everything(one) == after


def test_an_id_of_another_tenant_is_never_touched(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    one.put(ROOM, Draft(text="theirs"))
    export_to(one, None, bundle)
    import_from(other, bundle, tenant="globex")
    before = everything(other)
    for mode in ("skip", "overwrite"):
        assert fates(import_from(other, bundle, on_conflict=mode)) == {"foreign": 1}
    assert everything(other) == before
    assert [record.scope.tenant for record in before["records"].values()] == ["globex"]


# --- what must not come back ---------------------------------------------------------------------


def test_what_was_erased_stays_away_with_all_that_was_made_from_it(
    shelf: Shelf, bundle: Path
) -> None:
    store = shelf.store("one")
    ids = filled(store)
    export_to(store, None, bundle)
    receipt = Eraser(store).erase(
        Selector(tenant="acme", ids=(ids[0],)), reason="user_request", actor="jo"
    )
    assert receipt.state == "verified"
    for mode in ("skip", "overwrite", "new_ids"):
        report = import_from(store, bundle, on_conflict=mode)
        assert report.fates[Fate.BURIED] == 2
        assert not {"Jo grows tomatoes", "prefers red ones"} & {r.text for r in store.list(ALL)}
    assert import_from(store, bundle, revive=True).fates[Fate.CREATED] == 2
    assert {"Jo grows tomatoes", "prefers red ones"} <= {r.text for r in store.list(ALL)}


def test_what_a_forget_target_forbids_stays_out_with_its_children(
    shelf: Shelf, bundle: Path
) -> None:
    one = shelf.store("one")
    filled(one)
    export_to(one, None, bundle)
    other = shelf.store("other", screen=Forbidding("tomatoes"))
    assert fates(import_from(other, bundle)) == {"created": 2, "screened": 2}
    assert "prefers red ones" not in {record.text for record in other.list(ALL)}


def test_what_may_not_be_read_is_not_exported(shelf: Shelf, bundle: Path) -> None:
    one = shelf.store("one")
    filled(one)
    one.close()
    assert export_to(shelf.store("one", screen=Forbidding("rain")), None, bundle).n_records == 3
    assert b"rain" not in bundle.read_bytes()


def test_a_person_can_be_erased_from_what_was_imported(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    ids = filled(one)
    export_to(one, None, bundle)
    import_from(other, bundle)
    about = Selector(tenant="acme", subject="jo@example.org")
    Eraser(other).erase(about, reason="gdpr.17", actor="subject")
    assert ids[1] not in everything(other)["records"]


def test_what_was_erased_stays_away_under_another_tenant_and_another_key(
    shelf: Shelf, bundle: Path
) -> None:
    store = shelf.store("one")
    store.put(ROOM, Draft(text="Jo grows tomatoes", key="garden"))
    export_to(store, ALL, bundle)
    store.change("acme", store.list(ROOM)[0].id, text="Jo grew tomatoes")
    Eraser(store).erase(Selector(tenant="acme"), reason="gdpr.17", actor="jo")
    store.put(Scope("globex", ROOM.namespace), Draft(text="mine", key="garden"))
    for mode in ("skip", "overwrite", "new_ids"):
        report = import_from(store, bundle, tenant="globex", on_conflict=mode)
        assert fates(report) == {"buried": 1}
        assert [record.text for record in store.list(Scope("globex"))] == ["mine"]
    store.put(ROOM, Draft(text="mine", key="garden"))
    assert fates(import_from(store, bundle, on_conflict="new_ids")) == {"buried": 1}
    assert fates(import_from(store, bundle, tenant="globex", revive=True)) == {"skipped": 1}


def test_persons_are_not_lost_in_silence_under_another_tenant(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    filled(one)
    export_to(one, ALL, bundle)
    with pytest.raises(ConflictError, match="1 records are about persons") as refused:
        import_from(other, bundle, tenant="globex")
    assert refused.value.code == "subjects_lost"
    assert not other.list(Scope("globex"))
    report = import_from(other, bundle, tenant="globex", without_subjects=True)
    assert report.n_subjects_lost == 1
    assert everything(other)["subjects"] == set()
    assert import_from(shelf.store("same"), bundle, tenant="acme").n_subjects_lost == 0
    assert everything(shelf.open[-1])["subjects"] == everything(one)["subjects"]


def test_the_digest_of_a_namespace_is_the_stores_own(shelf: Shelf) -> None:
    store = shelf.store("one")
    store.put(ROOM, Draft(text="x"))
    with store.reading() as connection:
        assert connection.scalar(select(spaces.c.digest)) == space_digest(store, ROOM)


# --- whom to believe -----------------------------------------------------------------------------


def test_a_bundle_of_a_stranger_is_refused_unless_its_key_is_named(
    shelf: Shelf, tmp_path: Path, bundle: Path
) -> None:
    theirs = shelf.store("theirs", keys=tmp_path / "other-keys")
    theirs.put(ROOM, Draft(text="believe me", trust=Trust.OPERATOR))
    manifest = export_to(theirs, None, bundle)
    mine = shelf.store("mine")
    with pytest.raises(RequestError, match=manifest.key_id) as refused:
        import_from(mine, bundle)
    assert refused.value.code == "unknown_signer"
    foretold = import_from(mine, bundle, dry_run=True)
    assert (foretold.is_known, foretold.key_id) == (False, manifest.key_id)
    import_from(mine, bundle, trust=[manifest.public_key], most_trust=Trust.TOOL)
    assert [record.trust for record in mine.list(ALL)] == [Trust.TOOL]


def test_subjects_are_not_lost_in_silence(shelf: Shelf, tmp_path: Path, bundle: Path) -> None:
    theirs, mine = shelf.store("theirs", keys=tmp_path / "other-keys"), shelf.store("mine")
    filled(theirs)
    trust = [export_to(theirs, None, bundle).public_key]
    with pytest.raises(ConflictError, match="1 records are about persons") as refused:
        import_from(mine, bundle, trust=trust)
    assert refused.value.code == "subjects_lost"
    assert not mine.list(ALL)
    assert import_from(mine, bundle, trust=trust, without_subjects=True).n_subjects_lost == 1
    assert everything(mine)["subjects"] == set()


def test_a_dry_run_foretells_and_writes_nothing(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    filled(one)
    export_to(one, None, bundle)
    for mode in ("skip", "overwrite", "new_ids"):
        before = everything(other)
        foretold = import_from(other, bundle, on_conflict=mode, dry_run=True)
        assert everything(other) == before
        assert import_from(other, bundle, on_conflict=mode).fates == foretold.fates


@settings(max_examples=25)
@given(data=st.data())
def test_no_bundle_is_used_that_differs_in_a_single_byte(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    genuine, store = _genuine(tmp_path_factory)
    at = data.draw(st.integers(0, len(genuine) - 1))
    how = data.draw(st.sampled_from(["flip", "drop", "double", "cut"]))
    bit = data.draw(st.integers(0, 7))
    altered = {
        "flip": genuine[:at] + bytes([genuine[at] ^ 1 << bit]) + genuine[at + 1 :],
        "drop": genuine[:at] + genuine[at + 1 :],
        "double": genuine[:at] + genuine[at : at + 1] + genuine[at:],
        "cut": genuine[:at],
    }[how]
    if altered.rstrip(b"\n") == genuine.rstrip(b"\n"):
        return
    forged = store.database.folder / "forged.jsonl"
    forged.write_bytes(altered)
    with pytest.raises(RequestError) as refused:
        import_from(store, forged, dry_run=False)
    assert refused.value.code in {"invalid_bundle", "unknown_signer"}
    assert "tomatoes" not in str(refused.value)
    assert not store.list(ALL)


_GENUINE: dict[str, tuple[bytes, Store]] = {}


def _genuine(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Store]:
    if "one" not in _GENUINE:
        folder = tmp_path_factory.mktemp("genuine")
        shelf = Shelf(folder)
        one = shelf.store("one")
        filled(one)
        export_to(one, None, folder / "bundle.jsonl")
        _GENUINE["one"] = (folder / "bundle.jsonl").read_bytes(), shelf.store("empty")
    return _GENUINE["one"]


@pytest.mark.parametrize(
    "line",
    [
        {"line": "record", "id": "m_1"},
        {"line": "record", "secret tomatoes": 1},
        {"line": "evidence", "record": "m_1"},
        {"line": "tomatoes"},
        ["tomatoes"],
        "tomatoes",
        None,
    ],
)
def test_a_line_that_is_none_is_refused_without_repeating_it(
    shelf: Shelf, bundle: Path, line: Any
) -> None:
    store = shelf.store("one")
    export_to(store, None, bundle)
    first, last = bundle.read_bytes().splitlines()
    bundle.write_bytes(b"\n".join([first, json.dumps(line).encode(), last]) + b"\n")
    with pytest.raises(RequestError, match="line 2") as refused:
        import_from(store, bundle)
    assert refused.value.code == "invalid_bundle"
    assert "tomatoes" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "field", "wrong"),
    [
        ("move", "reason", "tomatoes grow"),
        ("move", "reason", "Tomatoes"),
        ("move", "actor", "grower of tomatoes"),
        ("move", "actor", ""),
        ("move", "figures", {"mean": "tomatoes"}),
        ("move", "figures", {"mean": {"tomatoes": 1}}),
        ("move", "figures", {"mean": True}),
        ("move", "figures", {"grows tomatoes": 1}),
        ("record", "version", 2**31),
        ("evidence", "version", 2**31),
        ("evidence", "adopted", 2**31),
        ("evidence", "applied", {"n": 2**31}),
    ],
)
def test_a_signed_line_holds_figures_and_codes_only_and_none_that_no_column_holds(
    shelf: Shelf, bundle: Path, name: str, field: str, wrong: Any
) -> None:
    store = shelf.store("one")
    filled(store)
    export_to(store, None, bundle)
    told = [json.loads(line) for line in bundle.read_bytes().splitlines()]
    [line] = [line for line in told if line["line"] == name][:1]
    parsed(json.dumps(line).encode(), 1)
    altered = line | {field: line[field] | wrong if field == "applied" else wrong}
    with pytest.raises(RequestError, match=f"wrong: {field}") as refused:
        parsed(json.dumps(altered).encode(), 1)
    assert "tomatoes" not in str(refused.value)


def test_an_actor_of_several_words_leaves_as_a_code(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    id_ = filled(one)[1]
    with one.writing() as writing:
        rid = writing.rid_of("acme", id_)
        row = {"rid": rid, "at": 8.0, "source": "active", "target": "demoted", "reason": "demote"}
        writing.connection.execute(
            insert(moves), row | {"actor": "Front desk, Jö", "figures": '{"n_least":12,"z":null}'}
        )
    export_to(one, None, bundle)
    import_from(other, bundle)
    [_, move] = everything(other)["moves"]
    assert (move["actor"], move["figures"]) == ("Front_desk__J_", '{"n_least":12,"z":null}')


def test_a_line_without_end_is_refused_and_not_held(
    shelf: Shelf, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = shelf.store("one")
    export_to(store, None, bundle)
    monkeypatch.setattr("elision.memory.transfer.bundle.LONGEST_LINE", 5_000)
    bundle.write_bytes(b'{"line": "' + b"x" * 6_000)
    with pytest.raises(RequestError, match="more than 5000 bytes"):
        import_from(store, bundle)


@pytest.mark.parametrize("n_lines", [1, 3, 5])
def test_a_bundle_that_is_cut_between_two_readings_is_told(
    shelf: Shelf, bundle: Path, n_lines: int
) -> None:
    store = shelf.store("one")
    filled(store)
    export_to(store, None, bundle)
    lines = bundle.read_bytes().splitlines(keepends=True)
    with Bundle(bundle) as opened:
        with bundle.open("r+b") as file:
            file.truncate(sum(map(len, lines[:n_lines])))
        with pytest.raises(RequestError, match="changed while it was read"):
            list(opened.entries())


# --- order ---------------------------------------------------------------------------------------


@given(
    edges=st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefg")), max_size=12)
)
def test_parents_come_before_children_whatever_can(edges: list[tuple[str, str]]) -> None:
    parents: dict[str, set[str]] = {}
    for child, parent in edges:
        if child != parent:
            parents.setdefault(child, set()).add(parent)
    order = _sorted("gfedcba", parents)
    assert sorted(order) == list("abcdefg")
    seen = set[str]()
    in_circles = _in_circles(parents)
    for id_ in order:
        if id_ not in in_circles:
            assert parents.get(id_, set()) <= seen
        seen.add(id_)


def _in_circles(parents: dict[str, set[str]]) -> set[str]:
    """What can never be placed: a member of a circle, or made from one."""
    placed = set[str]()
    while ready := {c for c in "abcdefg" if parents.get(c, set()) <= placed} - placed:
        placed |= ready
    return set("abcdefg") - placed


def test_lineage_in_a_circle_comes_through(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    a = one.put(ROOM, Draft(text="a", key="a")).id
    b = one.put(ROOM, Draft(text="b", key="b", parents=(a,), trust=Trust.TOOL)).id
    one.put(ROOM, Draft(text="a", key="a", parents=(b,)))
    export_to(one, None, bundle)
    import_from(other, bundle)
    assert everything(other)["lineage"] == {(a, b), (b, a)} == everything(one)["lineage"]
    assert {record.trust for record in other.list(ALL)} == {Trust.TOOL}


def test_parents_that_did_not_come_along_are_counted(shelf: Shelf, bundle: Path) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    ids = filled(one)
    export_to(one, None, bundle, kinds=("advice",))
    assert import_from(other, bundle).n_orphans == 1
    assert import_from(one, bundle, on_conflict="new_ids").n_orphans == 0
    assert {parent for _, parent in everything(one)["lineage"]} == {ids[0]}


def test_a_bundle_of_several_tenants_becomes_nobody_elses(shelf: Shelf, bundle: Path) -> None:
    one = shelf.store("one")
    one.put(ROOM, Draft(text="x"))
    one.put(Scope("globex"), Draft(text="y"))
    export_to(one, None, bundle)
    with pytest.raises(RequestError, match="several tenants"):
        import_from(shelf.store("other"), bundle, tenant="initech")


def test_batches_are_whole(shelf: Shelf, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = shelf.store("one"), shelf.store("other")
    previous: tuple[str, ...] = ()
    for n in range(10):
        previous = (one.put(ROOM, Draft(text=f"note {n}", parents=previous)).id,)
    export_to(one, None, bundle)
    monkeypatch.setattr("elision.memory.transfer.importing._BATCH", 3)
    real, calls = Store.encoded, iter(range(10))

    def failing(self: Store, tenant: str, texts: list[str]) -> Any:
        if next(calls) == 2:
            raise ElisionError("the encoder went away")
        return real(self, tenant, texts)

    monkeypatch.setattr(Store, "encoded", failing)
    with pytest.raises(ElisionError, match="went away"):
        import_from(other, bundle)
    assert len(other.list(ALL)) == 6
    assert fates(import_from(other, bundle)) == {"same": 6, "created": 4}
    assert everything(other) == everything(one)
