"""LangGraph's items as records of memory, and what may be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from elision.errors import MissingExtraError, RequestError
from elision.memory.bodies import dumped
from elision.memory.records import Namespace, Record

try:
    from langgraph.store.base import (
        GetOp,
        InvalidNamespaceError,
        Item,
        ListNamespacesOp,
        Op,
        PutOp,
        SearchItem,
        SearchOp,
        get_text_at_path,
        validate_op_namespace,
    )
except ImportError as exc:
    raise MissingExtraError("langgraph-checkpoint", extra="agents") from exc

ITEM: Final = "item"
PART: Final = "item.part"
"""One of several texts of an item, a record of its own: LangGraph gives each its own vector and
counts the nearest. Made from the item, so it goes with it."""
RESERVED: Final = "langgraph"
"""What LangGraph's own rules forbid as a first label."""


def check(op: Op) -> None:
    """Check one operation: ``batch`` takes them past the checks of ``put`` and ``get``.

    Raises:
        InvalidNamespaceError: If a namespace breaks LangGraph's rules.
        RequestError: If it is no operation, its bounds are negative, or its value is no JSON.
    """
    if not isinstance(op, GetOp | SearchOp | PutOp | ListNamespacesOp):
        raise RequestError(f"{type(op).__name__} is no operation of a LangGraph store")
    validate_op_namespace(op)
    if isinstance(op, PutOp) and op.value is not None:
        _check_root(op.namespace)
        dumped(dict(op.value))  # before LangGraph's own code meets what is no JSON
    if isinstance(op, SearchOp | ListNamespacesOp) and min(op.limit, op.offset) < 0:
        raise RequestError("limit and offset cannot be negative", param="limit")


def _check_root(namespace: Namespace) -> None:
    if not namespace:
        raise InvalidNamespaceError("Namespace cannot be empty.")
    if namespace[0] == RESERVED:
        raise InvalidNamespaceError(f'Root label for namespace cannot be "{RESERVED}".')


def texts_of(
    value: Mapping[str, Any], index: Sequence[str] | bool | None, fields: Iterable[str]
) -> list[str]:
    """Return what of *value* is to be embedded, each text once, in order.

    Args:
        value: The item's.
        index: `PutOp.index`: paths; False for nothing; None for *fields*.
        fields: The store's own paths; ``$`` is the whole value as JSON.
    """
    if index is False:
        return []
    paths = fields if index is None or index is True else index
    found = (text for path in paths for text in get_text_at_path(value, path))
    return [text for text in dict.fromkeys(found) if text]


def item_of(record: Record, root: Namespace) -> Item:
    """Return a record as LangGraph's item; its namespace without *root*."""
    return Item(**_fields(record, root))


def search_item_of(record: Record, root: Namespace, score: float | None) -> SearchItem:
    """Return a record as what a search found."""
    return SearchItem(**_fields(record, root), score=score)


def _fields(record: Record, root: Namespace) -> dict[str, Any]:
    return {
        "value": dict(record.value),
        "key": record.key,
        "namespace": record.scope.namespace[len(root) :],
        "created_at": datetime.fromtimestamp(record.created_at, UTC),
        "updated_at": datetime.fromtimestamp(record.updated_at, UTC),
    }
