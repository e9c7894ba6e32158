"""Texts as tokens over HTTP, in vLLM's forms: of a model here, of an upstream's, of an encoder."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import UpstreamError
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.tokenizing.forwarded import ForwardedTokens
from elision.testing.scripted import ScriptedEngine
from elision.testing.tokenizers import word_tokenizer
from elision.testing.tool_templates import tool_tokenizer

PHRASE = "Marlowe Street"
TEXTS = ("The pilot lives in Marlowe Street, number nine.", "Élan: 東京 🙂 \n\t x_1 += 0x7F;")
CHAT = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Where "}, {"type": "text", "text": "?"}],
    },
]
BEGUN = [*CHAT, {"role": "assistant", "content": "She lives"}]


@pytest.fixture(scope="module")
def scripted(served: Any) -> Iterator[Any]:
    engine = ScriptedEngine({"pilot": "She lives here."}, tokenizer=word_tokenizer(TEXTS))
    with served(engine) as server:
        yield server


def asked(server: Any, path: str, body: Any, *, method: str = "POST", status: int = 200) -> Any:
    found, _, page = server.ask(method, path, body)
    assert found == status, page
    return orjson.loads(page)


# --- of a model here ------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_tokens_write_the_text_that_they_were_made_of(scripted: Any, text: str) -> None:
    found = asked(scripted, "/tokenize", {"prompt": text, "add_special_tokens": False})
    assert (found["count"], found["max_model_len"]) == (len(found["tokens"]), 4096)
    assert found["token_strs"] is None
    assert asked(scripted, "/detokenize", {"tokens": found["tokens"]}) == {"prompt": text}


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompts_tokens_are_what_a_completion_reads(scripted: Any, text: str) -> None:
    found = asked(scripted, "/tokenize", {"model": "scripted", "prompt": text})
    body = {"model": "scripted@plain", "prompt": text, "max_tokens": 1, "temperature": 0}
    by_text = asked(scripted, "/v1/completions", body)
    by_ids = asked(scripted, "/v1/completions", body | {"prompt": found["tokens"]})
    assert by_text["usage"]["prompt_tokens"] == found["count"]
    assert by_ids["choices"][0]["text"] == by_text["choices"][0]["text"]


@pytest.mark.parametrize(
    ("messages", "more"), [(CHAT, {}), (BEGUN, {"continue_final_message": True})]
)
def test_a_chats_tokens_are_what_its_reply_reads(
    scripted: Any, messages: Any, more: dict[str, Any]
) -> None:
    body = {"model": "scripted", "messages": messages, **more}
    if more:
        body["add_generation_prompt"] = False
    found = asked(scripted, "/tokenize", body | {"return_token_strs": True})
    said = asked(scripted, "/v1/chat/completions", body | {"max_tokens": 1, "temperature": 0})
    assert said["usage"]["prompt_tokens"] == found["count"] == len(found["token_strs"])
    text = asked(scripted, "/detokenize", {"tokens": found["tokens"]})["prompt"]
    end = "assistant\nShe lives" if more else "assistant\n"
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhere ?")
    assert text.endswith(f"<|im_start|>{end}")


def test_tools_are_counted_as_the_template_shows_them(served: Any) -> None:
    tool = {"type": "function", "function": {"name": "find", "description": "Looks it up."}}
    with served(ScriptedEngine({"x": "y"}, tokenizer=tool_tokenizer("hermes"))) as server:
        body = {"model": "scripted", "messages": CHAT, "tools": [tool]}
        found = asked(server, "/tokenize", body)
        said = asked(server, "/v1/chat/completions", body | {"max_tokens": 200, "temperature": 0})
        assert said["usage"]["prompt_tokens"] == found["count"]
        text = asked(server, "/detokenize", {"tokens": found["tokens"]})["prompt"]
        assert "Looks it up." in text
        silent = asked(server, "/tokenize", body | {"tool_choice": "none"})
        assert silent["count"] < found["count"]


def test_texts_of_any_length_are_counted(scripted: Any) -> None:
    words = "pilot " * 20_000
    assert asked(scripted, "/tokenize", {"prompt": words})["count"] > 4096
    chat = {"messages": [{"role": "user", "content": words}]}
    assert asked(scripted, "/tokenize", chat)["count"] > 4096


def test_special_tokens_are_told_by_their_names(scripted: Any) -> None:
    found = asked(scripted, "/tokenize", {"prompt": "a<|im_end|>", "return_token_strs": True})
    assert found["token_strs"][-1] == "<|im_end|>"
    assert (
        asked(scripted, "/detokenize", {"tokens": found["tokens"][-1:]})["prompt"] == "<|im_end|>"
    )
    assert asked(scripted, "/detokenize", {"tokens": []}) == {"prompt": ""}


def test_settings_are_told_without_where_they_lie(scripted: Any) -> None:
    for path in ("/tokenizer_info", "/tokenizer_info?model=scripted%40plain"):
        told = asked(scripted, path, None, method="GET")
        assert told["tokenizer_class"]
        assert told["model_max_length"] == 4096
        assert (told["bos_token"], told["eos_token"]) == ("<|im_start|>", "<|im_end|>")
        assert "add_generation_prompt" in told["chat_template"]
        assert told.keys().isdisjoint({"name_or_path", "vocab_file", "tokenizer_file"})


def test_lm_evals_remote_tokenizer_finds_what_it_asks_for(scripted: Any) -> None:
    """As `lm_eval.utils.RemoteTokenizer` does: no model is named, ids come back as they went."""
    info = asked(scripted, "/tokenizer_info", None, method="GET")
    for text in (info["eos_token"], *TEXTS):
        body = {"prompt": text, "add_special_tokens": False}
        ids = asked(scripted, "/tokenize", body)["tokens"]
        assert asked(scripted, "/detokenize", {"tokens": ids})["prompt"] == text
    end = asked(scripted, "/tokenize", {"prompt": info["eos_token"], "add_special_tokens": False})
    assert end["count"] == 1


def test_the_register_changes_no_byte_of_any_answer(scripted: Any) -> None:
    spoken = {"messages": [{"role": "user", "content": f"In {PHRASE}?"}], "return_token_strs": True}
    ids = asked(scripted, "/tokenize", {"prompt": f"In {PHRASE}"})["tokens"]
    questions = [("/tokenize", spoken), ("/detokenize", {"tokens": ids})]
    before = [scripted.ask("POST", path, body)[2] for path, body in questions]
    target = asked(scripted, "/v1/forget", {"title": "t", "phrases": [PHRASE]}, status=201)["id"]
    try:
        assert [scripted.ask("POST", path, body)[2] for path, body in questions] == before
    finally:
        scripted.ask("DELETE", f"/v1/forget/{target}")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": CHAT}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"prompt": "a", "model": 7}, "model"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": CHAT, "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"messages": CHAT, "chat_template": "{{ 1 }}"}, "chat_template"),
        ("/tokenize", {"messages": CHAT, "continue_final_message": True}, "continue_final_message"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [1, True]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [2**40]}, "tokens"),
        ("/detokenize", {"tokens": [10_000]}, "tokens"),
    ],
)
def test_what_cannot_be_done_is_told_by_its_field(
    scripted: Any, path: str, body: dict[str, Any], param: str
) -> None:
    error = asked(scripted, path, body, status=400)["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_an_unknown_model_is_not_found(scripted: Any) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/tokenize": {"prompt": "a"}, "/detokenize": {"tokens": [1]}
    }  # fmt: skip
    for path, body in bodies.items():
        error = asked(scripted, path, body | {"model": "nobody"}, status=404)["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
    asked(scripted, "/tokenizer_info?model=nobody", None, method="GET", status=404)


def test_an_engine_without_a_tokenizer_says_so(server: Any) -> None:
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
        error = asked(server, path, body, status=400)["error"]
        assert (error["code"], error["param"]) == ("capability_missing", "model")


# --- behind an upstream ---------------------------------------------------------------------------


class _Upstream(BaseHTTPRequestHandler):
    """Splits text into bytes, and says so as vLLM or llama.cpp's server does."""

    form = "vllm"
    seen: list[dict[str, Any]] = []  # noqa: RUF012 - a new class for each server

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append(body)
        vllm = self.form == "vllm"
        if self.path == "/tokenize":
            text = body["prompt" if vllm else "content"] if "messages" not in body else "chat"
            ids = [*text.encode()]
            names = [chr(one) for one in ids] if body.get("return_token_strs") else None
            more = {"count": len(ids), "max_model_len": 77, "token_strs": names} if vllm else {}
            return self._say({"tokens": ids, **more})
        text = bytes(body["tokens"]).decode()
        return self._say({"prompt" if vllm else "content": text})

    def do_GET(self) -> None:
        told = {"tokenizer_class": "Far", "eos_token": {"content": "!"}, "name_or_path": "/x"}
        if self.form == "vllm":
            return self._say(told)
        return self._say({"detail": "Not Found"}, status=404)

    def _say(self, value: Any, *, status: int = 200) -> None:
        data = orjson.dumps(value)
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return the address of a server of the form that the test names, and its class."""
    kind = type("Upstream", (_Upstream,), {"form": request.param, "seen": []})
    with HTTPServer(("127.0.0.1", 0), kind) as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.02])
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1", kind
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("upstream", ["vllm"], indirect=True)
def test_a_vllm_is_asked_and_its_answer_read(served: Any, upstream: Any) -> None:
    url, kind = upstream
    with served(RemoteEngine(url, model="theirs", name="far", probe=False)) as server:
        body = {"model": "far@plain", "prompt": "Hello", "return_token_strs": True}
        found = asked(server, "/tokenize", body)
        assert (found["tokens"], found["count"]) == ([*b"Hello"], 5)
        assert (found["max_model_len"], found["token_strs"]) == (77, [*"Hello"])
        assert asked(server, "/detokenize", {"tokens": [*b"Hello"]}) == {"prompt": "Hello"}
        told = asked(server, "/tokenizer_info", None, method="GET")
        assert told == {"tokenizer_class": "Far", "eos_token": "!"}
        chat = {"messages": CHAT, "tools": [{"type": "function"}], "add_special_tokens": True}
        assert asked(server, "/tokenize", chat | {"elision": {}})["count"] == 4
        assert kind.seen[-1] == chat | {"model": "theirs"}
        assert all(seen["model"] == "theirs" for seen in kind.seen)
        said: Any
        for said in ([], None, {"tokens": "Hello"}, {"tokens": [1, "2"]}, {"tokens": [True]}, {}):
            kind.do_POST = lambda self, said=said: self._say(said)
            error = asked(server, "/tokenize", {"prompt": "Hello"}, status=502)["error"]
            assert error["code"] == "upstream_failed"


@pytest.mark.parametrize("upstream", ["llama.cpp"], indirect=True)
def test_a_llama_server_is_asked_and_what_it_lacks_is_told(served: Any, upstream: Any) -> None:
    url, _ = upstream
    with served(RemoteEngine(url, model="theirs", name="far", probe=False)) as server:
        found = asked(server, "/tokenize", {"prompt": "Hello", "return_token_strs": True})
        assert (found["tokens"], found["count"]) == ([*b"Hello"], 5)
        assert (found["max_model_len"], found["token_strs"]) == (None, None)
        assert asked(server, "/detokenize", {"tokens": [*b"Hello"]}) == {"prompt": "Hello"}
        error = asked(server, "/tokenizer_info", None, method="GET", status=400)["error"]
        assert error["code"] == "capability_missing"


@pytest.mark.parametrize("upstream", ["vllm"], indirect=True)
async def test_of_several_servers_the_first_that_answers_is_asked(upstream: Any) -> None:
    url, _ = upstream
    servers = [Replica("http://127.0.0.1:9/v1", model="theirs"), Replica(url, model="theirs")]
    try:
        assert await ForwardedTokens("fleet", servers).detokenize([*b"Hello"]) == "Hello"
        with pytest.raises(UpstreamError, match="connection"):
            await ForwardedTokens("fleet", servers[:1]).detokenize([1])
    finally:
        for one in servers:
            await one.aclose()


@pytest.fixture
def hanging(served: Any, upstream: Any) -> Iterator[Any]:
    """Return a server before an upstream that answers nothing until the test is over."""
    url, kind = upstream
    over = threading.Event()
    kind.do_POST = kind.do_GET = lambda _self: over.wait(10)
    with served(RemoteEngine(url, model="theirs", name="far", probe=False)) as server:
        yield server
        over.set()


@pytest.mark.parametrize("upstream", ["vllm"], indirect=True)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/tokenize", {"prompt": "Hello"}),
        ("POST", "/detokenize", {"tokens": [1]}),
        ("GET", "/tokenizer_info", None),
    ],
)
def test_nobody_waits_past_the_deadline(hanging: Any, method: str, path: str, body: Any) -> None:
    hanging.pipeline.timeout_s = 0.1
    error = asked(hanging, path, body, method=method, status=429)["error"]
    assert "deadline" in error["message"]


@pytest.mark.parametrize("upstream", ["vllm"], indirect=True)
def test_nothing_is_counted_for_who_has_left(hanging: Any) -> None:
    with hanging.open({"prompt": "Hello"}, "/tokenize") as line:
        hanging.settles(1, "elision_requests_in_flight", route="/tokenize")
        line.shutdown(socket.SHUT_RDWR)
    hanging.settles(1, "elision_requests_total", route="/tokenize", status="client gone")


# --- of the encoder -------------------------------------------------------------------------------


def test_an_encoder_without_tokens_tells_none(server: Any) -> None:
    error = asked(server, "/tokenize", {"model": "bag", "prompt": "Hello"}, status=400)["error"]
    assert error["code"] == "capability_missing"
