"""Episodes and memory over HTTP: what the profile ``agentic`` leaves, and how it is erased."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from .conftest import Served, Server

QUESTION = {"role": "user", "content": "What is the capital of France?"}


def ask(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Any:
    status, _, data = server.ask(method, path, body, **headers)
    assert status == 200, data
    return orjson.loads(data)


def agentic(server: Server, **fields: Any) -> Any:
    body = {"model": "speaker@agentic", "messages": [QUESTION], **fields}
    return ask(server, "POST", "/v1/chat/completions", body)


def streamed(server: Server) -> list[Any]:
    body = {"model": "speaker@agentic", "messages": [QUESTION], "stream": True}
    status, _, data = server.ask("POST", "/v1/chat/completions", body)
    assert status == 200
    lines = [line.removeprefix(b"data: ") for line in data.split(b"\n\n") if line]
    assert lines[-1] == b"[DONE]"
    return [orjson.loads(line) for line in lines[:-1]]


@pytest.fixture(scope="module")
def server(served: Served) -> Any:
    with served(atlas={"router": {"explore": 0.0}}) as opened:
        yield opened


def test_each_answer_carries_its_episode_and_a_reward_closes_the_loop(server: Server) -> None:
    told = agentic(server)
    assert told["choices"][0]["message"]["content"] == "Paris is the capital."
    assert set(told["elision"]) == {"episode"}
    path = f"/v1/episodes/{told['elision']['episode']}"
    assert ask(server, "GET", path)["reward"] is None
    rewarded = ask(server, "POST", f"{path}/reward", {"reward": 1})
    assert rewarded == {"id": told["elision"]["episode"], "taken": True, "reward": 1.0}
    again = ask(server, "POST", f"{path}/reward", {"reward": 0})
    assert again == rewarded | {"taken": False}
    episode = ask(server, "GET", path)
    assert (episode["reward"], episode["rewarded_by"]) == (1.0, "human")
    assert {row["role"] for row in episode["spent"]} >= {"student", "teacher"}
    assert "France" not in orjson.dumps(episode).decode()


def test_a_streamed_answer_carries_it_in_its_last_chunk(server: Server) -> None:
    *_, last = streamed(server)
    assert set(last["elision"]) == {"episode"}
    assert last["choices"] == []


def test_other_profiles_carry_none(server: Server) -> None:
    body = {"model": "speaker", "messages": [QUESTION]}
    assert "elision" not in ask(server, "POST", "/v1/chat/completions", body)


def test_records_are_listed_shown_searched_and_counted(server: Server) -> None:
    agentic(server)
    page = ask(server, "GET", "/v1/memory/records?kind=episode&limit=1")["data"]
    [record] = page
    assert record["text"] == QUESTION["content"]
    assert record["namespace"] == ["chat"]
    assert ask(server, "GET", f"/v1/memory/records/{record['id']}") == record
    found = ask(server, "POST", "/v1/memory/search", {"query": "capital of France", "k": 1})
    assert found["data"][0]["similarity"] > 0.5
    assert found["code"] == "ok"
    assert ask(server, "GET", "/v1/memory/stats")["records"] >= 1


def test_what_a_target_concerns_is_offered_erased_and_receipted(served: Served) -> None:
    with served() as server:
        agentic(server)
        body = {"title": "a title", "phrases": ["capital of France"]}
        made = server.ask("POST", "/v1/forget", body)
        target = orjson.loads(made[2])["id"]
        offered = ask(server, "GET", f"/v1/forget/{target}/memory")
        assert offered["counts"]["records"] == 1
        wanted = {"target": target, "reason": "gdpr.17"}
        counted = ask(server, "POST", "/v1/memory/erase", {**wanted, "dry_run": True})
        assert counted["counts"] == offered["counts"]
        receipt = ask(server, "POST", "/v1/memory/erase", wanted)
        assert receipt["state"] == "verified"
        assert receipt["counts"]["records"] == 1
        assert ask(server, "GET", f"/v1/memory/erasures/{receipt['id']}") == receipt
        assert ask(server, "GET", "/v1/memory/erasures")["data"] == [receipt]
        assert ask(server, "GET", "/v1/memory/records")["data"] == []


def test_what_leaves_comes_back_and_what_was_erased_stays_away(served: Served) -> None:
    with served() as server:
        agentic(server)
        status, _, bundle = server.ask("GET", "/v1/memory/export")
        assert status == 200
        assert QUESTION["content"].encode() in bundle
        status, _, data = server.ask("POST", "/v1/memory/import", bundle)
        assert (status, orjson.loads(data)["records"]) == (201, 1)
        assert ask(server, "POST", "/v1/memory/erase", {"everything": True})["state"] == "verified"
        assert server.ask("POST", "/v1/memory/import", bundle)[0] == 201
        assert ask(server, "GET", "/v1/memory/records")["data"] == []
        assert server.ask("POST", "/v1/memory/import?revive=true", bundle)[0] == 201
        [record] = ask(server, "GET", "/v1/memory/records")["data"]
        assert record["text"] == QUESTION["content"]
        assert server.ask("POST", "/v1/memory/import", bundle[:-5])[0] == 400
        assert server.ask("POST", "/v1/memory/import?on_conflict=x", bundle)[0] == 400


def test_no_bundle_stays_behind_and_what_a_killed_server_left_goes(
    served: Served, tmp_path: Path
) -> None:
    left = tmp_path / "transfer" / "tmp1" / "memory.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text(QUESTION["content"])
    with served(home=tmp_path) as server:
        agentic(server)
        assert not left.exists()
        status, headers, bundle = server.ask("GET", "/v1/memory/export")
        assert (status, int(headers["content-length"])) == (200, len(bundle))
        assert server.ask("POST", "/v1/memory/import", bundle)[0] == 201
        assert server.ask("POST", "/v1/memory/import", bundle[:-5])[0] == 400
        assert list((tmp_path / "transfer").iterdir()) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/v1/memory/erase", {}, 400, "everything"),
        ("POST", "/v1/memory/erase", {"everything": True, "ids": []}, 400, "everything"),
        ("POST", "/v1/memory/erase", {"namespace": []}, 400, "everything"),
        ("POST", "/v1/memory/erase", {"target": "nobody"}, 404, None),
        ("POST", "/v1/memory/search", {}, 400, "query"),
        ("POST", "/v1/memory/search", {"query": "a", "kind": "x"}, 400, None),
        ("POST", "/v1/episodes/x/reward", {"reward": 1}, 404, None),
        ("POST", "/v1/episodes/x/reward", {"reward": 2}, 400, "reward"),
        ("GET", "/v1/memory/records/m_nobody", None, 404, None),
        ("POST", "/v1/memory/records/m_nobody/move", {"action": "erase"}, 400, "action"),
        ("GET", "/v1/memory/erasures/er_nobody", None, 404, None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_name(
    server: Server, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    seen, _, data = server.ask(method, path, body)
    assert seen == status, data
    assert orjson.loads(data)["error"]["param"] == param


def test_a_caller_of_text_gives_rewards_and_reads_no_memory(served: Served) -> None:
    keys = [
        {"name": "caller", "key": "c", "tenant": "one", "roles": ["service"]},
        {"name": "other", "key": "o", "tenant": "two", "roles": ["service", "operator"]},
    ]
    with served(keys=keys) as server:
        caller, other = ({"authorization": f"Bearer {key}"} for key in "co")
        body = {"model": "speaker@agentic", "messages": [QUESTION]}
        told = ask(server, "POST", "/v1/chat/completions", body, **caller)
        path = f"/v1/episodes/{told['elision']['episode']}"
        assert server.ask("GET", "/v1/memory/records", None, **caller)[0] == 403
        assert server.ask("POST", f"{path}/reward", {"reward": 1}, **other)[0] == 404
        assert server.ask("GET", path, None, **other)[0] == 404
        assert ask(server, "GET", "/v1/memory/records", **other)["data"] == []
        measured = {"reward": 0, "by": "checker"}
        assert server.ask("POST", f"{path}/reward", measured, **caller)[0] == 403
        assert ask(server, "POST", f"{path}/reward", {"reward": 1}, **caller)["taken"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_deadline_that_has_passed_is_an_error_streamed_or_not(
    server: Server, stream: bool
) -> None:
    body = {"model": "speaker@agentic", "messages": [QUESTION], "stream": stream}
    asked = body | {"elision": {"timeout_s": 1e-9}}
    assert server.ask("POST", "/v1/chat/completions", asked)[0] == 429


def test_a_server_that_learns_nothing_keeps_nothing(served: Served, tmp_path: Path) -> None:
    with served(learning="off", home=tmp_path) as server:
        assert "elision" not in agentic(server)
        assert not (tmp_path / "memory.db").exists()
