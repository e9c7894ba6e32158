"""The vectors of all probes and exceptions of one tenant; what is found is exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from elision.encoders.vector_cache import Digest, digest
from elision.errors import GuardError, MissingExtraError
from elision.guards.gate.probes import Asked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from elision.encoders import Encoder

    Vectors: TypeAlias = NDArray[np.float32]

_FIRST_K: Final = 16
ROUNDING: Final = 2.0**-8
"""Most by which bfloat16 moves the dot product of two unit vectors, twice over: 8 bits of mantissa
round to within 2^-9 of a number, and the products' magnitudes sum to at most 1."""
NOTHING: Final = -1.0
"""The cosine of a target that no view counts for."""


class _Rows(NamedTuple):
    """Where a target's vectors lie among the probes, and among the exceptions."""

    probes: slice
    exceptions: slice


class ProbeIndex:
    """Which targets a prompt's views come near to; made by `build`. Immutable.

    Args:
        targets: What to compare with; their order gives their indices.
        vectors: Unit rows for all probes of all targets, in order, then for all exceptions.

    Attributes:
        n_probes: Vectors that are searched.
        known: The vector of every text in it, by digest.
    """

    def __init__(self, targets: Sequence[Asked], vectors: Vectors) -> None:
        import faiss
        import numpy as np

        sizes = [len(target.probes) for target in targets]
        self._owner = np.repeat(np.arange(len(targets)), sizes)
        self.n_probes = sum(sizes)
        # A first pass over half-width vectors, for the search is bound by memory; what it finds is
        # compared in full, and what it may have missed by rounding is allowed for.
        narrow = faiss.ScalarQuantizer.QT_bf16
        self._faiss = faiss.IndexScalarQuantizer(
            vectors.shape[1], narrow, faiss.METRIC_INNER_PRODUCT
        )
        self._probes = np.ascontiguousarray(vectors[: self.n_probes])
        if self.n_probes:
            self._faiss.train(self._probes[:1])
            self._faiss.add(self._probes)
        self._exceptions = vectors[self.n_probes :].copy()
        self._rows = list(_rows(targets))
        texts = chain(_probes(targets), _exceptions(targets))
        rows = chain(self._probes, self._exceptions)
        self.known: Mapping[Digest, Vectors] = {
            digest(text): row for text, row in zip(texts, rows, strict=True)
        }

    @classmethod
    def build(
        cls,
        targets: Sequence[Asked],
        encoder: Encoder,
        *,
        tenant: str,
        known: Mapping[Digest, Vectors],
    ) -> ProbeIndex:
        """Embed what is not *known* and index it; blocks until the encoder is done.

        Raises:
            GuardError: If the encoder breaks.
            MissingExtraError: If faiss is not installed.
        """
        import numpy as np

        texts = [*_probes(targets), *_exceptions(targets)]
        keys = [digest(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        found: dict[Digest, Any] = {key: known[key] for key in keys if key in known}
        if new:
            found |= dict(zip(new, _embedded([*new.values()], encoder, tenant), strict=True))
        vectors = np.zeros((len(texts), encoder.dim), dtype=np.float32)
        for row, key in enumerate(keys):
            vectors[row] = found[key]
        try:
            return cls(targets, vectors)
        except ImportError as exc:
            raise MissingExtraError(exc.name or "faiss", extra="local") from exc

    def nearest(
        self, views: Vectors, *, among: Iterable[int], floor: float, n: int
    ) -> dict[int, float]:
        """Return the targets nearest to *views*, by index, with their greatest cosine.

        Holds the *n* nearest targets of at least *floor*, exactly; the nearest of all, whatever
        its cosine; those of *among*; and some others. A target that no view counts for (see
        `counts`) has `NOTHING`.

        Args:
            views: Unit rows.
            among: Targets wanted in any case.
            floor: Least cosine that matters.
            n: Targets wanted.
        """
        found = {target: self._cosine(target, views) for target in among}
        k = min(_FIRST_K, self.n_probes)
        while k:
            cosines, rows = self._faiss.search(views, k)
            for target in map(int, set(self._owner[rows.ravel()])):
                if target not in found:
                    found[target] = self._cosine(target, views)
            beyond = float(cosines[:, -1].max()) + ROUNDING  # nothing unseen is nearer
            seen = sorted(found.values(), reverse=True)[:n]
            settled = len(seen) == n and seen[-1] >= beyond
            if k == self.n_probes or settled or (beyond < floor and seen[0] >= beyond):
                break
            k = min(4 * k, self.n_probes)
        return found

    def _cosine(self, target: int, views: Vectors) -> float:
        probes = self._probes[self._rows[target].probes]
        if not len(probes):
            return NOTHING
        nearest = (views @ probes.T).max(axis=1)
        counted = nearest[self.counts(target, views)]
        return float(counted.max()) if len(counted) else NOTHING

    def counts(self, target: int, views: Vectors) -> NDArray[np.bool_]:
        """Return which of *views* count for *target*: those not nearer to an exception of it."""
        import numpy as np

        probes, exceptions = self._rows[target]
        if exceptions.start == exceptions.stop:
            return np.ones(len(views), dtype=bool)
        excused = (views @ self._exceptions[exceptions].T).max(axis=1)
        if probes.start == probes.stop:
            return np.ones(len(views), dtype=bool)
        nearest = (views @ self._probes[probes].T).max(axis=1)
        found: NDArray[np.bool_] = nearest >= excused
        return found


def _rows(targets: Sequence[Asked]) -> Iterable[_Rows]:
    probes = exceptions = 0
    for target in targets:
        ends = probes + len(target.probes), exceptions + len(target.exceptions)
        yield _Rows(slice(probes, ends[0]), slice(exceptions, ends[1]))
        probes, exceptions = ends


def _probes(targets: Sequence[Asked]) -> Iterable[str]:
    return (text for target in targets for text in target.probes)


def _exceptions(targets: Sequence[Asked]) -> Iterable[str]:
    return (text for target in targets for text in target.exceptions)


def _embedded(texts: Sequence[str], encoder: Encoder, tenant: str) -> Vectors:
    try:
        return encoder.embed(texts, tenant=tenant).result()
    except Exception as exc:
        # A gate that is not compiled cannot judge; the cause may quote a probe.
        raise GuardError(
            f"the gate's probes could not be embedded ({type(exc).__name__})"
        ) from None
