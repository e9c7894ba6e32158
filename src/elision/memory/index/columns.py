"""What a filter may ask of a row besides its JSON, as columns in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from elision.memory.index.places import Places, among

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elision.memory.index.partition import Row
    from elision.memory.index.vectors import Ids

_TYPES: Final[Mapping[str, str]] = {
    "space": "<i8",
    "kind": "<i4",
    "state": "<i4",
    "trust": "<i4",
    "expires_at": "<f8",
}


class Columns:
    """Space, kind, state, trust and expiry of each row of a partition. Not thread-safe."""

    def __init__(self) -> None:
        self._places = Places()
        self._columns: dict[str, NDArray[Any]] = {
            name: np.empty(0, dtype=kind) for name, kind in _TYPES.items()
        }
        self._names: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def ids(self) -> Ids:
        """The rows' ids, in the order in which they lie."""
        return self._places.ids

    def put(self, rows: Sequence[Row]) -> None:
        """Add *rows*; one of a known id takes the older one's place."""
        places = self._places.put(row.rid for row in rows)
        if (n := len(self)) > len(self._columns["space"]):
            self._widen(max(n, 2 * len(self._columns["space"])))
        columns = self._columns
        columns["space"][places] = [row.space for row in rows]
        columns["kind"][places] = [self._code(row.kind) for row in rows]
        columns["state"][places] = [self._code(row.state) for row in rows]
        columns["trust"][places] = [row.trust for row in rows]
        columns["expires_at"][places] = [
            np.inf if row.expires_at is None else row.expires_at for row in rows
        ]

    def drop(self, ids: Iterable[int]) -> None:
        """Remove those of *ids* that are in it."""
        holes, movers = self._places.drop(ids)
        for column in self._columns.values():
            column[holes] = column[movers]
            column[len(self) :] = 0

    def mask(
        self,
        *,
        spaces: Collection[int] | None,
        kinds: Collection[str],
        states: Collection[str],
        least_trust: int,
        now: float,
    ) -> NDArray[np.bool_]:
        """Return which rows are meant, in the order of `ids`; empty *kinds* or *states*: any."""
        chosen = self._column("expires_at") > now
        if spaces is not None:
            chosen &= among(self._column("space"), np.array([*spaces], dtype=np.int64))
        for name, wanted in (("kind", kinds), ("state", states)):
            if wanted:
                codes = [self._names[one] for one in wanted if one in self._names]
                chosen &= among(self._column(name), np.array(codes, dtype=np.int64))
        if least_trust > 0:
            chosen &= self._column("trust") >= least_trust
        return chosen

    def first_expiry(self, chosen: NDArray[np.bool_]) -> float:
        """Return when the first of the *chosen* expires, in seconds since 1970."""
        return float(self._column("expires_at").min(initial=np.inf, where=chosen))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a snapshot keeps of it."""
        return {"rid": self.ids, **{name: self._column(name) for name in _TYPES}}

    @property
    def names(self) -> list[str]:
        """The kinds and states that the codes stand for, in their order."""
        return [*self._names]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Columns:
        """Return the columns that `arrays` and `names` were taken from."""
        self = cls()
        self._places = Places.holding(arrays["rid"].astype(np.int64))
        self._columns = {name: arrays[name].astype(kind) for name, kind in _TYPES.items()}
        self._names = {name: code for code, name in enumerate(names)}
        return self

    def _column(self, name: str) -> NDArray[Any]:
        return self._columns[name][: len(self)]

    def _code(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))

    def _widen(self, n: int) -> None:
        for name, column in self._columns.items():
            wider = np.zeros(n, dtype=column.dtype)
            wider[: len(column)] = column
            self._columns[name] = wider
