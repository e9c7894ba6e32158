"""LiteLLM's Generic Guardrail API: what is answered to it, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

ROUTE = "/beta/litellm_basic_guardrail_api"
STREET, PILOT, PASSWORD = "Marlowe Street", "Wanda Ilke Sorm", "kestrel-nine-four"
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
    headers = {name: more.pop(name) for name in [*more] if name.startswith("x_")}
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
