"""Whether anything of what was erased is left: in files, in rows, in the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import LargeBinary, String, select, text

from elision.memory import schema as t
from elision.memory.erasure.closure import counts
from elision.memory.erasure.scan import files_below, scan
from elision.memory.index.vectors import from_bytes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.erasure.needles import Needles
    from elision.memory.index.partition import Partition

_CHUNK: Final = 1 << 21
_MOST_SEARCHED: Final = 32
ALIKE: Final = 0.999
"""Cosine from which a found vector counts as the erased one (atlas_memory.md 5.8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a check saw; see `Receipt.scan`.

    Attributes:
        figures: Of the byte scan.
        n_rows: Rows that refer to erased records still.
        n_indexed: Erased vectors that a search found still.
        n_keys: 1 if keys that were retired lie there still.
    """

    figures: dict[str, int]
    n_rows: int
    n_indexed: int
    n_keys: int = 0

    def unfinished(self) -> tuple[str, ...]:
        """Return codes of what is not as it must be; see `Receipt`."""
        wrong = {
            "residual": self.figures["residual"],
            "unreadable": self.figures["unreadable"],
            "rows": self.n_rows,
            "index": self.n_indexed,
            "keys": self.n_keys,
        }
        return tuple(code for code, n in wrong.items() if n)


def files_of(file: Path | None, folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the store's files: the database with its logs, and whatever lies in *folders*."""
    own = []
    if file is not None:
        own = [path for path in file.parent.iterdir() if path.name.startswith(file.name)]
    return files_below(*own, *folders)


def look_in_files(
    connection: Connection, files: Sequence[Path], needles: Needles
) -> dict[str, int]:
    """Scan *files* for *needles*; what a live row holds as well is ambiguous and not residual."""
    seen = scan(files, needles)
    found = sorted(seen.found)
    alive = _alive(connection, needles.only(found)) if found else set[int]()
    return {
        "files": seen.files,
        "bytes": seen.bytes,
        "unreadable": seen.unreadable,
        "windows": len(needles),
        "ambiguous": len(alive),
        "residual": len(found) - len(alive),
    }


def rows_left(connection: Connection, rids: Sequence[int]) -> int:
    """Return how many rows name *rids* still."""
    return sum(counts(connection, frozenset(rids), 0).values())


def look_in_index(
    partition: Partition, rids: Sequence[int], vectors: Sequence[bytes]
) -> tuple[int, int]:
    """Search for erased *vectors* among the erased *rids*; return how often, and how many came."""
    import numpy as np

    erased = np.array(rids, dtype=np.int64)
    chosen = vectors[:: max(1, len(vectors) // _MOST_SEARCHED)][:_MOST_SEARCHED]
    found = 0
    for data in chosen if len(erased) else ():
        found += len(partition.search(from_bytes(data, len(data) // 4)[0], 1, erased))
    return len(chosen), found


def _alive(connection: Connection, needles: Needles) -> set[int]:
    """Return the numbers of those *needles* that stand in what the database holds rightly."""
    found = set[int]()
    for chunk in _chunks(connection):
        found |= needles.found_in(chunk)
    return found


def _chunks(connection: Connection) -> Iterator[bytes]:
    waiting = bytearray()
    for value in _values(connection):
        waiting += value.encode() if isinstance(value, str) else bytes(value)
        waiting += b"\n"
        if len(waiting) > _CHUNK:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


def _values(connection: Connection) -> Iterator[Any]:
    """Yield every text and every run of bytes in every row, and the words of the schema."""
    for table in t.metadata.sorted_tables:
        columns = [c for c in table.c if isinstance(c.type, String | LargeBinary)]
        if not columns:
            continue
        query = select(*columns).execution_options(yield_per=1000)
        for row in connection.execute(query):
            yield from (value for value in row if value is not None)
    if connection.dialect.name == "sqlite":
        yield from connection.scalars(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
