"""Namespaces: which there are, and which lie below which."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final

from elision.memory.bodies import Place

if TYPE_CHECKING:
    from elision.memory.bodies import Bodies
    from elision.memory.database import MemoryDatabase
    from elision.memory.records import Namespace, Scope

_NEWER: Final = (
    "SELECT id, body, key_id, NULL FROM spaces WHERE tenant = ? AND id > ? "
    "UNION ALL SELECT 0, NULL, NULL, "
    "COALESCE((SELECT value FROM meta WHERE name = 'spaces'), '')"
)
_TENANTS: Final = 64


@dataclass(slots=True)
class _Tree:
    """One tenant's namespaces by their labels."""

    exact: dict[Namespace, int] = field(default_factory=dict)
    below: defaultdict[Namespace, set[int]] = field(default_factory=lambda: defaultdict(set))
    names: dict[int, Namespace] = field(default_factory=dict)
    last: int = 0
    gone: str | None = None

    def add(self, space: int, namespace: Namespace) -> None:
        self.last = max(self.last, space)
        self.exact[namespace] = space
        self.names[space] = namespace
        for n in range(len(namespace) + 1):
            self.below[namespace[:n]].add(space)


class Spaces:
    """The namespaces of every tenant, read from SQL as they come; thread-safe.

    They are compared label by label: ``("a",)`` holds ``("a", "b")`` and not ``("ab",)``.
    """

    def __init__(self, database: MemoryDatabase, bodies: Bodies) -> None:
        self._database = database
        self._bodies = bodies
        self._trees: OrderedDict[str, _Tree] = OrderedDict()
        self._lock = Lock()

    def within(self, scope: Scope, *, deep: bool) -> tuple[int, ...]:
        """Return the ids of a scope's namespace and, if *deep*, of those below it."""
        with self._lock:
            tree = self._fresh(scope.tenant)
            if deep:
                return tuple(tree.below.get(scope.namespace, ()))
            space = tree.exact.get(scope.namespace)
            return () if space is None else (space,)

    def names(self, tenant: str) -> dict[int, Namespace]:
        """Return all namespaces of *tenant* by id."""
        with self._lock:
            return dict(self._fresh(tenant).names)

    def forget(self, tenant: str) -> None:
        """Drop what is held in memory of *tenant*'s labels."""
        with self._lock:
            self._trees.pop(tenant, None)

    def _fresh(self, tenant: str) -> _Tree:
        tree = self._trees.setdefault(tenant, _Tree())
        self._trees.move_to_end(tenant)
        while len(self._trees) > _TENANTS:
            self._trees.popitem(last=False)
        *rows, (_, _, _, gone) = self._newer(tenant, tree.last)
        if gone != tree.gone and tree.last:
            tree = self._trees[tenant] = _Tree()
            *rows, (_, _, _, gone) = self._newer(tenant, 0)
        tree.gone = gone
        for space, body, key_id, _ in rows:
            if body:  # an erased namespace has lost its labels
                self._add(tree, Place(tenant, space, key_id), bytes(body))
        return tree

    def _add(self, tree: _Tree, place: Place, body: bytes) -> None:
        """Add a namespace; one whose key was destroyed is passed over, unless it has a new one."""
        if not self._bodies.can_open(place):
            query = "SELECT key_id, body FROM spaces WHERE id = ?"
            for key_id, now in self._database.rows(query, (place.space,)):
                place, body = Place(place.tenant, place.space, key_id), bytes(now)
        if self._bodies.can_open(place) and body:
            tree.add(place.space, self._bodies.namespace(place, body))

    def _newer(self, tenant: str, last: int) -> list[tuple[int, bytes, str | None, str | None]]:
        """Return the tenant's spaces beyond *last*, and last of all how often some went."""
        rows = self._database.rows(_NEWER, (tenant, last))
        return sorted(rows, key=lambda row: (row[3] is not None, row[0]))


def matching(
    names: Iterable[Namespace],
    *,
    prefix: Sequence[str] = (),
    suffix: Sequence[str] = (),
    depth: int | None = None,
) -> list[Namespace]:
    """Return those of *names* that begin with *prefix* and end with *suffix*, in order.

    A ``*`` stands for one label, whatever it is. They are cut to *depth* labels, each kept once.
    """
    n_labels = max(len(prefix), len(suffix))
    fitting = (
        name
        for name in names
        if len(name) >= n_labels
        and _fits(name[: len(prefix)], prefix)
        and _fits(name[len(name) - len(suffix) :], suffix)
    )
    return sorted({name[:depth] for name in fitting})


def _fits(labels: Namespace, pattern: Sequence[str]) -> bool:
    return all(want in ("*", label) for label, want in zip(labels, pattern, strict=True))
