"""Metrics: labels come from closed sets, whatever is sent; each is counted where it should be."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from elision.contract import Delta, Usage
from elision.errors import ElisionError
from elision.middleware.gateway.limits.meter import Meter
from elision.middleware.gateway.metrics import Metrics
from elision.middleware.gateway.routes import PERMITTED
from elision.testing.text_engine import TextEngine

PATH = "/v1/chat/completions"
WORDS = ("Quetzalcoatl", "zanzibar", "tenant-of-mine", "ft_0123456789", "k-secret", "ada")
STATUS = {"1xx", "2xx", "3xx", "4xx", "5xx", "0xx", "client gone"}
KINDS = {
    "elision_tokens": {"prompt", "completion", "cached"},
    "elision_rate_limited": {"requests", "tokens", "budget"},
    "elision_interventions": {
        "masked", "verbatim", "entropy", "temperature", "reinforced", "redacted", "refused",
        "mti", "cfg", "cad", "contrast", "cd", "uld", "delta",
    },
}  # fmt: skip


def errors(root: type[ElisionError] = ElisionError) -> set[str]:
    return {root.__name__}.union(*(errors(leaf) for leaf in root.__subclasses__()))


def samples(page: bytes) -> Iterator[tuple[str, dict[str, str]]]:
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            yield family.name, sample.labels


def is_closed(family: str, name: str, value: str) -> bool:
    match name:
        case "route":
            return value in {label for _, label in PERMITTED} | {"other"}
        case "status":
            return value in STATUS
        case "error":
            return value in errors() | {"unforeseen", "ClientDisconnect"}
        case "kind":
            return value in KINDS[family.removesuffix("_created")]
        case "le":
            return float(value) >= 0
    return False


def whatever(rng: random.Random) -> tuple[str, str, Any]:
    word = rng.choice(WORDS)
    paths = [
        *(path for _, path in PERMITTED),
        f"/{word}",
        f"/v1/forget/{word}",
        f"/v1/{word}/x",
    ] + [PATH] * 30
    body: Any = {
        "model": rng.choice(["speaker", f"speaker@{word}", word]),
        "messages": [{"role": rng.choice(["user", word]), "content": word}],
        "stream": rng.choice([True, False]),
        "n": rng.choice([1, 2, 99]),
        "prompt": word,
        "input": word,
        word: word,
    }
    body = rng.choice([body, body, body, word.encode(), [word], None])
    return rng.choice(["GET", "POST", "POST", "POST", "DELETE", "PUT"]), rng.choice(paths), body


def test_under_any_requests_labels_stay_in_their_closed_sets(served: Any) -> None:
    rng = random.Random(11)
    keys = [{"name": "ada", "key": "k-secret", "tenant": "tenant-of-mine",
             "roles": ["service", "operator", "requester"],
             "limits": {"requests_per_minute": 20, "tokens_per_minute": 4000, "token_budget": 3000},
             }]  # fmt: skip
    with served(keys=keys) as server:
        for index in range(150):
            method, path, body = whatever(rng)
            server.engine.error = ValueError(WORDS[0]) if index % 7 == 0 else None
            sent = {"authorization": f"Bearer {'k-secret' if index % 5 else 'wrong'}"}
            server.ask(method, path.replace("{id}", rng.choice(WORDS)), body, **sent)
        _, _, page = server.ask("GET", "/metrics")
    found = list(samples(page))

    assert {name for name, _ in found} > {"elision_failures", "elision_rate_limited"}
    ours = [(f, n, v) for f, labels in found for n, v in labels.items() if f.startswith("elision")]
    assert [one for one in ours if not is_closed(*one)] == []
    assert [word for word in WORDS if word in page.decode()] == []
    assert len(ours) < 3000


async def said(*deltas: Delta) -> AsyncIterator[Delta]:
    for delta in deltas:
        yield delta


async def watched(metrics: Metrics, *deltas: Delta, meter: Meter | None = None) -> dict[str, float]:
    assert [d async for d in metrics.watch(said(*deltas), 0.0, meter)] == list(deltas)
    pages = text_string_to_metric_families(metrics.expose().decode())
    return {
        f"{sample.name}{''.join(sample.labels.values())}": sample.value
        for family in pages
        for sample in family.samples
        if sample.name.endswith("_total") and sample.name.startswith("elision")
    }


async def test_what_acted_is_counted_once_a_reply_and_rewinds_each() -> None:
    usage = Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3)
    report = {
        "notes": {"guard.masked": 0.3, "mti_guided": 7, "mti_gate_seen": 9, "zanzibar": 1},
        "usage": {"n_rewinds": 2},
    }
    held = {"n_rewinds": 1, "n_redacted": 4, "n_refused": 0}
    last = Delta(usage=usage, report={"requests": [report, report, held]})
    found = await watched(Metrics(), Delta(text="a"), Delta(finish="content_filter"), last)

    assert found == {
        "elision_tokens_totalprompt": 5,
        "elision_tokens_totalcompletion": 2,
        "elision_tokens_totalcached": 3,
        "elision_rewinds_total": 5,
        "elision_observed_total": 0,
        "elision_interventions_totalmasked": 1,
        "elision_interventions_totalmti": 1,
        "elision_interventions_totalredacted": 1,
        "elision_interventions_totalrefused": 1,
    }


async def test_a_reply_without_a_report_counts_its_tokens_alone() -> None:
    found = await watched(Metrics(), Delta(text="a"), Delta(usage=Usage(completion_tokens=1)))
    assert found["elision_tokens_totalcompletion"] == 1
    assert not [name for name in found if name.startswith("elision_interventions")]


@pytest.mark.parametrize("ends", [True, False])
async def test_a_meter_is_told_what_left_also_where_the_reply_breaks_off(ends: bool) -> None:
    meter = Meter()
    deltas = [Delta(text="abcd"), Delta(message={"tool_calls": []}), Delta(text="é" * 8)]
    source = Metrics().watch(said(*deltas, Delta(usage=Usage(completion_tokens=9))), 0.0, meter)
    async for _ in source:
        if not ends:
            break
    await source.aclose()  # type: ignore[attr-defined]
    assert meter._written == (16 if ends else 4)
    assert (meter.usage is not None) == ends


@pytest.mark.parametrize(
    ("piece", "at_least"),
    [
        (Delta(message={"reasoning_content": "x" * 4000}), 4000),
        (Delta(message={"tool_calls": [{"function": {"arguments": "y" * 4000}}]}), 4000),
        (Delta(message={"tool_calls": [{"function": {"arguments": {"z" * 4000: 1}}}]}), 4000),
        (Delta(text="a" * 40, message={"reasoning_content": "x" * 4000}), 4040),
        (Delta(message={"deep": [[[[["x" * 4000]]]]]}), 4000),
        (Delta(message={"audio": None}), 4),
    ],
)
async def test_a_piece_without_text_counts_as_long_as_it_is(piece: Delta, at_least: int) -> None:
    meter = Meter()
    await watched(Metrics(), piece, meter=meter)
    assert at_least <= meter._written <= at_least + 40


async def test_a_piece_of_any_depth_is_counted() -> None:
    meter, deep = Meter(), list[Any](["x" * 50])
    for _ in range(5000):
        deep = [deep]
    await watched(Metrics(), Delta(message={"deep": deep}), meter=meter)
    assert meter._written == 50


def test_a_real_replys_counts_are_on_the_page(server: Any) -> None:
    before = server.metric("elision_tokens_total", kind="completion")
    body = {"model": "speaker", "messages": [{"role": "user", "content": "x"}]}
    status, _, page = server.ask("POST", PATH, body)
    assert (status, orjson.loads(page)["usage"]["completion_tokens"]) == (200, 5)
    server.settles(before + 5, "elision_tokens_total", kind="completion")
    server.settles(0, "elision_rewinds_total")


def test_what_held_text_meets_is_counted_on_a_running_server(served: Any) -> None:
    body = {"model": "text", "messages": [{"role": "user", "content": "x"}]}
    with served(TextEngine("Paris is in Marlowe Street. Who is Ysolde Marchetti?")) as server:
        for phrase, action in (("Marlowe Street", "redact"), ("Ysolde Marchetti", "refuse")):
            target = {"title": "t", "phrases": [phrase], "action": action}
            assert server.ask("POST", "/v1/forget", target)[0] == 201
            status, _, page = server.ask("POST", PATH, body)
            assert (status, phrase.encode() in page) == (200, False)
        server.settles(1, "elision_interventions_total", kind="refused")
        assert server.metric("elision_interventions_total", kind="redacted") >= 1
