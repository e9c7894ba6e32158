from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from elision.agents.langchain_embeddings import EmbeddingsEncoder, LocalEmbeddings
from elision.agents.langchain_retriever import MemoryRetriever
from elision.agents.langchain_store import MemoryVectorStore
from elision.encoders import HashingEncoder
from elision.errors import ConfigError, EngineError, RequestError
from elision.memory.erasure.eraser import Eraser
from elision.memory.records import Draft, Scope, Trust
from elision.memory.store import Store

DOCUMENTS = Scope("acme", ("documents",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "memory.db", encoder=HashingEncoder(64)) as store:
        yield store


class TestVectorStoreConformance(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:  # type: ignore[override]
        encoder = EmbeddingsEncoder(self.get_embeddings())
        with Store(tmp_path / "memory.db", encoder=encoder) as store:
            yield MemoryVectorStore(store)
        encoder.close()


@pytest.mark.slow
class TestSealedVectorStoreConformance(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:  # type: ignore[override]
        encoder = EmbeddingsEncoder(self.get_embeddings())
        with Store(tmp_path / "memory.db", encoder=encoder, sealed=True) as store:
            yield MemoryVectorStore(store)
        encoder.close()


class TestLocalEmbeddings(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return LocalEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": HashingEncoder(16)}


class TestLocalEmbeddingsAtWork(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return LocalEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": HashingEncoder(16)}


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _three(self, store: Store) -> None:
        self.store = store
        store.put_many(DOCUMENTS, [Draft(text=f"pear number {n}") for n in range(4)])

    @property
    def retriever_constructor(self) -> type[MemoryRetriever]:
        return MemoryRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store, "scope": Scope("acme")}

    @property
    def retriever_query_example(self) -> str:
        return "a pear"


@pytest.fixture
def documents(store: Store) -> MemoryVectorStore:
    return MemoryVectorStore(store, DOCUMENTS, eraser=Eraser(store))


def test_a_store_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "plain.db") as plain, pytest.raises(ConfigError, match="no encoder"):
        MemoryVectorStore(plain)


def test_scores_are_cosines_and_relevance_lies_between_0_and_1(
    documents: MemoryVectorStore,
) -> None:
    documents.add_texts(["apple pie", "zebra"], [{"n": 1}, {"n": 2}])
    [(first, cosine), (_, other)] = documents.similarity_search_with_score("apple pie", k=2)
    assert (first.page_content, cosine) == ("apple pie", pytest.approx(1))
    assert other < cosine
    scored = documents.similarity_search_with_relevance_scores("apple pie", k=2)
    assert all(0 <= score <= 1 for _, score in scored)
    vector = documents.embeddings.embed_query("apple pie")
    assert documents.similarity_search_by_vector(vector, k=1) == [first]


def test_filters_read_metadata(documents: MemoryVectorStore) -> None:
    documents.add_texts(["apple", "apple tart"], [{"n": 1}, {"n": 2}])
    found = documents.similarity_search("apple", k=2, filter={"n": {"$gt": 1}})
    assert [document.metadata for document in found] == [{"n": 2}]
    retriever = documents.as_retriever(search_kwargs={"k": 5, "filter": {"n": 1}})
    assert [document.metadata for document in retriever.invoke("tart")] == [{"n": 1}]


def test_marginal_relevance_passes_over_what_says_the_same(documents: MemoryVectorStore) -> None:
    documents.add_texts(["apple pie", "apple pie!", "apple strudel"])
    found = documents.max_marginal_relevance_search("apple pie", k=2, lambda_mult=0.1)
    assert {document.page_content for document in found} - {"apple pie", "apple pie!"}


def test_counts_that_differ_are_refused(documents: MemoryVectorStore) -> None:
    for wrong in ({"metadatas": [{}]}, {"ids": ["a"]}):
        with pytest.raises(RequestError, match="for 2 texts"):
            documents.add_texts(["x", "y"], **wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError):
        documents.add_texts(["x", "y"], [{}, {"n": object()}])
    assert documents.similarity_search("x") == []


def test_deleting_everything_takes_this_collection_only(
    store: Store, documents: MemoryVectorStore
) -> None:
    below = MemoryVectorStore(store, Scope("acme", ("documents", "below")))
    elsewhere = MemoryVectorStore(store, Scope("globex", ("documents",)))
    for one in (documents, below, elsewhere):
        one.add_texts(["apple"], ids=["a"])
    store.put(DOCUMENTS, Draft(text="apple, a note", key="note"))
    assert documents.delete([]) is True
    assert documents.get_by_ids(["a"])
    documents.delete()
    assert [bool(one.get_by_ids(["a"])) for one in (documents, below, elsewhere)] == [
        False,
        True,
        True,
    ]
    assert store.get(DOCUMENTS, "note") is not None


def test_erasing_leaves_a_receipt(store: Store, documents: MemoryVectorStore) -> None:
    documents.add_texts(["apple", "pear"], ids=["a", "b"])
    assert documents.erase(["a", "absent"]).state == "verified"
    assert [document.id for document in documents.get_by_ids(["a", "b"])] == ["b"]
    assert documents.erase().state == "verified"
    assert documents.similarity_search("pear") == []
    with pytest.raises(ConfigError, match="no eraser"):
        MemoryVectorStore(store).erase()


class Hiding:
    on = False

    def may_write(self, tenant: str, text: str) -> bool:
        return not (self.on and "Annabel" in text)

    may_read = may_write


def test_erasing_a_document_takes_it_also_while_a_forget_target_hides_it(tmp_path: Path) -> None:
    screen = Hiding()
    with Store(tmp_path / "memory.db", encoder=HashingEncoder(8), screen=screen) as store:
        documents = MemoryVectorStore(store, DOCUMENTS, eraser=Eraser(store))
        documents.add_texts(["about Annabel", "pear"], ids=["a", "b"])
        store.put(DOCUMENTS, Draft(text="a note of that key", key="n"))
        screen.on = True
        receipt = documents.erase(["a", "n"])
        screen.on = False
        assert (receipt.state, receipt.counts["records"]) == ("verified", 1)
        assert [one.id for one in documents.get_by_ids(["a", "b"])] == ["b"]
        assert store.get(DOCUMENTS, "n") is not None


def test_from_texts_opens_a_database_with_the_embeddings_given(tmp_path: Path) -> None:
    embeddings = DeterministicFakeEmbedding(size=5)
    made = MemoryVectorStore.from_texts(
        ["foo", "bar"], embeddings, [{"n": 1}, {"n": 2}], ids=["1", "2"], where=tmp_path / "m.db"
    )
    expected = Document(id="1", page_content="foo", metadata={"n": 1})
    assert made.similarity_search("foo", k=1) == [expected]
    with pytest.raises(ConfigError, match="where is missing"):
        MemoryVectorStore.from_texts(["foo"], embeddings)


def test_the_retriever_says_where_a_document_came_from_and_keeps_the_distrusted_out(
    store: Store,
) -> None:
    store.put(DOCUMENTS, Draft(text="a pear", value={"n": 1}, trust=Trust.EXTERNAL))
    retriever = MemoryRetriever(store=store, scope=Scope("acme"))
    [found] = retriever.invoke("pear")
    assert found.metadata["n"] == 1
    told = found.metadata["memory"]
    assert (told["namespace"], told["kind"], told["trust"]) == (["documents"], "note", "external")
    assert (
        MemoryRetriever(store=store, scope=Scope("acme"), least_trust=Trust.TOOL).invoke("x") == []
    )
    with pytest.raises(RequestError, match="k is 0"):
        retriever.invoke("pear", k=0)
    assert "pear" not in repr(retriever)


async def test_the_retriever_takes_k_in_both_forms(store: Store) -> None:
    store.put_many(DOCUMENTS, [Draft(text=f"pear {n}") for n in range(5)])
    retriever = MemoryRetriever(store=store, scope=DOCUMENTS, k=2)
    assert len(await retriever.ainvoke("pear")) == 2
    assert len(await retriever.ainvoke("pear", k=3)) == 3


async def test_local_embeddings_agree_in_both_forms() -> None:
    embeddings = LocalEmbeddings(HashingEncoder(8))
    assert await embeddings.aembed_documents(["a", "b"]) == embeddings.embed_documents(["a", "b"])
    assert await embeddings.aembed_query("a") == embeddings.embed_query("a")


class Failing(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise RuntimeError(f"cannot embed {texts}")

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError


def test_embeddings_that_break_do_not_repeat_what_they_were_given() -> None:
    encoder = EmbeddingsEncoder(Failing(), dim=3)
    with pytest.raises(EngineError) as broken:
        encoder.embed(["marmalade"], tenant="acme").result()
    assert "marmalade" not in str(broken.value)
    encoder.close()


class Long(Embeddings):
    model = "long-1"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[3.0, 4.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return [3.0, 4.0]


def test_embeddings_become_unit_vectors_under_the_models_name() -> None:
    encoder = EmbeddingsEncoder(Long())
    assert (encoder.name, encoder.dim) == ("Long:long-1", 2)
    rows = encoder.embed(["x"], tenant="acme").result().tolist()
    assert rows == [pytest.approx([0.6, 0.8])]
    assert encoder.erase("acme") == 1
    encoder.close()
