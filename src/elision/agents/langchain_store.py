"""Memory as a vector store of LangChain."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from elision.agents.keyed_records import ids_of, rids_of
from elision.agents.langchain_embeddings import EmbeddingsEncoder, LocalEmbeddings
from elision.errors import ConfigError, MissingExtraError, RequestError
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.receipts import Receipt
from elision.memory.erasure.selector import Selector
from elision.memory.records import Draft, Hit, Record, Scope, Trust
from elision.memory.store import Store

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
except ImportError as exc:
    raise MissingExtraError("langchain-core", extra="agents") from exc

KIND: Final = "document"
DOCUMENTS: Final = Scope("default", ("documents",))


class MemoryVectorStore(VectorStore):
    """One namespace of memory as a collection of documents.

    A document is a record of kind ``document``: its id the key, its metadata the value. Metadata
    must be JSON. What a forget target forbids is neither taken in nor given out. ``delete``
    removes; `erase` removes provably and leaves a receipt.

    Args:
        store: Where the records lie; it brings the encoder.
        scope: The collection; what lies below its namespace does not belong to it.
        trust: How far the documents' words may be followed.
        eraser: What `erase` works with.

    Raises:
        ConfigError: If the store has no encoder.
    """

    def __init__(
        self,
        store: Store,
        scope: Scope = DOCUMENTS,
        *,
        trust: Trust = Trust.EXTERNAL,
        eraser: Eraser | None = None,
    ) -> None:
        if store.encoder is None:
            raise ConfigError("the store has no encoder; open it with one to search by meaning")
        self._embeddings = LocalEmbeddings(store.encoder, tenant=scope.tenant)
        self._store = store
        self._scope = scope
        self._trust = trust
        self._eraser = eraser

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        where: str | Path | None = None,
        scope: Scope = DOCUMENTS,
        **kwargs: Any,
    ) -> Self:
        """Open the database *where* with *embedding* and add *texts*.

        Raises:
            ConfigError: If *where* is missing, or the database was written with other embeddings.
        """
        if where is None:
            raise ConfigError("where is missing; name the database's file or URL")
        store = cls(Store(where, encoder=EmbeddingsEncoder(embedding)), scope, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> Embeddings:
        """The store's encoder."""
        return self._embeddings

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        ttl_s: float | None = None,
        subjects: Iterable[str] = (),
        parents: Sequence[str] = (),
        **kwargs: Any,
    ) -> list[str]:
        """Add documents, all or none; one whose id is there already takes its place.

        Args:
            texts: What they say.
            metadatas: JSON objects, one per text.
            ids: One per text; None makes one up.
            ttl_s: Seconds until they expire.
            subjects: Ids of the persons they are about; see `Draft`.
            parents: Ids of the records they were made from.
            **kwargs: Left out: LangChain's callers hand over what other stores take.

        Returns:
            Their ids, in order.

        Raises:
            RequestError: If the counts differ, a metadata is no JSON, or a forget target forbids
                a text (code ``screened``).
        """
        texts = list(texts)
        metadatas = _fitting(metadatas, len(texts), "metadatas") or [{}] * len(texts)
        given = _fitting(ids, len(texts), "ids") or [None] * len(texts)
        keys = [key or uuid.uuid4().hex for key in given]
        about = frozenset(subjects)
        drafts = [
            Draft(
                text=text,
                value=value,
                key=key,
                kind=KIND,
                trust=self._trust,
                ttl_s=ttl_s,
                subjects=about,
                parents=tuple(parents),
            )
            for text, value, key in zip(texts, metadatas, keys, strict=True)
        ]
        self._store.put_many(self._scope, drafts)
        return keys

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Remove documents; None removes all of this collection, and of no other.

        An id that is not there is no error.
        """
        with self._store.writing() as writing:
            rids = rids_of(self._store, writing, self._scope, KIND, ids)
            writing.remove(self._scope.tenant, rids)
        return True

    def erase(
        self, ids: Sequence[str] | None = None, *, reason: str = "request", actor: str = "langchain"
    ) -> Receipt:
        """Erase documents and whatever was made from them; None erases the collection.

        With None what lies below the namespace goes as well. What a forget target hides goes too.

        Raises:
            ConfigError: If there is no eraser.
        """
        if self._eraser is None:
            raise ConfigError("this vector store has no eraser; hand one in to erase")
        tenant = self._scope.tenant
        if ids is None:
            selector = Selector(tenant=tenant, namespace=self._scope.namespace)
        else:
            with self._store.writing() as writing:
                found = ids_of(self._store, writing, self._scope, KIND, ids)
            selector = Selector(tenant=tenant, ids=found)
        return self._eraser.erase(selector, reason=reason, actor=actor)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that are there, in the order of *ids*."""
        return [_document(record) for record in self._records(ids)]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the *k* most similar documents; ``filter`` is as in `elision.memory.filters`."""
        return [_document(hit.record) for hit in self._hits(query, k, kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return them with their cosine, -1 to 1: more is nearer."""
        return [(_document(hit.record), _cosine(hit)) for hit in self._hits(query, k, kwargs)]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the *k* documents most similar to a vector."""
        return [_document(hit.record) for hit in self._hits(embedding, k, kwargs)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Return *k* documents near the query and far from one another.

        Source:
            Carbonell and Goldstein 1998, as langchain-core computes it.
        """
        vector = self._embeddings.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the same for a vector."""
        import numpy as np

        hits = self._hits(embedding, fetch_k, kwargs)
        rows = self._embeddings.embed_documents([hit.record.text for hit in hits])
        chosen = maximal_marginal_relevance(np.asarray(embedding), rows, lambda_mult, k)
        return [_document(hits[n].record) for n in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, cosine))

    def _hits(
        self, query: str | list[float], k: int, options: Mapping[str, Any]
    ) -> tuple[Hit, ...]:
        where = options.get("filter")
        found = self._store.search(self._scope, query, k, kinds=(KIND,), where=where, deep=False)
        return found.hits

    def _records(self, ids: Iterable[str]) -> list[Record]:
        found = (self._store.get(self._scope, key) for key in dict.fromkeys(ids))
        return [record for record in found if record is not None and record.kind == KIND]


def _fitting(given: Sequence[Any] | None, n: int, what: str) -> Sequence[Any] | None:
    if given and len(given) != n:
        raise RequestError(f"there are {len(given)} {what} for {n} texts", param=what)
    return given or None


def _cosine(hit: Hit) -> float:
    assert hit.similarity is not None, "a search by a query compares"
    return hit.similarity


def _document(record: Record) -> Document:
    return Document(id=record.key, page_content=record.text, metadata=dict(record.value))
