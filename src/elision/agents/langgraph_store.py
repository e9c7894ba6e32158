"""Memory as the store of LangGraph: what graphs remember across their threads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Final

from elision.agents.langgraph_items import ITEM, check, item_of, search_item_of
from elision.agents.langgraph_searching import search
from elision.agents.langgraph_writing import MINUTE_S, apply, changes, refresh
from elision.errors import ConfigError, MissingExtraError
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.receipts import Receipt
from elision.memory.erasure.selector import Selector
from elision.memory.records import Namespace, Scope, Trust
from elision.memory.spaces import matching
from elision.memory.store import Store

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
    )
except ImportError as exc:
    raise MissingExtraError("langgraph-checkpoint", extra="agents") from exc

ROOT: Final = ("langgraph",)
"""Where a graph's namespaces lie: LangGraph itself never uses that label first."""


class MemoryStore(BaseStore):
    """LangGraph's store interface over memory; ``compile(store=MemoryStore(memory.store))``.

    Namespaces are compared label by label, every operation's is checked, also in ``batch``. In a
    batch all reads come before all writes, and of several writes to one item the last one counts;
    the writes are one transaction. Items that have expired are never returned; reading an item
    starts its time anew unless told otherwise. A forget target keeps what it forbids out of items
    and of answers.

    What sets it apart: `erase_namespace`. Threads are not kept here but by LangGraph's
    checkpointers: what a thread said is erased there, by its ``delete_thread``.

    Args:
        store: Where the records lie; its encoder, if it has one, is the index.
        tenant: Whose items they are.
        root: Put before every namespace.
        fields: Paths of what is embedded, as LangGraph's ``IndexConfig`` has them; ``$`` is the
            whole value as JSON.
        ttl: LangGraph's, in minutes. With ``sweep_interval_minutes`` what has expired is removed
            by the first call after so long, on that caller's time; without, by whoever sweeps the
            store.
        trust: How far the words of items may be followed.
        eraser: What `erase_namespace` works with.
    """

    supports_ttl = True

    def __init__(
        self,
        store: Store,
        *,
        tenant: str = "default",
        root: Namespace = ROOT,
        fields: Sequence[str] = ("$",),
        ttl: TTLConfig | None = None,
        trust: Trust = Trust.USER,
        eraser: Eraser | None = None,
    ) -> None:
        self.ttl_config = ttl
        self._scope = Scope(tenant, root)
        self._store = store
        self._fields = tuple(fields)
        self._trust = trust
        self._eraser = eraser
        self._swept_at = store.clock()
        self._sweeping = Lock()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations; their results, in order. A put's is None.

        Raises:
            InvalidNamespaceError: If a namespace breaks LangGraph's rules; nothing is done then.
            RequestError: If a value, key or filter cannot be used, or a forget target forbids what
                is to be put (code ``screened``); nothing is written then.
        """
        ops = list(ops)
        for op in ops:
            check(op)
        self._sweep_if_due()
        results = [self._answer(op) for op in ops]
        puts = changes((op for op in ops if isinstance(op, PutOp)), self._scope, self._fields)
        if puts:
            apply(self._store, puts, self._trust)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do the same without blocking the event loop."""
        return await asyncio.to_thread(self.batch, list(ops))

    def erase_namespace(
        self, prefix: Namespace, *, reason: str = "request", actor: str = "langgraph"
    ) -> Receipt:
        """Erase every item below *prefix*, whatever was made from them, and every copy.

        Args:
            prefix: Labels; empty for all of this store's items.
            reason: Why: a code; it stands in the receipt.
            actor: Who asked; likewise.

        Raises:
            ConfigError: If there is no eraser.
        """
        if self._eraser is None:
            raise ConfigError("this store has no eraser; hand one in to erase")
        scope = self._at(prefix)
        selector = Selector(tenant=scope.tenant, namespace=scope.namespace)
        return self._eraser.erase(selector, reason=reason, actor=actor)

    async def aerase_namespace(
        self, prefix: Namespace, *, reason: str = "request", actor: str = "langgraph"
    ) -> Receipt:
        """Do the same without blocking the event loop."""
        return await asyncio.to_thread(self.erase_namespace, prefix, reason=reason, actor=actor)

    def sweep_ttl(self) -> int:
        """Remove what has expired, of the whole memory; return how many records."""
        self._swept_at = self._store.clock()
        return self._store.sweep()

    def _answer(self, op: Op) -> Result:
        match op:
            case GetOp():
                return self._get(op)
            case SearchOp():
                return self._search(op)
            case ListNamespacesOp():
                return self._list(op)
            case _:
                return None

    def _get(self, op: GetOp) -> Item | None:
        record = self._store.get(self._at(op.namespace), op.key)
        if record is None or record.kind != ITEM:
            return None
        if op.refresh_ttl:
            refresh(self._store, [record])
        return item_of(record, self._scope.namespace)

    def _search(self, op: SearchOp) -> list[SearchItem]:
        stop = op.offset + op.limit
        scope = self._at(op.namespace_prefix)
        hits = search(self._store, scope, op.query, op.filter, stop)[op.offset :]
        if op.refresh_ttl:
            refresh(self._store, [hit.record for hit in hits])
        root = self._scope.namespace
        return [search_item_of(hit.record, root, hit.similarity) for hit in hits]

    def _list(self, op: ListNamespacesOp) -> list[Namespace]:
        root = self._scope.namespace
        known = self._store.namespaces(self._scope.tenant, prefix=root, limit=sys.maxsize)
        found = [namespace[len(root) :] for namespace in known]
        for condition in op.match_conditions or ():
            prefix = condition.path if condition.match_type == "prefix" else ()
            suffix = condition.path if condition.match_type == "suffix" else ()
            found = matching(found, prefix=prefix, suffix=suffix)
        return matching(found, depth=op.max_depth)[op.offset : op.offset + op.limit]

    def _at(self, namespace: Namespace) -> Scope:
        return Scope(self._scope.tenant, (*self._scope.namespace, *namespace))

    def _sweep_if_due(self) -> None:
        minutes = (self.ttl_config or {}).get("sweep_interval_minutes")
        if not minutes or not self._sweeping.acquire(blocking=False):
            return
        try:
            if self._store.clock() - self._swept_at >= minutes * MINUTE_S:
                self.sweep_ttl()
        finally:
            self._sweeping.release()
