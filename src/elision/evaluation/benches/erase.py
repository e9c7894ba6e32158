"""Erasure: how many copies of a tenant are left in any file, and how long it takes."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from elision.evaluation.bench import Setup
from elision.evaluation.figures import Figure, Goal, of
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.selector import Selector
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

N_RECORDS: Final = 10_000
N_TENANTS: Final = 10
GONE: Final = "tenant-3"
PIECE: Final = 16
"""Bytes of which one run is enough to count as a copy."""


class DenseEncoder:
    """Vectors drawn from the digest of their text.

    Dense, so that any four numbers of one tell whose they are.
    """

    name = "dense-384"
    dim = 384

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[NDArray[np.float32]]:
        """Return a unit vector per text; see `Encoder`."""
        import numpy as np

        future: Future[NDArray[np.float32]] = Future()
        rows = np.array([_drawn(text, self.dim) for text in texts]).reshape(-1, self.dim)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        future.set_result(rows.astype(np.float32))
        return future

    def close(self) -> None:
        """Do nothing."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield what erasing one tenant of ten leaves and costs, in a clear store and a sealed one."""
    n_records = setup.repeats(N_RECORDS, N_RECORDS // 10)
    for name, sealed in (("erase", False), ("erase.sealed", True)):
        with tempfile.TemporaryDirectory() as home:
            yield from _measured(name, Path(home), n_records, sealed=sealed)


def copies(folder: Path, wanted: Sequence[bytes]) -> int:
    """Return how many runs of `PIECE` bytes of *wanted* stand in files below *folder*.

    Every offset of every file is tried; nothing of the eraser's own scan is used. A fragment of
    twice that length is found wherever it was cut.
    """
    pieces = {
        one[at : at + PIECE] for one in wanted for at in range(0, len(one) - PIECE + 1, PIECE)
    }
    n_found = 0
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            runs = (data[at : at + PIECE] for at in range(len(data) - PIECE + 1))
            n_found += sum(map(pieces.__contains__, runs))
    return n_found


def spelt(text: str) -> list[bytes]:
    """Return *text* as files may hold it."""
    codes = [text.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be")]
    return [*codes, orjson.dumps(text)[1:-1]]


def _measured(name: str, home: Path, n_records: int, *, sealed: bool) -> Iterator[Figure]:
    encoder = DenseEncoder()
    texts = {f"tenant-{n}": _texts(n, n_records // N_TENANTS) for n in range(N_TENANTS)}
    with Store.open(home, encoder=encoder, sealed=sealed) as store:
        _fill(store, texts)
        Eraser(store).backup(home / "backup.db")
    rows = encoder.embed(texts[GONE], tenant=GONE).result().astype("<f4")
    wanted = [one for text in texts[GONE] for one in spelt(text)] + [row.tobytes() for row in rows]
    n_before = copies(home, wanted)
    others = [tenant for tenant in texts if tenant != GONE]
    with Store.open(home, encoder=encoder) as store:
        before = [_seen(store, tenant, texts[tenant][0]) for tenant in others]
        eraser, begun = Eraser(store, folders=[home]), time.perf_counter()
        receipt = eraser.erase(Selector(tenant=GONE), reason="bench", actor="bench")
        seconds = time.perf_counter() - begun
        n_after = copies(home, wanted)
        after = [_seen(store, tenant, texts[tenant][0]) for tenant in others]
        verified = receipt.state == "verified" and eraser.verify(receipt)
    n_after += copies(home, wanted)  # closing writes files too
    told: dict[str, Any] = {"records": n_records, "erased": len(texts[GONE]), "sealed": sealed}
    told |= {"files_scanned": receipt.scan["files"], "mb_scanned": receipt.scan["bytes"] >> 20}
    yield of(
        f"{name}.copies", [n_after], "copies", goal=Goal(value=0, sense="<="),
        before=n_before, what="runs of 16 bytes, in any file", **told,
    )  # fmt: skip
    n_changed = sum(one != other for one, other in zip(before, after, strict=True))
    yield of(f"{name}.others_changed", [n_changed], "tenants", goal=Goal(value=0, sense="<="))
    yield of(f"{name}.verified", [float(verified)], "receipts", goal=Goal(value=1, sense=">="))
    yield of(f"{name}.seconds", [seconds], "s", **told)


def _fill(store: Store, texts: dict[str, tuple[str, ...]]) -> None:
    """Write everything, some of it twice, remove some, and have indexes written."""
    for tenant, said in texts.items():
        scope = Scope(tenant, ("notes",))
        for start in range(0, len(said), 500):
            store.put_many(scope, [Draft(text=text) for text in said[start : start + 500]])
        records = store.list(scope, limit=20)
        for record in records[:10]:
            store.change(tenant, record.id, text=f"{record.text} and since then more")
        store.remove(tenant, [record.id for record in records[10:]])
        store.search(Scope(tenant), said[0])


def _texts(tenant: int, n: int) -> tuple[str, ...]:
    """Return texts of which no sixteen bytes stand in another's."""
    return tuple(
        " ".join(hashlib.sha256(f"{tenant} {k} {part}".encode()).hexdigest() for part in range(3))
        for k in range(n)
    )


def _drawn(text: str, dim: int) -> NDArray[np.float64]:
    import numpy as np

    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=dim)


def _seen(store: Store, tenant: str, query: str) -> str:
    """Return a digest of all that *tenant* sees: its records to the byte, and what is found."""
    hits = store.search(Scope(tenant), query, k=50).hits
    told = [repr(store.namespaces(tenant)), repr([(h.record.id, h.similarity) for h in hits])]
    for record in store.list(Scope(tenant), limit=10**6):
        whole = [record.id, record.key, record.text, record.version, record.updated_at]
        told.append(orjson.dumps([*whole, dict(record.value)]).decode())
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
