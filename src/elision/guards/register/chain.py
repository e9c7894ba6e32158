"""A chain of log entries, each carrying the hash of the one before; and what breaks it.

Source: the entries' fields and the genesis follow the usual construction of a hash chain over
canonical JSON (RFC 8785) with SHA-256. A chain alone cannot show that its tail was cut; signed
checkpoints can, so verification takes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import rfc8785

from elision.guards.register.checkpoints import Checkpoint

ALGORITHM = "sha256+rfc8785"
BEFORE_GENESIS = "0" * 64
_LINK = frozenset({"seq", "prev_hash", "hash"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that was done, without a word of what it was done to.

    Attributes:
        seq: Its place in the log; the genesis has 0.
        ts: When, RFC 3339, UTC, milliseconds; never before the entry before it.
        tenant: Whose; empty for the genesis.
        actor: Who: a key's name, or ``clock``.
        action: ``genesis``, ``add``, ``import``, or an operation of `elision.guards.lifecycle`.
        object_id: Which target; empty if none.
        object_version: How often that target has changed, registration included.
        details: Numbers, states, hashes.
        prev_hash: The hash of the entry before; 64 zeros in the genesis.
        hash: SHA-256 in hex over the canonical JSON of every other field.
    """

    seq: int
    ts: str
    tenant: str
    actor: str
    action: str
    object_id: str
    object_version: int
    details: Mapping[str, Any]
    prev_hash: str
    hash: str

    @classmethod
    def linked(cls, **given: Any) -> Entry:
        """Return the entry of every field but ``hash``, that one computed."""
        return cls(**given, hash=hash_of(given))

    def to_body(self) -> dict[str, Any]:
        """Return the entry as the wire writes it."""
        return asdict(self)


_FIELDS = frozenset(field.name for field in fields(Entry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of reading a log from its beginning.

    Attributes:
        ok: Whether nothing is wrong with it.
        count: Entries read, the genesis included; up to the first bad one.
        head: Hash of the last good entry; empty if there is none.
        first_bad: Place in the log of the first entry that is wrong or missing.
        why: What is wrong there; empty if nothing is.
        hidden: Entries of which only the link was shown, being another tenant's.
    """

    ok: bool
    count: int
    head: str = ""
    first_bad: int | None = None
    why: str = ""
    hidden: int = 0


def hash_of(fields: Mapping[str, Any]) -> str:
    """Return the hash of an entry with these *fields*, ``hash`` itself left out."""
    counted = {key: value for key, value in fields.items() if key != "hash"}
    return hashlib.sha256(rfc8785.dumps(counted)).hexdigest()


def verify_chain(
    entries: Iterable[Mapping[str, Any]], marks: Sequence[Checkpoint] = ()
) -> Verification:
    """Read a chain from its genesis on and hold it against checkpoints.

    Args:
        entries: Every entry in order, as `Entry.to_body` writes it; of another tenant's, ``seq``,
            ``prev_hash`` and ``hash`` are enough.
        marks: Checkpoints, their signatures already checked. The log may have grown since.
    """
    walk = _Walk(marks)
    for entry in entries:
        if why := walk.fault(entry):
            return walk.result(why)
        walk.step(entry)
    return walk.result(walk.missing())


class _Walk:
    """How far the chain has been read, and with what it must go on."""

    def __init__(self, marks: Sequence[Checkpoint]) -> None:
        self._marks = {mark.seq: mark for mark in marks}
        self._seq, self._hash, self._ts, self._log_id, self._hidden = 0, BEFORE_GENESIS, "", "", 0

    def fault(self, entry: Mapping[str, Any]) -> str:
        """Return what is wrong with *entry* in this place; nothing if it is right."""
        is_hidden = entry.keys() == _LINK
        if not is_hidden and entry.keys() != _FIELDS:
            return "it has other fields than an entry"
        if entry["seq"] != self._seq:
            return f"{self._seq} is missing, or out of order"
        if entry["prev_hash"] != self._hash:
            return "it does not follow the entry before it"
        if not is_hidden and (why := self._content_fault(entry)):
            return why
        mark = self._marks.get(self._seq)
        if mark is not None and mark.hash != entry["hash"]:
            return "a signed checkpoint has another hash here"
        return ""

    def step(self, entry: Mapping[str, Any]) -> None:
        """Go past *entry*."""
        if self._seq == 0:
            self._log_id = entry["details"]["log_id"]
        self._hidden += entry.keys() == _LINK
        self._ts = entry.get("ts", self._ts)
        self._seq, self._hash = self._seq + 1, entry["hash"]

    def missing(self) -> str:
        """Return why the chain may not end here; nothing if it may."""
        if self._seq == 0:
            return "the genesis is missing"
        if any(mark.log_id != self._log_id for mark in self._marks.values()):
            return "a signed checkpoint is of another log"
        if any(mark.count > self._seq for mark in self._marks.values()):
            return "the log ends here, but a signed checkpoint has more entries"
        return ""

    def result(self, why: str) -> Verification:
        """Return the verification that ends here, for the reason *why* if it is not well."""
        return Verification(
            ok=not why,
            count=self._seq,
            head=self._hash if self._seq else "",
            first_bad=self._seq if why else None,
            why=why,
            hidden=self._hidden,
        )

    def _content_fault(self, entry: Mapping[str, Any]) -> str:
        try:
            expected = hash_of(entry)
        except (rfc8785.CanonicalizationError, TypeError, ValueError):
            return "it cannot be written as canonical JSON"
        if entry["hash"] != expected:
            return "its content does not have its hash"
        if entry["ts"] < self._ts:
            return "its clock is behind that of the entry before it"
        if self._seq == 0 and (entry["action"] != "genesis" or "log_id" not in entry["details"]):
            return "it is no genesis"
        return ""
