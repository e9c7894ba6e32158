"""A bundle that lies in a file: checked from end to end before a line of it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from elision.crypto.signing import is_signed, key_id_of
from elision.errors import ConfigError, RequestError
from elision.memory.transfer.lines import (
    LONGEST_LINE,
    AnyLine,
    EndLine,
    EvidenceLine,
    ManifestLine,
    MoveLine,
    RecordLine,
    next_sum,
    parsed,
)

START: Final = b""
"""The sum over no lines."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle is.

    Attributes:
        n_records: Records in it.
        encoder: Name and dimension of what made the vectors; None: there was none.
        vectors: Whether it brings them.
        vault: Digest that two stores share if they have the same master key.
        sha256: Sum over its lines, in hex.
        key_id: Of the key that signed it.
        public_key: That key, in PEM.
    """

    n_records: int
    encoder: str | None
    vectors: bool
    vault: str = field(repr=False)
    sha256: str
    key_id: str
    public_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record and the lines that belong to it."""

    record: RecordLine
    evidence: tuple[EvidenceLine, ...] = ()
    moves: tuple[MoveLine, ...] = ()


class Bundle:
    """A bundle in a file; open while it lives.

    Opening it reads it once: every line against its schema, the sum, the signature. Whose
    signature it is, is the caller's to judge. Reading it again holds each line against the sum of
    the first time, so a file that changes meanwhile is told.

    Attributes:
        manifest: What it is.
        ids: Of its records.
        n_with_subjects: Records that are about somebody.
        tenants: Whose records they are.
    """

    def __init__(self, path: Path) -> None:
        """Open and check the bundle at *path*.

        Raises:
            ConfigError: If the file cannot be read.
            RequestError: If it is no bundle, or was altered or cut (code ``invalid_bundle``).
        """
        self._sums: list[bytes] = []
        self.ids: frozenset[str] = frozenset()
        self.n_with_subjects = 0
        self.tenants: set[str] = set()
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as exc:
            raise ConfigError(f"the bundle cannot be read ({type(exc).__name__})") from exc
        try:
            self.manifest = self._checked()
        except BaseException:
            self.close()
            raise

    def entries(self) -> Iterator[Entry]:
        """Yield the records in the bundle's order, each with what belongs to it."""
        return _joined(self._again())

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _checked(self) -> Manifest:
        order, sum_, first, last = _Order(), START, None, None
        for n, data in enumerate(self._lines(), start=1):
            if last is not None:
                raise _invalid(f"line {n} stands behind its end")
            line = parsed(data, n)
            if (n == 1) != isinstance(line, ManifestLine):
                raise _invalid("its first line, and no other, is the manifest")
            if isinstance(line, EndLine):
                last = line
                continue
            first = first or (line if isinstance(line, ManifestLine) else None)
            order.take(line, n)
            self._note(line)
            sum_ = next_sum(sum_, data)
            self._sums.append(sum_)
        if first is None or last is None:
            raise _invalid("it ends too early")
        self.ids = frozenset(order.ids)
        return _manifest(first, last, len(order.ids), sum_)

    def _note(self, line: AnyLine) -> None:
        if isinstance(line, RecordLine):
            self.tenants.add(line.tenant)
            self.n_with_subjects += bool(line.subjects)

    def _again(self) -> Iterator[AnyLine]:
        self._file.seek(0)
        sum_, n = START, 0
        for n, (data, known) in enumerate(zip(self._lines(), self._sums, strict=False), start=1):
            sum_ = next_sum(sum_, data)
            if sum_ != known:
                raise _invalid("it was changed while it was read")
            yield parsed(data, n)
        if n < len(self._sums):
            raise _invalid("it was changed while it was read")

    def _lines(self) -> Iterator[bytes]:
        while data := self._file.readline(LONGEST_LINE + 1):
            if len(data) > LONGEST_LINE:
                raise _invalid(f"a line takes more than {LONGEST_LINE} bytes")
            yield data


class _Order:
    """Whether ids come once, and what belongs to a record right behind it."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self._last: str | None = None

    def take(self, line: AnyLine, n: int) -> None:
        if isinstance(line, RecordLine):
            if line.id in self.ids:
                raise _invalid(f"line {n} has the id of a line before")
            self.ids.add(line.id)
            self._last = line.id
        elif isinstance(line, EvidenceLine | MoveLine) and line.record != self._last:
            raise _invalid(f"line {n} does not stand behind its record")


def _manifest(first: ManifestLine, last: EndLine, n_records: int, sum_: bytes) -> Manifest:
    if last.records != n_records or last.sha256 != sum_.hex():
        raise _invalid("its lines are not those that were signed; one was altered, added or lost")
    try:
        genuine = is_signed(last.signed(), last.signature, last.public_key)
        key_id = key_id_of(last.public_key)
    except ConfigError as exc:
        raise _invalid("its key cannot be read") from exc
    if not genuine:
        raise _invalid("its signature is not that of its key")
    return Manifest(
        n_records=n_records,
        encoder=first.encoder,
        vectors=first.vectors,
        vault=first.vault,
        sha256=last.sha256,
        key_id=key_id,
        public_key=last.public_key,
    )


def _joined(lines: Iterable[AnyLine]) -> Iterator[Entry]:
    record: RecordLine | None = None
    evidence: list[EvidenceLine] = []
    moves: list[MoveLine] = []
    for line in lines:
        if isinstance(line, EvidenceLine):
            evidence.append(line)
        elif isinstance(line, MoveLine):
            moves.append(line)
        elif isinstance(line, RecordLine):
            if record is not None:
                yield Entry(record, tuple(evidence), tuple(moves))
            record, evidence, moves = line, [], []
    if record is not None:
        yield Entry(record, tuple(evidence), tuple(moves))


def _invalid(reason: str) -> RequestError:
    return RequestError(f"the bundle cannot be used: {reason}", code="invalid_bundle")
