"""Which rows meet a filter over their JSON, remembered field by field."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from elision.memory.filters import Condition, Filter, Missing, Path, reached, token

if TYPE_CHECKING:
    from elision.memory.index.vectors import Ids

Values: TypeAlias = Callable[[Sequence[int] | None], Iterator[tuple[int, Mapping[str, Any]]]]
"""The JSON of the rows asked for, or of all; rows that are gone are left out."""

_MOST_FIELDS: Final = 16
_MOST_ANSWERS: Final = 64


class Facets:
    """The fields that were asked for, each with the rows of each of its values.

    A field is read when it is first asked for, and again for rows that have changed since. Any
    thread may call.

    Args:
        values: Reads the JSON of rows.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._fields: OrderedDict[Path, _Field] = OrderedDict()
        self._stale: set[int] = set()
        self._lock = Lock()

    def forget(self, rids: Iterable[int]) -> None:
        """Drop what is known of *rids*; those that are still there are read again when needed."""
        with self._lock:
            if self._fields:
                self._stale.update(rids)

    def rids(self, where: Filter) -> Ids:
        """Return the ids of the rows that meet *where*, which has a condition; ascending."""
        with self._lock:
            self._refresh()
            self._read({one.path for one in where.conditions})
            found = [self._fields[one.path].rids(one) for one in where.conditions]
            while len(self._fields) > _MOST_FIELDS:
                self._fields.popitem(last=False)
            return reduce(_both, sorted(found, key=len))

    def _refresh(self) -> None:
        stale = sorted(self._stale)
        if not stale:
            return
        for one in self._fields.values():
            one.drop(stale)
        for rid, value in self._values(stale):
            self._put(rid, value, self._fields)
        self._stale.clear()

    def _read(self, paths: Iterable[Path]) -> None:
        new = {path: _Field() for path in paths if path not in self._fields}
        if new:
            for rid, value in self._values(None):
                self._put(rid, value, new)
            self._fields |= new
        for path in paths:
            self._fields.move_to_end(path)

    @staticmethod
    def _put(rid: int, value: Mapping[str, Any], fields: Mapping[Path, _Field]) -> None:
        for path, one in fields.items():
            one.put(rid, reached(value, path))


class _Field:
    """The rows of each value of one field."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, tuple[Any, set[int]]] = {}
        self._of: dict[int, Hashable] = {}
        self._answers: OrderedDict[Hashable, Ids] = OrderedDict()

    def put(self, rid: int, value: Any) -> None:
        # A missing field and a null are equal, but `$exists` tells them apart.
        mark: Hashable = value if isinstance(value, Missing) else token(value)
        self._rows.setdefault(mark, (value, set()))[1].add(rid)
        self._of[rid] = mark

    def drop(self, rids: Iterable[int]) -> None:
        self._answers.clear()
        for rid in rids:
            if rid in self._of:
                mark = self._of.pop(rid)
                self._rows[mark][1].discard(rid)
                if not self._rows[mark][1]:
                    del self._rows[mark]

    def rids(self, condition: Condition) -> Ids:
        key = (condition.operator, token(condition.operand))
        if (known := self._answers.get(key)) is not None:
            return known
        rows = [rids for value, rids in self._rows.values() if condition.admits(value)]
        total = sum(map(len, rows))
        ids = np.fromiter((one for some in rows for one in some), dtype=np.int64, count=total)
        ids.sort()
        self._answers[key] = ids
        while len(self._answers) > _MOST_ANSWERS:
            self._answers.popitem(last=False)
        return ids


def _both(left: Ids, right: Ids) -> Ids:
    return np.intersect1d(left, right, assume_unique=True)
