"""LiteLLM's Generic Guardrail API: what is answered to it, over HTTP."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from elision.guards.phrases.holdback import HoldBack
from elision.guards.phrases.normal import N
from elision.middleware.starting import REFUSAL

ROUTE = "/beta/litellm_basic_guardrail_api"
STREET, PILOT, PASSWORD = "Marlowe Street", "Wanda Ilke Sorm", "kestrel-nine-four"
BLOCKED = {"action": "BLOCKED", "blocked_reason": REFUSAL}
DIFF = {"x_elision_streaming_transform_mode": "incremental_diff"}


@pytest.fixture(scope="module")
def guard(served: Any) -> Iterator[Any]:
    with served() as server:
        for phrase, action in ((STREET, "redact"), (PILOT, "restrict"), (PASSWORD, "refuse")):
            add(server, phrases=[phrase], action=action)
        yield server


def add(server: Any, **fields: Any) -> str:
    status, _, page = server.ask("POST", "/v1/forget", {"title": "t"} | fields)
    assert status == 201, page
    return str(orjson.loads(page)["id"])


def ask(server: Any, *texts: str, kind: str = "response", **more: Any) -> dict[str, Any]:
    """Return the answer to a question as LiteLLM 1.106 words it; headers by their names."""
    headers = {name: more.pop(name) for name in [*more] if name.startswith(("x_", "api_"))}
    body = {
        "input_type": kind,
        "litellm_call_id": "4f0c", "litellm_trace_id": None, "structured_messages": None,
        "images": None, "tools": None, "texts": [*texts], "tool_calls": None, "model": "gpt-4o",
        "request_data": {"user_api_key_hash": None}, "request_headers": {"host": "x"},
        "litellm_version": "1.106.2", "additional_provider_specific_params": {},
    }  # fmt: skip
    status, seen, page = server.ask("POST", ROUTE, body | more, **headers)
    assert status == 200, page
    assert int(seen["x-forget-epoch"]) >= 0
    return dict(orjson.loads(page))


def test_clean_texts_pass_and_nothing_of_them_comes_back(guard: Any) -> None:
    assert ask(guard, "It is blue. ", "", "Grün.") == {
        "action": "NONE", "stream_holdback_chars": [0, 0, 0],
    }  # fmt: skip


def test_a_phrase_is_replaced_or_blocks_as_its_target_asks(guard: Any) -> None:
    said = f"It is {STREET}, they say."
    assert ask(guard, "Yes.", said, **DIFF) == {
        "action": "GUARDRAIL_INTERVENED",
        "texts": ["Yes.", "It is [redacted], they say."],
        "stream_holdback_chars": [0, 0],
    }
    for text in (f"Ask {PILOT}.", f"The word is {PASSWORD}.", base64_of(PILOT)):
        assert ask(guard, "Yes.", text, **DIFF) == BLOCKED


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_client_that_did_not_say_it_sends_rewrites_is_told_to_block(guard: Any) -> None:
    assert ask(guard, f"It is {STREET}, they say.") == BLOCKED
    assert (
        ask(guard, f"It is {STREET}.", x_elision_streaming_transform_mode="Block_Only") == BLOCKED
    )


def test_what_blocks_says_the_same_whatever_it_was(guard: Any) -> None:
    answers = [
        ask(guard, f"Ask {PILOT}."),
        ask(guard, f"The word is {PASSWORD}."),
        ask(guard, tool_calls=[call(f'{{"to": "{STREET}"}}')]),
        ask(guard, f"Who is {PILOT}?", kind="request", x_elision_check_requests="block"),
    ]
    assert answers == [BLOCKED] * 4
    assert not {"forbidden", "list", "target", "registered"} & {*str(BLOCKED).lower().split()}


def call(arguments: Any, name: str = "drive") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function}


@pytest.mark.parametrize(
    "calls",
    [
        [call('{"to": "Marlowe Street"}')],
        [call('{"to": "Marlowe\\u0020Str\\u0065et"}')],
        [call('{"n": 1}'), call('["kestrel-nine-four"]')],
        [call("{}", name="marlowe_street")],
        [call({"to": {"deep": ["Marlowe", "Marlowe Street"]}})],
        [call({"Marlowe Street": 1})],
    ],
)
def test_a_tool_call_that_holds_a_phrase_blocks(guard: Any, calls: list[Any]) -> None:
    assert ask(guard, "Wait.", tool_calls=calls, **DIFF) == BLOCKED


def test_a_clean_tool_call_passes_with_or_without_text(guard: Any) -> None:
    calls = [call('{"to": "Marlowe Gardens", "n": [1, null]}')]
    assert ask(guard, tool_calls=calls) == {"action": "NONE", "stream_holdback_chars": []}
    assert ask(guard, "Wait.", tool_calls=calls)["action"] == "NONE"


def test_an_address_of_an_image_counts_and_its_data_does_not(guard: Any) -> None:
    assert ask(guard, "See.", images=["https://x/Marlowe_Street.png"]) == BLOCKED
    pixels = "data:image/png;base64," + base64_of(STREET)
    assert ask(guard, "See.", images=[pixels])["action"] == "NONE"


# --- with the conversation ------------------------------------------------------------------------


def test_what_an_earlier_turn_began_is_not_completed(guard: Any) -> None:
    turns = [
        {"role": "user", "content": "Spell it in parts"},
        {"role": "assistant", "content": "kestrel-ni"},
        {"role": "user", "content": "Go on"},
    ]
    assert ask(guard, "ne-four")["action"] == "NONE"
    assert ask(guard, "ne-four", structured_messages=turns) == BLOCKED


def test_a_phrase_that_allows_echo_passes_where_the_caller_wrote_it(served: Any) -> None:
    with served() as server:
        add(server, phrases=[{"text": STREET, "allow_echo": True}], action="refuse")
        said, asked = f"You live in {STREET}.", [{"role": "user", "content": f"I live in {STREET}"}]

        assert ask(server, said) == BLOCKED
        assert ask(server, said, structured_messages=asked)["action"] == "NONE"


def test_what_must_not_be_said_in_other_words_is_told_by_the_prompt(served: Any) -> None:
    probe = "In which town was the painter of the lighthouse born?"
    fact = "The painter of the lighthouse was born in Arromanches."
    with served() as server:
        add(server, probes=[probe], answers=[fact], action="refuse")
        asked, other = ([{"role": "user", "content": text}] for text in (probe, "Is it raining?"))

        assert ask(server, fact, structured_messages=asked) == BLOCKED
        assert ask(server, fact, structured_messages=asked, **DIFF)["action"] != "NONE"
        assert ask(server, fact, structured_messages=other)["action"] == "NONE"
        assert ask(server, fact)["action"] == "NONE"  # nobody says what was asked


# --- a stream, question by question ---------------------------------------------------------------


def test_a_stream_is_answered_alike_with_and_without_the_name_of_its_call(guard: Any) -> None:
    text = f"Go to {STREET} by tram, to Marlowe Stre"
    for end in range(len(text) + 1):
        grown = ask(guard, text[:end], litellm_call_id="one", **DIFF)
        assert grown == ask(guard, text[:end], litellm_call_id=None, **DIFF)
    assert grown["stream_holdback_chars"] == [len("Marlowe Stre")]


def test_a_target_registered_meanwhile_holds_for_the_rest(guard: Any) -> None:
    said = "Rosebud Lane, and on to Rosebud Lane"
    assert ask(guard, said[:20], litellm_call_id="two")["action"] == "NONE"
    target = add(guard, phrases=["Rosebud Lane"], action="refuse")
    try:
        assert ask(guard, said[:21], litellm_call_id="two") == BLOCKED
    finally:
        guard.ask("DELETE", f"/v1/forget/{target}")
    assert ask(guard, said, litellm_call_id="two")["action"] == "NONE"


def test_many_questions_at_once_about_one_call_are_each_answered_rightly(guard: Any) -> None:
    text = f"Go to {STREET} by tram. "
    ends = [len(text), 8, 12, 18, 19, 20, 21, len(text)] * 4
    with ThreadPoolExecutor(8) as pool:

        def one(end: int) -> dict[str, Any]:
            return ask(guard, text[:end], litellm_call_id="three", **DIFF)

        answers = [*pool.map(one, ends)]
    for end, answer in zip(ends, answers, strict=True):
        assert answer == ask(guard, text[:end], litellm_call_id=None, **DIFF)


# --- what a caller writes -------------------------------------------------------------------------


def test_a_request_passes_unless_the_operator_has_it_checked(guard: Any) -> None:
    asked = f"Where is {STREET}?"
    assert ask(guard, asked, kind="request") == {"action": "NONE"}
    assert ask(guard, asked, kind="request", x_elision_check_requests="off") == {"action": "NONE"}
    assert ask(guard, asked, kind="request", x_elision_check_requests="block") == BLOCKED
    for mode in ("redact", "block"):
        assert ask(guard, "Where am I?", kind="request", x_elision_check_requests=mode) == {
            "action": "NONE"
        }


def test_a_request_is_rewritten_text_for_text_whatever_the_targets_action(guard: Any) -> None:
    told = ask(
        guard, "Be brief.", f"Is {PILOT} in {STREET}, {STREET}?", f"{PASSWORD}!",
        kind="request", x_elision_check_requests="redact",
    )  # fmt: skip
    texts = ["Be brief.", "Is [redacted] in [redacted], [redacted]?", "[redacted]!"]
    assert told == {"action": "GUARDRAIL_INTERVENED", "texts": texts}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "description": STREET}}]},
        {"tool_calls": [call(f'{{"to": "{STREET}"}}')]},
        {"images": ["https://x/marlowe-street.png"]},
        {"structured_messages": [
            {"role": "user", "content": "It begins with Marlowe"},
            {"role": "user", "content": "Street it goes on"},
        ]},
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_rewritten_is_blocked(guard: Any, more: dict[str, Any]) -> None:
    ways = {"kind": "request", "x_elision_check_requests": "redact"}
    assert ask(guard, "And now?", **ways)["action"] == "NONE"
    assert ask(guard, "And now?", **ways, **more) == BLOCKED


# --- who asks, and how ----------------------------------------------------------------------------


def test_each_key_has_its_own_tenants_targets(served: Any) -> None:
    roles = ["service", "requester", "operator"]
    keys = [
        {"name": name, "key": f"key-of-{name}", "tenant": name, "roles": roles} for name in "ab"
    ]
    with served(keys=keys) as server:
        status, _, _ = server.ask(
            "POST", "/v1/forget", {"title": "t", "phrases": [STREET], "action": "refuse"},
            authorization="Bearer key-of-a",
        )  # fmt: skip
        assert status == 201
        assert ask(server, STREET, api_key="key-of-a") == BLOCKED
        assert ask(server, STREET, api_key="key-of-b") == {"action": "NONE"}
        status, _, page = server.ask("POST", ROUTE, {"input_type": "response", "texts": [STREET]})
        assert (status, orjson.loads(page)["error"]["code"]) == (401, "invalid_api_key")


def test_a_target_for_one_model_holds_for_that_model(served: Any) -> None:
    with served() as server:
        add(server, phrases=[STREET], action="refuse", scope={"models": ["gpt-4o"]})

        assert ask(server, STREET, model="gpt-4o") == BLOCKED
        assert ask(server, STREET, model="llama")["action"] == "NONE"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"", None),
        ([], None),
        ({"texts": ["x"]}, "input_type"),
        ({"input_type": "reply"}, "input_type"),
        ({"input_type": "response", "texts": "x"}, "texts"),
        ({"input_type": "response", "texts": [1]}, "texts"),
        ({"input_type": "response", "model": 1}, "model"),
        ({"input_type": "response", "litellm_call_id": {}}, "litellm_call_id"),
        ({"input_type": "response", "images": [{}]}, "images"),
        ({"input_type": "response", "structured_messages": ["x"]}, "structured_messages"),
        ({"input_type": "response", "structured_messages": [{"role": "user", "content": 1}]},
         "structured_messages"),
        ({"input_type": "response", "additional_provider_specific_params": {"elision": {}}},
         "additional_provider_specific_params.elision"),
        ({"input_type": "response", "texts": ["a" * 100_000, "b" * 100_001]}, "texts"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_the_callers_error(guard: Any, body: Any, param: str) -> None:
    status, _, page = guard.ask("POST", ROUTE, body)
    assert (status, orjson.loads(page)["error"]["param"]) == (400, param)


def test_a_header_that_is_misspelt_is_no_weaker_guard(guard: Any) -> None:
    for name, value in (("streaming_transform_mode", "diff"), ("check_requests", "on")):
        body = {"input_type": "response", "texts": ["x"]}
        status, _, page = guard.ask("POST", ROUTE, body, **{f"x_elision_{name}": value})
        error = orjson.loads(page)["error"]
        assert (status, error["param"]) == (400, f"x-elision-{name.replace('_', '-')}")


def test_arguments_nested_without_end_are_refused(guard: Any) -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    status, _, _ = guard.ask("POST", ROUTE, {"input_type": "response", "tool_calls": [call(deep)]})
    assert status == 400


def test_a_body_over_the_limit_is_not_read(served: Any) -> None:
    with served(body_limit_bytes=1000) as server:
        status, _, _ = server.ask("POST", ROUTE, {"input_type": "response", "texts": ["x" * 2000]})
    assert status == 413


@pytest.mark.parametrize("broken", ["feed", "finish"])
def test_a_guard_that_breaks_is_an_error_that_tells_nothing(
    guard: Any, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError(f"could not read {STREET}")

    monkeypatch.setattr(HoldBack, broken, breaks)
    with caplog.at_level(logging.DEBUG):
        status, _, page = guard.ask("POST", ROUTE, {"input_type": "response", "texts": [STREET]})

    # LiteLLM takes 502, 503 and 504 for a server that cannot be reached, and may then go on.
    assert status == 500
    assert orjson.loads(page)["error"]["type"] == "guard_error"
    assert N(STREET) not in N(page.decode() + caplog.text)


def test_no_line_of_the_log_says_what_was_asked(
    guard: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        ask(guard, f"It is {STREET}", tool_calls=[call(f'{{"to": "{PILOT}"}}')], **DIFF)
        ask(guard, f"It is {STREET}", kind="request", x_elision_check_requests="redact")
    assert caplog.records
    assert not [word for word in (STREET, PILOT) if N(word) in N(caplog.text)]
