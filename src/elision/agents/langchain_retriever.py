"""Memory as a retriever of LangChain."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ConfigDict, Field, PositiveInt

from elision.errors import MissingExtraError
from elision.memory.records import Hit, Scope, Trust
from elision.memory.store import Store

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
except ImportError as exc:
    raise MissingExtraError("langchain-core", extra="agents") from exc


class MemoryRetriever(BaseRetriever):
    """What memory holds on a query, as documents.

    A document's metadata is the record's value, and under ``memory`` where it came from:
    namespace, kind, similarity, and the trust that its words deserve.

    Attributes:
        store: Where the records lie.
        scope: Where to look; what lies below is searched too.
        k: Most documents; ``invoke(query, k=...)`` overrules it.
        kinds: Kinds of record; empty: all.
        where: Filter on the value; see `elision.memory.filters`.
        least_trust: Records that are trusted less stay out.
        least_similarity: Records that are less similar stay out.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: Store = Field(exclude=True, repr=False)
    scope: Scope
    k: PositiveInt = 4
    kinds: tuple[str, ...] = ()
    where: dict[str, Any] | None = Field(default=None, repr=False)
    least_trust: Trust = Trust.UNKNOWN
    least_similarity: float | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
    ) -> list[Document]:
        found = self.store.search(
            self.scope,
            query,
            self.k if k is None else k,
            kinds=self.kinds,
            where=self.where,
            least_trust=self.least_trust,
            least_similarity=self.least_similarity,
        )
        return [_told(hit) for hit in found.hits]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
    ) -> list[Document]:
        return await asyncio.to_thread(self._get_relevant_documents, query, k=k)


def _told(hit: Hit) -> Document:
    record = hit.record
    told = {
        "namespace": list(record.scope.namespace),
        "kind": record.kind,
        "similarity": hit.similarity,
        "trust": record.trust.name.lower(),
    }
    return Document(
        id=record.id, page_content=record.text, metadata={**record.value, "memory": told}
    )
