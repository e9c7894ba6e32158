"""Texts as vectors over HTTP: what openai-python reads, what is refused, what is forgotten."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.encoders import SentenceEncoder
from elision.encoders.pieces import Pieces
from elision.testing.encoders import BagEncoder

N_CONTEXT = 16
WORDS = ("hello", "world", "street", "pilot")
PHRASE = "Marlowe Street"


def pieces() -> Pieces:
    """Return the tokens of a small BERT: whole words, letters, and a frame."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    frame = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    names = (*frame, *ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase), *WORDS)
    vocab = {name: n for n, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens([*frame])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.enable_truncation(4)  # as sentence encoders come; it must not act
    return Pieces(tokenizer, n_context=N_CONTEXT)


class Counted(BagEncoder):
    """Counts the forwards of an encoder on a thread."""

    def vectors(self, texts: Sequence[str]) -> Any:
        return self.embed(texts, tenant="").result()


@pytest.fixture(scope="module")
def bag() -> Counted:
    return Counted()


@pytest.fixture(scope="module")
def encoder(bag: Counted) -> SentenceEncoder:
    return SentenceEncoder(bag.vectors, name="bert", dim=bag.dim, pieces=pieces())


@pytest.fixture(scope="module")
def embedding(served: Any, encoder: SentenceEncoder) -> Iterator[Any]:
    with served(sentences=encoder) as server:
        yield server


@pytest.fixture(scope="module")
def client(embedding: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{embedding.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def vectors(server: Any, given: Any, **more: Any) -> list[Any]:
    body = {"model": "bert", "input": given, **more}
    status, _, page = server.ask("POST", "/v1/embeddings", body)
    assert status == 200, page
    return [row["embedding"] for row in orjson.loads(page)["data"]]


def refused(server: Any, given: Any, **more: Any) -> Any:
    body = {"model": "bert", "input": given, **more}
    status, _, page = server.ask("POST", "/v1/embeddings", body)
    assert status == 400, page
    return orjson.loads(page)["error"]


# --- what comes back ------------------------------------------------------------------------------


def test_openai_reads_the_encoders_own_numbers_to_the_last_bit(
    client: openai.OpenAI, bag: Counted
) -> None:
    texts = ["hello world", "a pilot", "hello world"]
    want = bag.vectors(texts)
    hows: tuple[Any, ...] = ("base64", "float")
    for how in hows:
        found = client.embeddings.create(model="bert", input=texts, encoding_format=how)
        assert (found.object, found.model) == ("list", "bert")
        assert [row.index for row in found.data] == [0, 1, 2]
        assert found.usage.prompt_tokens == found.usage.total_tokens == 12
        rows: list[Any] = [row.embedding for row in found.data]
        if how == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        assert np.array_equal(np.array(rows, dtype=np.float32), want)


def test_openai_python_which_asks_for_base64_unasked_gets_numbers(
    client: openai.OpenAI, bag: Counted
) -> None:
    found = client.embeddings.create(model="bert", input="hello world", dimensions=bag.dim)
    assert np.array_equal(
        np.array(found.data[0].embedding, np.float32), bag.vectors(["hello world"])[0]
    )


def test_many_texts_keep_their_order_over_several_turns_of_the_encoder(
    embedding: Any, bag: Counted
) -> None:
    texts = [f"{word} {n}" for n in range(150) for word in ("hello", "pilot")]
    assert np.array_equal(np.array(vectors(embedding, texts), np.float32), bag.vectors(texts))


@given(st.lists(st.sampled_from([*WORDS, "tide", "ax"]), min_size=1, max_size=3))
def test_a_texts_own_token_ids_are_that_text(embedding: Any, words: list[str]) -> None:
    text = " ".join(words)
    _, _, page = embedding.ask("POST", "/tokenize", {"model": "bert", "prompt": text})
    ids = orjson.loads(page)["tokens"]
    by_text = vectors(embedding, text)
    assert vectors(embedding, ids) == by_text
    assert vectors(embedding, [ids, ids]) == vectors(embedding, [text, text]) == by_text * 2


def test_a_text_of_just_the_context_is_read_whole(embedding: Any) -> None:
    just = ["hello"] * (N_CONTEXT - 2)
    assert vectors(embedding, " ".join([*just[1:], "pilot"])) != vectors(embedding, " ".join(just))


def test_tokens_are_counted(embedding: Any) -> None:
    before = embedding.metric("elision_tokens_total", kind="prompt")
    vectors(embedding, ["hello", "hello world"])
    embedding.settles(before + 7, "elision_tokens_total", kind="prompt")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": []}, "input", "empty_array"),
        ({"input": ""}, "input", "empty_string"),
        ({"input": ["hello", ""]}, "input[1]", "empty_string"),
        ({"input": [[]]}, "input[0]", "empty_array"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": 7}, "input", "invalid_type"),
        ({"input": {"text": "hello"}}, "input", "invalid_type"),
        ({"input": ["hello", 7]}, "input[1]", "invalid_type"),
        ({"input": [7, "hello"]}, "input", "invalid_type"),
        ({"input": [[2, True, 3]]}, "input[0]", "invalid_type"),
        ({"input": [2, -1, 3]}, "input", "invalid_type"),
        ({"input": ["x"] * 2049}, "input", "invalid_value"),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        *(
            ({"encoding_format": odd}, "encoding_format", "invalid_value")
            for odd in ("", 0, False, [], {})
        ),
        ({"truncate": ""}, "truncate", "unsupported_parameter"),
        ({"dimensions": 0}, "dimensions", "invalid_value"),
        ({"dimensions": 128}, "dimensions", "invalid_value"),
        ({"truncate_prompt_tokens": -1}, "truncate_prompt_tokens", "unsupported_parameter"),
        ({"model": 7}, "model", "invalid_type"),
    ],
)
def test_what_cannot_be_embedded_is_told_by_its_field(
    embedding: Any, body: dict[str, Any], param: str, code: str
) -> None:
    asked = {"given": "hello"} | {key.replace("input", "given"): v for key, v in body.items()}
    error = refused(embedding, **asked)
    assert (error["param"], error["code"]) == (param, code)


def test_a_text_that_is_too_long_is_told_and_not_cut(embedding: Any, bag: Counted) -> None:
    before = bag.n_embedded
    error = refused(embedding, ["hello", " ".join(["pilot"] * (N_CONTEXT - 1))])
    assert (error["param"], error["code"]) == ("input[1]", "context_length_exceeded")
    assert str(N_CONTEXT) in error["message"]
    assert str(N_CONTEXT + 1) in error["message"]
    assert bag.n_embedded == before


@pytest.mark.parametrize(
    "ids", [[15339, 1917], [56, 57], [2, 56], [2, 3], [2, 1, 3], [2, 30, 30, 3], [3, 56, 2]]
)
def test_token_ids_of_another_tokenizer_are_not_taken_for_ours(
    embedding: Any, ids: list[int]
) -> None:
    error = refused(embedding, [[2, 56, 3], ids])
    assert (error["param"], error["code"]) == ("input[1]", "foreign_token_ids")
    assert "check_embedding_ctx_length=False" in error["message"]


def test_models_tell_the_encoder_and_only_it_embeds(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()][-1] == "bert"
    assert client.models.retrieve("bert").id == "bert"
    for model in ("speaker", "text-embedding-3-small", "bert@plain"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.embeddings.create(model=model, input="hello")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert "'bert'" in str(caught.value)
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        client.chat.completions.create(model="bert", messages=[{"role": "user", "content": "x"}])


def test_a_server_without_an_encoder_says_so(served: Any) -> None:
    with served() as server:
        from elision.middleware.embedding import Embeddings

        server.pipeline.embeddings = Embeddings(None, server.pipeline.register)
        body = {"model": "bert", "input": "hello"}
        status, _, page = server.ask("POST", "/v1/embeddings", body)
        assert (status, orjson.loads(page)["error"]["code"]) == (404, "model_not_found")
        assert b"encoder" in page


def test_an_encoder_without_tokens_takes_texts_alone(served: Any) -> None:
    with served() as server:
        body = {"model": "bag", "input": ["two words", "and three words"]}
        _, _, page = server.ask("POST", "/v1/embeddings", body)
        assert orjson.loads(page)["usage"]["prompt_tokens"] == 5
        status, _, page = server.ask("POST", "/v1/embeddings", body | {"input": [2, 56, 3]})
        assert (status, orjson.loads(page)["error"]["code"]) == (400, "foreign_token_ids")


# --- what is forgotten ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"phrases": [PHRASE]}, "in marlowe  street"),
        ({"phrases": [{"text": PHRASE, "allow_echo": True}]}, PHRASE),
        ({"phrases": [PHRASE], "action": "redact"}, "M-a-r-l-o-w-e Street"),
        ({"phrases": [PHRASE]}, base64.b64encode(b"in Marlowe Street").decode()[:24]),
        ({"names": ["R. Franklin"], "kind": "person"}, "R. Franklin"),
    ],
)
def test_what_is_registered_is_not_embedded(
    embedding: Any, bag: Counted, fields: dict[str, Any], text: str
) -> None:
    unlimited(embedding)
    harmless = vectors(embedding, "hello world")
    _, _, page = embedding.ask("POST", "/v1/forget", {"title": "t", **fields})
    target = orjson.loads(page)["id"]
    try:
        before = bag.n_embedded
        error = refused(embedding, ["hello world", text])
        assert (error["param"], error["code"]) == ("input[1]", "content_filter")
        assert text not in error["message"]
        assert bag.n_embedded == before
        assert vectors(embedding, "hello world") == harmless
    finally:
        embedding.ask("DELETE", f"/v1/forget/{target}")
    assert vectors(embedding, text)


def unlimited(server: Any) -> None:
    """Let the encoder read any length: disguises are long in letters."""
    server.pipeline.embeddings._source.pieces.n_context = 64


def test_an_observed_target_is_embedded_and_another_tenants_is_too(served: Any) -> None:
    roles = ["operator", "service"]
    keys = [{"name": who, "key": f"secret-of-{who}", "tenant": who, "roles": roles} for who in "ab"]
    with served(keys=keys) as server:

        def ask(who: str, path: str, body: Any) -> tuple[int, dict[str, str], bytes]:
            found: tuple[int, dict[str, str], bytes] = server.ask(
                "POST", path, body, authorization=f"Bearer secret-of-{who}"
            )
            return found

        watched = {"title": "t", "phrases": [PHRASE], "action": "observe"}
        assert ask("a", "/v1/forget", watched)[0] == 201
        body = {"model": "bag", "input": PHRASE}
        assert ask("a", "/v1/embeddings", body)[0] == 200
        ask("b", "/v1/forget", watched | {"action": "restrict"})
        status, headers, page = ask("a", "/v1/embeddings", body)
        assert (status, headers["x-forget-epoch"]) == (200, "1")
        assert ask("b", "/v1/embeddings", body)[0] == 400
        assert b"Marlowe" not in page


def test_what_is_registered_while_it_is_embedded_does_not_leave(served: Any) -> None:
    class Interrupted(Counted):
        """Has a phrase registered behind its first forward."""

        phrase = ""

        def vectors(self, texts: Sequence[str]) -> Any:
            found = super().vectors(texts)
            if phrase := self.phrase:
                self.phrase = ""
                target = {"title": "t", "phrases": [phrase]}
                assert server.ask("POST", "/v1/forget", target)[0] == 201
            return found

    bag = Interrupted()
    encoder = SentenceEncoder(bag.vectors, name="bert", dim=bag.dim, pieces=pieces())
    with served(sentences=encoder) as server:
        bag.phrase = "Ysolde Marchetti"
        assert len(vectors(server, ["hello", "by the street"])) == 2
        assert bag.n_embedded == 2  # read again, but not embedded again
        bag.phrase = PHRASE
        error = refused(server, ["hello pilot", f"in {PHRASE}"])
        assert (error["param"], error["code"]) == ("input[1]", "content_filter")


def test_erasing_a_tenant_drops_the_vectors_kept_for_him(
    embedding: Any, encoder: SentenceEncoder, bag: Counted
) -> None:
    vectors(embedding, "an erased pilot")
    encoder.embed(["an erased pilot"], tenant="other").result()
    before = bag.n_embedded
    vectors(embedding, "an erased pilot")
    assert bag.n_embedded == before
    assert embedding.pipeline.erase("default") > 0
    vectors(embedding, "an erased pilot")
    encoder.embed(["an erased pilot"], tenant="other").result()
    assert bag.n_embedded == before + 1


def test_nothing_is_embedded_past_a_register_that_cannot_be_read(
    embedding: Any, bag: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_tenant: str) -> Any:
        raise RuntimeError("pilot's secret")

    before = bag.n_embedded
    monkeypatch.setattr(embedding.pipeline.register, "active", broken)
    body = {"model": "bert", "input": "an unread pilot"}
    status, _, page = embedding.ask("POST", "/v1/embeddings", body)
    assert (status, orjson.loads(page)["error"]["code"]) == (500, "guard_failed_closed")
    assert b"pilot" not in page
    assert bag.n_embedded == before


# --- the real encoder -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.model
def test_minilms_tokens_and_vectors_are_sentence_transformers_own(minilm_dir: Any) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["Hello, world", "naïve cafés, 東京 🙂 don't", "word " * 254, "I like C++ & 3.14."]
    with_own = SentenceEncoder.load(minilm_dir, name="minilm", dtype="float32")
    own: Any = SentenceTransformer(str(minilm_dir), device="cpu", local_files_only=True)
    counted = with_own.pieces
    assert counted is not None
    assert counted.n_context == own.max_seq_length == 256
    assert counted.encode(texts) == own.tokenizer(texts)["input_ids"]
    assert len(counted.encode(["word " * 400])[0]) == 402
    found = with_own.embed(texts, tenant="t").result()
    want = own.encode(texts, normalize_embeddings=True)
    assert np.abs(found - want).max() < 1e-5
    with_own.close()
