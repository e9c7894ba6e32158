"""Searches of LangGraph over items of which some have several vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from elision.agents.langgraph_items import ITEM, PART
from elision.memory.filters import Filter, parse
from elision.memory.records import Hit, Scope

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors
    from elision.memory.store import Store


def search(
    store: Store, scope: Scope, query: str | None, where: Mapping[str, Any] | None, stop: int
) -> list[Hit]:
    """Return the first *stop* items of *scope* and below it.

    With a query, and a store that has an encoder: the nearest first, an item by its nearest text,
    and behind them those without a vector. Without: those that were changed last first.
    """
    found = store.encoded(scope.tenant, [query]) if query and stop else None
    if found is None:
        return (
            list(store.search(scope, None, stop, kinds=(ITEM,), where=where).hits) if stop else []
        )
    best = _scored(store, scope, found[0], where, stop)
    if len(best) < stop:
        rest = store.search(scope, None, stop + len(best), kinds=(ITEM,), where=where).hits
        best |= {hit.record.id: hit for hit in rest if hit.record.id not in best}
    return list(best.values())[:stop]


def _scored(
    store: Store, scope: Scope, vector: Vectors, where: Mapping[str, Any] | None, stop: int
) -> dict[str, Hit]:
    """Return the nearest items by id, nearest first; ties by id."""
    whole = store.search(scope, vector, stop, kinds=(ITEM,), where=where).hits
    parts = _by_parts(store, scope, vector, parse(where or {}), stop)
    hits = sorted((*whole, *parts), key=lambda hit: (-(hit.similarity or 0.0), hit.record.id))
    best = dict[str, Hit]()
    for hit in hits:
        best.setdefault(hit.record.id, hit)
    return dict(list(best.items())[:stop])


def _by_parts(store: Store, scope: Scope, vector: Vectors, where: Filter, stop: int) -> list[Hit]:
    """Return items by the nearest of their parts; looks further until there are *stop*."""
    k = stop
    while True:
        parts = store.search(scope, vector, k, kinds=(PART,)).hits
        items = _items(store, scope.tenant, parts)
        found = [hit for hit in items if where.holds(hit.record.value)]
        if len(found) >= stop or len(parts) < k:
            return found
        k *= 4


def _items(store: Store, tenant: str, parts: Iterable[Hit]) -> list[Hit]:
    nearest = dict[str, float | None]()
    for hit in parts:
        nearest.setdefault(hit.record.value["item"], hit.similarity)
    return [Hit(item, nearest[item.id]) for item in store.find(tenant, nearest)]
