"""The description of the routes is true: whatever is sent, the answer keeps to it.

Schemathesis makes requests out of ``/openapi.json``, such as keep to it and such as do not, and
holds every answer against it. ``make fuzz`` tries more of them than CI does.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.python import asgi

from elision.middleware.agentic.agentic import Agentic
from elision.middleware.assembly import open_register
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.gateway.app import create_app
from elision.middleware.gateway.body import DEEPEST
from elision.middleware.gateway.routes import PERMITTED, route_label
from elision.middleware.pipeline import Pipeline
from elision.middleware.remembering import MemorySource, atlas_config, open_memory
from elision.settings import Settings
from elision.testing.encoders import BagEncoder
from elision.testing.models import tiny_model
from elision.testing.text_engine import TextEngine
from elision.testing.tokenizers import byte_tokenizer

CASES = int(os.environ.get("ELISION_FUZZ_CASES", "300"))
SEED = int(os.environ.get("ELISION_FUZZ_SEED", "0"))
KEY = {"authorization": "Bearer of-the-fuzzer"}
ROUTES = sorted(route for route in PERMITTED if route[1] != "/openapi.json")
LEFT_OUT = ("positive_data_acceptance", "ignored_auth")
"""Not every target makes sense though its fields do; who may call is tried below."""


@schemathesis.serializer("application/jsonl")
def _lines(_context: Any, value: Any) -> bytes:
    rows = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class Gateway:
    """An application without a socket, and its description as schemathesis reads it."""

    client: Any
    whole: Any
    operations: Mapping[tuple[str, str], Any]
    headers: Mapping[str, str]
    paths: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    schemas: Mapping[str, Any] = field(default_factory=dict)
    tried: Counter[tuple[str, str]] = field(default_factory=Counter)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://testserver{path}"
        return self.client.request(method, url, data=data, headers={**self.headers, **named})

    def get(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.ask(method, path, body)
        assert answer.status_code < 300, answer.content
        return answer.json()

    @property
    def share(self) -> int:
        """How many cases each route gets of which there is more than one."""
        return ceil(1.2 * CASES / sum(map(_varies, self.operations.values())))


def _varies(operation: Any) -> bool:
    return bool(operation.body or operation.path_parameters or operation.query)


class _Lasting:
    """An application that lives on, where schemathesis would shut it down after every test."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("there is no lifespan here")
        await self._app(scope, receive, send)


def _opened(home: Path, **options: Any) -> tuple[Any, Pipeline]:
    chosen = Settings(home=home, **options)
    register, tokenizer = open_register(chosen), byte_tokenizer()
    local = CausalModel(tiny_model(vocab_size=len(tokenizer)), tokenizer, name="tiny")
    engines = {"tiny": LocalEngine(local), "speaker": TextEngine("It rains.", name="speaker")}
    source = MemorySource(lambda: open_memory(chosen, register))
    pipeline = Pipeline(
        engines=engines,
        register=register,
        encoder=BagEncoder(),
        agentic=Agentic(source, atlas_config(chosen)),
    )
    return create_app(pipeline, chosen), pipeline


@pytest.fixture(scope="module", params=["with a key", "open"])
def gateway(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keyed = request.param != "open"
    options = {"api_key": "of-the-fuzzer"} if keyed else {}
    app, pipeline = _opened(tmp_path_factory.mktemp("home"), **options)
    lasting = _Lasting(app)
    headers = KEY if keyed else {}
    config = schemathesis.Config.from_dict(
        {
            "generation": {"with-security-parameters": False},
            "checks": {name: {"enabled": False} for name in LEFT_OUT},
        }
    )
    with asgi.get_client(lasting) as client:
        found = schemathesis.openapi.from_asgi(
            "/openapi.json", lasting, headers=dict(headers), config=config
        )
        operations = [result.ok() for result in found.get_all_operations()]
        named = {(one.method.upper(), route_label(one.path)): one for one in operations}
        told = app.openapi()
        paths = {
            (method.upper(), route_label(path)): operation
            for path, methods in told["paths"].items()
            for method, operation in methods.items()
        }
        yield Gateway(client, found, named, headers, paths, told["components"]["schemas"])
    asyncio.run(pipeline.aclose())


# --- whatever is sent ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_answers_keep_to_the_description(gateway: Gateway, route: tuple[str, str]) -> None:
    operation = gateway.operations[route]
    modes = [GenerationMode.POSITIVE]
    if operation.body or operation.query:
        modes.append(GenerationMode.NEGATIVE)
    n_cases = gateway.share if _varies(operation) else 1
    for mode in modes:
        _try(gateway, operation.as_strategy(generation_mode=mode), ceil(n_cases / len(modes) / 2))


def _try(gateway: Gateway, cases: Any, n_cases: int) -> None:
    known = _known(gateway)

    @seed(SEED)
    @settings(
        max_examples=n_cases,
        derandomize=False,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(case=cases, draw=st.randoms(use_true_random=False))
    def hold(case: Any, draw: Any) -> None:
        _settle(case, known, draw)
        _check(gateway, case)

    hold()


def _known(gateway: Gateway) -> Mapping[str, list[str]]:
    """Return ids that there are, or all answers would be 404: targets of several states.

    What earlier cases have registered is revoked: it would weigh on every reply.
    """
    for target in gateway.get("GET", "/v1/forget")["data"]:
        gateway.ask("DELETE", f"/v1/forget/{target['id']}")
    ids = []
    for n, fields in enumerate(({"draft": True}, {}, {"action": "observe"}, {"action": "refuse"})):
        body = {"title": f"target {n}", "phrases": [f"Rosebud Lane {n}"], **fields}
        ids.append(gateway.get("POST", "/v1/forget", body)["id"])
    chat = {"model": "speaker@agentic", "messages": [{"role": "user", "content": "Does it rain?"}]}
    episode = gateway.get("POST", "/v1/chat/completions", chat)["elision"]["episode"]
    records = gateway.get("GET", "/v1/memory/records")["data"]
    return {
        "target_id": ids,
        "episode_id": [episode],
        "record_id": [record["id"] for record in records[-2:]],
        "model": ["tiny", "speaker", "tiny@focused", "speaker@guarded"],
    }


def _settle(case: Any, known: Mapping[str, list[str]], draw: Any) -> None:
    """Give three in four cases ids and models that there are; let none of them write much."""
    for name in case.path_parameters:
        if name in known and draw.random() < 0.75:
            case.path_parameters[name] = draw.choice(known[name])
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("model"), str) and draw.random() < 0.9:
        body["model"] = draw.choice(known["model"])
        if isinstance(body.get("n"), int):
            body["n"] = min(body["n"], 2)
        for name, most in (
            ("max_tokens", 4),
            ("max_completion_tokens", 4),
            ("max_output_tokens", 16),
        ):
            if isinstance(body.get(name), int):
                body[name] = min(body[name], most)
        if "responses" in case.path:
            body.setdefault("max_output_tokens", 16)
        elif "completions" in case.path and body.get("max_completion_tokens") is None:
            body.setdefault("max_tokens", 4)


def _check(gateway: Gateway, case: Any) -> None:
    label = (case.method, route_label(case.path))
    gateway.tried[label] += 1
    answer = case.call(session=gateway.client, headers=dict(gateway.headers))
    case.validate_response(
        answer,
        headers=dict(gateway.headers),
        transport_kwargs={"session": gateway.client},
    )
    hold_to_the_envelope(answer.status_code, answer.headers, answer.content)


def hold_to_the_envelope(status: int, headers: Any, data: bytes) -> None:
    """Assert what holds of every answer, whatever the route."""
    named = {key.lower(): value for key, value in dict(headers).items()}
    assert named.get("x-request-id")
    if status in (429, 503):
        assert named.get("retry-after")
    if status >= 400:
        error = orjson.loads(data)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["type"]


@pytest.mark.slow
def test_what_one_route_makes_others_take(gateway: Gateway) -> None:
    """Targets and responses go through their lives, in any order that the links allow."""
    steps: Counter[tuple[str, int]] = Counter()

    class Lives(gateway.whole.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, _case: Any) -> dict[str, Any]:
            return {"session": gateway.client, "headers": dict(gateway.headers)}

        def validate_response(self, response: Any, case: Any, **options: Any) -> None:
            steps[case.path, response.status_code] += 1
            super().validate_response(response, case, **options)
            hold_to_the_envelope(response.status_code, response.headers, response.content)

    Lives.run(
        settings=settings(
            max_examples=max(5, CASES // 30),
            stateful_step_count=8,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
    )
    reached = {path for path, status in steps if "{" in path and status < 300}
    assert reached, "no case had the id of anything that there is"


@pytest.mark.slow
def test_as_many_cases_were_tried_as_were_asked_for(gateway: Gateway) -> None:
    missing = [" ".join(route) for route in ROUTES if not gateway.tried[route]]
    if missing:
        pytest.skip("not all routes were tried")
    assert gateway.tried.total() >= CASES / 2  # the other half at the other gateway


# --- what is no request ---------------------------------------------------------------------------

WITH_BODIES = sorted(route for route in ROUTES if route[0] == "POST")
NO_JSON = (
    b"{", b"[", b'"', b"nul", b"{]", b"'a'", b"{'a': 1}", b"NaN", b"[NaN]", b"Infinity", b"01",
    b"\xef\xbb\xbf{}", b"\xff\xfe", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"{} {}", b"\x00",
    b"[" * 100_000, b'{"a":' * 100_000,
)  # fmt: skip
"""Cut, of another language, of another encoding, without an end."""


def _deep(n: int) -> Any:
    inner: Any = "text"
    for level in range(n):
        inner = [inner] if level % 2 else {"properties": inner, "type": "object"}
    return inner


STRANGE = (
    None, {}, [], "", 0, -1, 1e308, 2**63, True, "\x00", [None], {"": {}}, [[[]]], ["a"] * 300,
    "a" * 20_000, _deep(40), _deep(400), [_deep(400)],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("route", WITH_BODIES, ids=" ".join)
def test_a_body_that_is_no_json_is_refused(gateway: Gateway, route: tuple[str, str]) -> None:
    path = route[1].replace("{id}", "ft_00000000000000000000")
    for body in NO_JSON:
        for kind in ("application/json", "application/jsonl", "text/plain"):
            answer = gateway.ask("POST", path, body, content_type=kind)
            assert 400 <= answer.status_code < 500, (body[:20], kind, answer.content)
            hold_to_the_envelope(answer.status_code, answer.headers, answer.content)


@pytest.mark.slow
@pytest.mark.parametrize("route", WITH_BODIES, ids=" ".join)
def test_a_strange_value_in_any_field_breaks_nothing_and_is_taken_where_that_is_said(
    gateway: Gateway, route: tuple[str, str]
) -> None:
    known = _known(gateway)
    for schema, example in described(gateway, route):
        rooted = schema | {"components": {"schemas": dict(gateway.schemas)}}
        is_described = jsonschema.Draft202012Validator(rooted).is_valid
        for name in (*schema.get("properties", {}), "unknown"):
            for strange in STRANGE:
                body = example | {name: strange}
                path = filled(route[1], known)
                answer = gateway.ask("POST", path, body)
                assert answer.status_code < 500, (name, str(strange)[:30], answer.content)
                hold_to_the_envelope(answer.status_code, answer.headers, answer.content)
                if answer.status_code < 300 and (name, strange) != ("unknown", None):
                    assert is_described(body), (name, str(strange)[:30])
                    known = _known(gateway) if "{id}" in route[1] else known


def described(gateway: Gateway, route: tuple[str, str]) -> Iterator[tuple[Any, Any]]:
    """Yield the schema of a route's JSON body with each of its examples."""
    for content in gateway.paths[route].get("requestBody", {}).get("content", {}).items():
        media, told = content
        schema = told["schema"].get("anyOf", [told["schema"]])[0]  # others are lists of it
        if "$ref" in schema:
            schema = gateway.schemas[schema["$ref"].rpartition("/")[2]]
        if media == "application/json":
            examples = [told["example"]] if "example" in told else schema["examples"]
            yield from ((schema, example) for example in examples)


def test_a_body_is_nested_no_deeper_than_what_can_be_written_again(gateway: Gateway) -> None:
    def nested(levels: int) -> Any:
        inner: Any = []
        for _ in range(levels - 2):  # one is the body, one the innermost
            inner = [inner]
        chat = {"model": "speaker", "messages": [{"role": "user", "content": "Does it rain?"}]}
        return gateway.ask("POST", "/v1/chat/completions", chat | {"metadata": inner})

    assert nested(DEEPEST).status_code == 200
    refused = nested(DEEPEST + 1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_json")


# --- the examples ---------------------------------------------------------------------------------


@pytest.mark.parametrize("route", WITH_BODIES, ids=" ".join)
def test_every_example_keeps_to_its_schema_and_is_taken(
    gateway: Gateway, route: tuple[str, str]
) -> None:
    known = _known(gateway)
    for schema, example in described(gateway, route):
        rooted = schema | {"components": {"schemas": dict(gateway.schemas)}}
        jsonschema.Draft202012Validator(rooted).validate(example)
        body = dict(example)
        if "model" in body:
            body |= {"max_tokens": 2} if "completions" in route[1] else {}
            body |= {"max_output_tokens": 16} if "responses" in route[1] else {}
            body["model"] = "bag" if "embeddings" in route[1] else "tiny"
        answer = gateway.ask("POST", filled(route[1], known), body)
        taken = (404, 409) if "records" in route[1] else (409,)  # no entry there; in that state
        assert answer.status_code < 300 or answer.status_code in taken, answer.content


def filled(path: str, known: Mapping[str, list[str]]) -> str:
    """Return the path with an id that there is."""
    kind = "episode_id" if "episodes" in path else "target_id"
    kind = "record_id" if "records" in path else kind
    return path.replace("{id}", known[kind][1 % len(known[kind])])


def test_the_description_is_openapi(gateway: Gateway) -> None:
    """Every operation has an id of its own, says what it does and what each answer holds."""
    ids = [operation["operationId"] for operation in gateway.paths.values()]
    assert len(set(ids)) == len(ids) == len(PERMITTED) - 1
    for route, operation in gateway.paths.items():
        assert operation["description"] or operation["summary"], route
        for status, answer in operation["responses"].items():
            assert answer["description"], (route, status)
            assert all(told["schema"] for told in answer["content"].values()), (route, status)
            assert "x-request-id" in answer["headers"]
            if int(status) >= 400 and (route[1], status) != ("/readyz", "503"):
                told = answer["content"]["application/json"]["schema"]
                assert told == {"$ref": "#/components/schemas/Error"}
    for schema in gateway.schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_without_its_key_a_route_gives_nothing(gateway: Gateway, route: tuple[str, str]) -> None:
    method, label = route
    security = gateway.paths[route]["security"]
    answer = gateway.ask(method, label.replace("{id}", "x"), b"{}", authorization="Bearer wrong")
    assert (answer.status_code == 401) == bool(security)
    foreign = gateway.ask(method, label.replace("{id}", "x"), origin="https://elsewhere.example")
    assert (foreign.status_code == 403) == (not security)
