"""Unit vectors, and the bytes that stand for them in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from elision.errors import RequestError, ShapeError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Ids: TypeAlias = NDArray[np.int64]
    Vectors: TypeAlias = NDArray[np.float32]

WIDTH: Final = 4
"""Bytes of a float32."""
_UNIT: Final = 2.0**-22
"""How far from 1 a length may be and count as 1: rounding a unit row to float32 moves its length
by 2^-24 at most."""


def unit(rows: ArrayLike, *, dim: int | None = None) -> Vectors:
    """Scale each row to length 1, so that a dot product is a cosine.

    A row of that length already comes back bit for bit, so the bytes in an index are the bytes in
    the store.

    Args:
        rows: Shape ``(N, D)``, or ``(D,)`` for one row; not modified.
        dim: The width wanted; None takes any but 0.

    Returns:
        Shape ``(N, D)``, float32, contiguous; may be *rows* itself.

    Raises:
        ShapeError: If it is no matrix, or not *dim* wide.
        RequestError: If a row is zero in float32, or holds what float32 cannot (NaN, infinity).
    """
    import numpy as np

    matrix = _matrix(rows, dim)
    lengths = _lengths(matrix)
    broken = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if broken.size:
        raise RequestError(
            f"vector {broken[0]} of {len(matrix)} is zero or not finite, so it has no direction",
            param="vectors",
            code="invalid_vector",
        )
    off = np.abs(lengths - 1) > _UNIT
    if off.any():
        matrix = matrix.copy()
        matrix[off] = matrix[off] / lengths[off, None]
    return matrix


def to_bytes(rows: ArrayLike) -> bytes:
    """Return *rows*, scaled as by `unit`, as little-endian float32, row after row."""
    return unit(rows).astype("<f4", copy=False).tobytes()


def from_bytes(data: bytes, dim: int) -> Vectors:
    """Return the rows that `to_bytes` wrote, shape ``(N, dim)``, of as many as *data* holds.

    Raises:
        StoreError: If *data* is no whole number of rows, or a row is not of length 1: what was
            stored is damaged.
    """
    import numpy as np

    n, rest = divmod(len(data), WIDTH * dim)
    if rest:
        raise StoreError(f"stored vectors have {len(data)} bytes, not a multiple of {WIDTH * dim}")
    return _sound(np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(n, dim))


def sound(rows: Sequence[Vectors], dim: int | None = None) -> Vectors:
    """Return stored *rows*, each of shape ``(D,)``, as one matrix; at least one of them.

    Raises:
        StoreError: If one is not *dim* wide, not as wide as the others, or not of length 1.
    """
    import numpy as np

    width = dim or len(rows[0])
    if any(row.shape != (width,) for row in rows):
        raise StoreError(f"a stored vector is not {width} wide, as others are")
    return _sound(np.stack(rows).astype(np.float32, copy=False))


def _sound(rows: Vectors) -> Vectors:
    import numpy as np

    damaged = np.flatnonzero(~(np.abs(_lengths(rows) - 1) <= _UNIT))
    if damaged.size:
        raise StoreError(
            f"stored vector {damaged[0]} of {len(rows)} is damaged: its length is not 1"
        )
    return rows


def _matrix(rows: ArrayLike, dim: int | None) -> Vectors:
    import numpy as np

    given = np.asarray(rows)
    if given.dtype.kind not in "fiu":
        raise RequestError("a vector holds numbers only", param="vectors", code="invalid_vector")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        matrix = np.ascontiguousarray(np.atleast_2d(given), dtype=np.float32)
    width = dim if dim is not None else max(1, matrix.shape[-1])
    if matrix.ndim != 2 or matrix.shape[1] != width:
        raise ShapeError("vectors", want=(len(matrix), width), got=given.shape)
    return matrix


def _lengths(matrix: Vectors) -> NDArray[np.float64]:
    import numpy as np

    squares: NDArray[np.float64] = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)
    return np.sqrt(squares)
