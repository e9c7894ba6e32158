"""How engines and the servers behind them are, told to who runs them and to nobody else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.vllm import VllmEngine

AWAY = "http://127.0.0.1:1/v1"


@pytest.fixture
def fleet() -> VllmEngine:
    return VllmEngine([Replica(AWAY, key="sk-of-theirs", weight=2)], name="m", secret="hush")


def test_an_operator_sees_each_server_and_what_keeps_guarded_requests_from_it(
    served: Any, fleet: VllmEngine
) -> None:
    with served(fleet) as server:
        status, _, page = server.ask("GET", "/v1/engines")
    (engine,) = orjson.loads(page)["data"]
    assert status == 200
    assert engine["id"] == "m"
    assert engine["stats"]["replicas"] == 1
    (replica,) = engine["replicas"]
    assert (replica["base_url"], replica["weight"]) == (AWAY, 2)
    assert (replica["is_healthy"], replica["is_proved"]) == (False, False)
    assert replica["why"]
    assert b"sk-of-theirs" not in page
    assert b"hush" not in page


def test_an_engine_of_this_process_has_no_servers(server: Any) -> None:
    status, _, page = server.ask("GET", "/v1/engines")
    (engine,) = orjson.loads(page)["data"]
    assert (status, engine["id"], engine["replicas"]) == (200, "speaker", [])


def test_who_only_asks_for_text_sees_no_address(served: Any, fleet: VllmEngine) -> None:
    keys = [{"name": "shop", "key": "of-the-shop", "roles": ["service"]}]
    with served(fleet, keys=keys) as server:
        status, _, page = server.ask("GET", "/v1/engines", authorization="Bearer of-the-shop")
        assert status == 403
        assert AWAY.encode() not in page
        assert server.ask("GET", "/v1/engines")[0] == 401
        status, _, page = server.ask("GET", "/readyz")
        assert (status, orjson.loads(page)) == (200, {"status": "ready"})
