"""Sentence encoders: one thread, a cache per tenant, the same vectors as the stock model."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Erasable
from elision.encoders import Encoder, SentenceEncoder
from elision.encoders.encoder import BATCH, MAX_WAITING
from elision.encoders.vector_cache import VectorCache, digest
from elision.errors import BusyError, ConfigError, EngineError, MissingExtraError
from elision.testing.encoders import BagEncoder

BAG = BagEncoder(dim=16)


class Model:
    """Counts what it is asked for, waits where it is told to, breaks on ``quokka``."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def __call__(self, texts: Sequence[str]) -> Any:
        self.begun.set()
        assert self.go.wait(timeout=10)
        self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        if any("quokka" in text for text in texts):
            raise ValueError(f"cannot read {texts}")
        return BAG._vectors(texts)


@contextmanager
def running(model: Model, **options: Any) -> Iterator[SentenceEncoder]:
    encoder = SentenceEncoder(model, name="toy", dim=16, **options)
    try:
        yield encoder
    finally:
        model.go.set()
        encoder.close()


def embed(encoder: Encoder, *texts: str, tenant: str = "a") -> Any:
    return encoder.embed(texts, tenant=tenant).result(timeout=10)


# --- laws ----------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.text(max_size=8), max_size=90), max_size=4))
def test_every_text_gets_its_own_vector_whatever_shares_its_forward(
    requests: list[list[str]],
) -> None:
    with running(Model(), entries=20) as encoder:
        waiting = [encoder.embed(texts, tenant=str(n % 2)) for n, texts in enumerate(requests)]
        for texts, future in zip(requests, waiting, strict=True):
            rows = future.result(timeout=10)
            assert rows.shape == (len(texts), 16)
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(rows, BAG._vectors(texts))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60))
def test_the_cache_is_a_dictionary_that_forgets_what_was_unused_longest(
    puts: list[tuple[str, int]],
) -> None:
    cache, oracle = VectorCache(entries=5), dict[tuple[str, int], int]()
    for at, (tenant, number) in enumerate(puts):
        cache.put(tenant, [digest(str(number))], [np.full(1, at, dtype=np.float32)])
        oracle.pop((tenant, number), None)
        oracle[tenant, number] = at
        oracle = dict(list(oracle.items())[-5:])
    assert len(cache) == len(oracle)
    for (tenant, number), at in list(oracle.items()):
        (found,) = cache.get(tenant, [digest(str(number))])
        assert found is not None
        assert found[0] == at


@given(st.text(), st.text())
def test_different_texts_have_different_digests_lone_surrogates_included(a: str, b: str) -> None:
    assert (digest(a) == digest(b)) == (a == b)
    assert digest(a + "\ud800") != digest(a + "\udc00")


@given(st.lists(st.text(), max_size=5))
def test_the_toy_encoder_gives_unit_rows(texts: list[str]) -> None:
    rows = embed(BagEncoder(), *texts)
    assert rows.shape == (len(texts), 256)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


# --- cache and tenants ---------------------------------------------------------------------------


def test_what_was_embedded_before_is_not_embedded_again() -> None:
    model = Model()
    with running(model) as encoder:
        first = embed(encoder, "one", "two")
        again = embed(encoder, "two", "three", "one")
        np.testing.assert_array_equal(again[[2, 0]], first)
        again[:] = 0  # the caller's own copy
        np.testing.assert_array_equal(embed(encoder, "one", "two"), first)
    assert model.batches == [["one", "two"], ["three"]]
    assert model.threads == {"encoder toy"}


def test_no_tenant_reads_anothers_cache() -> None:
    model = Model()
    with running(model) as encoder:
        embed(encoder, "one", tenant="a")
        embed(encoder, "one", tenant="b")
    assert model.batches == [["one"], ["one"]]


def test_a_tenants_vectors_can_be_erased_all_at_once() -> None:
    model = Model()
    with running(model) as encoder:
        erasable: Erasable = encoder
        assert isinstance(encoder, Encoder)
        embed(encoder, "one", "two", tenant="a")
        embed(encoder, "one", tenant="b")
        assert erasable.erase("a", texts=["one"]) == 2
        assert encoder.erase("a") == 0
        embed(encoder, "one", tenant="b")
        assert len(model.batches) == 2


# --- the queue -----------------------------------------------------------------------------------


def test_requests_that_wait_together_share_a_forward() -> None:
    model = Model()
    with running(model) as encoder:
        model.go.clear()
        waiting = [encoder.embed(["first"], tenant="a")]
        assert model.begun.wait(timeout=5)
        waiting += [encoder.embed([f"text {n}"], tenant=str(n)) for n in range(5)]
        model.go.set()
        for future in waiting:
            future.result(timeout=10)
    assert model.batches == [["first"], [f"text {n}" for n in range(5)]]


def test_a_short_request_overtakes_a_long_one() -> None:
    model = Model()
    with running(model) as encoder:
        model.go.clear()
        long = encoder.embed([f"probe {n}" for n in range(5 * BATCH)], tenant="a")
        assert model.begun.wait(timeout=5)
        short = encoder.embed(["prompt"], tenant="b")
        model.go.set()
        short.result(timeout=10)
        assert long.result(timeout=10).shape == (5 * BATCH, 16)
    assert model.batches.index(["prompt"]) <= 1
    assert max(map(len, model.batches)) == BATCH


def test_the_queue_is_bounded() -> None:
    model = Model()
    with running(model) as encoder:
        model.go.clear()
        waiting = [encoder.embed([f"{n}"], tenant="a") for n in range(MAX_WAITING + 2)]
        assert isinstance(waiting[-1].exception(timeout=5), BusyError)
        model.go.set()
        waiting[0].result(timeout=10)


def test_a_cancelled_request_is_not_worked_on() -> None:
    model = Model()
    with running(model) as encoder:
        model.go.clear()
        first = encoder.embed(["first"], tenant="a")
        assert model.begun.wait(timeout=5)
        assert encoder.embed(["nobody waits"], tenant="a").cancel()
        assert encoder.embed([f"long {n}" for n in range(BATCH + 1)], tenant="a").cancel()
        model.go.set()
        first.result(timeout=10)
        embed(encoder, "last")
    assert model.batches == [["first"], ["last"]]


# --- faults --------------------------------------------------------------------------------------


def test_a_request_that_breaks_fails_alone_and_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    model = Model()
    with running(model) as encoder:
        model.go.clear()
        encoder.embed(["first"], tenant="a")
        assert model.begun.wait(timeout=5)
        bad, good = (encoder.embed([text], tenant="a") for text in ("a quokka", "a cat"))
        model.go.set()
        error = bad.exception(timeout=10)
        assert good.result(timeout=10).shape == (1, 16)
        assert embed(encoder, "still here").shape == (1, 16)
        long = encoder.embed(["quokka", *[f"{n}" for n in range(BATCH)]], tenant="a")
        assert isinstance(long.exception(timeout=10), EngineError)
    assert isinstance(error, EngineError)
    assert error.__cause__ is None
    assert "quokka" not in f"{error!r} {caplog.text}"
    assert "ValueError" in str(error)


def test_vectors_of_another_shape_are_an_error() -> None:
    encoder = SentenceEncoder(lambda texts: np.zeros((1, 2), np.float32), name="odd", dim=16)
    assert isinstance(encoder.embed(["x"], tenant="a").exception(timeout=5), EngineError)
    encoder.close()


def test_closing_fails_whoever_waits_and_whoever_comes_later() -> None:
    model = Model()
    encoder = SentenceEncoder(model, name="toy", dim=16)
    model.go.clear()
    encoder.embed(["first"], tenant="a")
    assert model.begun.wait(timeout=5)
    waiting = encoder.embed(["second"], tenant="a")
    threading.Timer(0.1, model.go.set).start()
    encoder.close()
    encoder.close()
    for future in (waiting, encoder.embed(["third"], tenant="a")):
        with pytest.raises(EngineError, match="'toy'"):
            future.result(timeout=5)
    assert not any(t.name == "encoder toy" and t.is_alive() for t in threading.enumerate())


def test_without_sentence_transformers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"elision\[local\]"):
        SentenceEncoder.load(tmp_path, name="x")


# --- the real one --------------------------------------------------------------------------------

TEXTS = (
    "Who is she?",
    "",
    "a",
    "  What\u2019s the caf\u00e9 like,\n in T\u014dky\u014d?  ",
    "word " * 700,
    "東京 \U0001f600 \u200b",
    *(f"Sentence number {n} is here, and is {n % 7} long." for n in range(120)),
)


@pytest.mark.model
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_vectors_equal_those_of_encode(minilm_dir: Path, dtype: Any, atol: float) -> None:
    from sentence_transformers import SentenceTransformer

    stock = SentenceTransformer(str(minilm_dir), device="cpu", local_files_only=True)
    expected = stock.encode(list(TEXTS), normalize_embeddings=True, show_progress_bar=False)
    encoder = SentenceEncoder.load(minilm_dir, name="all-minilm-l6-v2", dtype=dtype)
    try:
        found = embed(encoder, *TEXTS)
        np.testing.assert_allclose(found, expected, atol=atol)
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=atol)
        assert embed(encoder, "half a \ud83d character").shape == (1, 384)
    finally:
        encoder.close()


@pytest.mark.model
def test_a_model_of_another_make_runs_as_it_is(minilm_dir: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    stock = SentenceTransformer(str(minilm_dir), device="cpu", local_files_only=True)
    stock[1].pooling_mode = "cls"
    stock.save(str(tmp_path / "cls"))
    expected = stock.encode(list(TEXTS[:9]), normalize_embeddings=True, show_progress_bar=False)
    encoder = SentenceEncoder.load(tmp_path / "cls", name="cls")
    try:
        np.testing.assert_allclose(embed(encoder, *TEXTS[:9]), expected, atol=1e-5)
    finally:
        encoder.close()


@pytest.mark.model
def test_loading_says_nothing(minilm_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = SentenceEncoder.load(minilm_dir, name="all-minilm-l6-v2")
    embed(encoder, "hello")
    encoder.close()
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_holds_no_encoder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"modules\.json"):
        SentenceEncoder.load(tmp_path, name="x")


def test_a_cached_request_does_not_wait_for_the_thread() -> None:
    model = Model()
    with running(model) as encoder:
        embed(encoder, "known")
        model.go.clear()
        model.begun.clear()
        encoder.embed(["slow"], tenant="a")
        assert model.begun.wait(timeout=5)
        start = time.monotonic()
        embed(encoder, "known")
        assert time.monotonic() - start < 1
