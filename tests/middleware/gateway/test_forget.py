"""The register over HTTP: from a draft to a purge, and what it tells on the way."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from elision.guards.evidence.receipts import verify_receipt
from elision.guards.register.audit import verify_export
from elision.middleware.gateway.routes import PERMITTED

ROLES = {"requester": ["requester", "auditor"], "approver": ["approver"], "operator": ["operator"]}
KEYS = [{"name": name, "key": f"secret-of-{name}", "roles": roles} for name, roles in ROLES.items()]
TARGET = {"title": "t", "phrases": ["Rosebud Lane"]}
CANARY = "zanzibar-7731"


def ask(
    server: Any, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    status, seen, page = server.ask(method, path, body, **headers)
    return status, seen, orjson.loads(page)


def added(server: Any, **fields: Any) -> str:
    status, _, made = ask(server, "POST", "/v1/forget", TARGET | fields)
    assert status == 201, made
    return str(made["id"])


@pytest.fixture(scope="module")
def four_eyes(served: Any) -> Iterator[Any]:
    with served(keys=KEYS, approval="required") as server:
        yield server


def by(server: Any, who: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    status, _, page = ask(server, method, path, body, authorization=f"Bearer secret-of-{who}")
    return status, page


# --- life cycle -----------------------------------------------------------------------------------


def test_a_target_goes_from_draft_to_purged_by_three_hands(four_eyes: Any) -> None:
    status, made = by(four_eyes, "requester", "POST", "/v1/forget", TARGET | {"draft": True})
    assert (status, made["state"]) == (201, "draft")
    path = f"/v1/forget/{made['id']}"
    steps: list[tuple[str, str, Any, str]] = [
        ("requester", "preview", {"corpus": ["in Rosebud Lane", "elsewhere"]}, "previewed"),
        ("requester", "submit", None, "pending_approval"),
        ("approver", "approve", None, "active"),
        ("operator", "suspend", {"reason": "a complaint"}, "suspended"),
        ("operator", "resume", None, "active"),
        ("operator", "extend", {"expires_at": "2999-01-01T00:00:00Z"}, "active"),
        ("operator", "revoke", {"reason": "asked"}, "revoked"),
        ("operator", "purge", None, "purged"),
    ]
    epoch = made["epoch"]
    for who, operation, body, state in steps:
        status, page = by(four_eyes, who, "POST", f"{path}/{operation}", body)
        assert (status, page["state"]) == (200, state), operation
        assert page.get("epoch", epoch + 1) == (epoch := epoch + 1)
    _, shown = by(four_eyes, "operator", "GET", path)
    assert (shown["state"], shown["title"], shown["phrases"]) == ("purged", "", [])

    _, log = by(four_eyes, "requester", "GET", "/v1/audit?limit=1000")
    mine = [(e["actor"], e["action"]) for e in log["data"] if e["object_id"] == made["id"]]
    assert mine == [("requester", "add"), *((who, operation) for who, operation, *_ in steps)]


def test_what_the_state_does_not_allow_is_a_conflict_that_says_what_is_possible(
    four_eyes: Any,
) -> None:
    _, made = by(four_eyes, "requester", "POST", "/v1/forget", TARGET)
    for operation in ("suspend", "resume", "purge", "activate"):
        status, page = by(four_eyes, "operator", "POST", f"/v1/forget/{made['id']}/{operation}")
        assert (status, page["error"]["code"]) == (409, "illegal_transition")
        assert "possible now: approve, extend, revoke" in page["error"]["message"]


@pytest.mark.parametrize(
    ("operation", "body", "param"),
    [
        ("revoke", None, "reason"),
        ("revoke", {"reason": ""}, "reason"),
        ("revoke", {"reason": 3}, "reason"),
        ("suspend", {"reason": f"{CANARY}\n"}, "reason"),
        ("suspend", {"because": CANARY}, None),
        ("suspend", [CANARY], None),
        ("extend", {}, "expires_at"),
        ("extend", {"expires_at": CANARY}, "expires_at"),
        ("extend", {"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
    ],
)
def test_a_change_that_is_not_told_right_is_refused(
    server: Any, operation: str, body: Any, param: str | None
) -> None:
    target_id = added(server)
    status, _, page = ask(server, "POST", f"/v1/forget/{target_id}/{operation}", body)
    assert (status, page["error"]["param"]) == (400, param)
    assert CANARY not in page["error"]["message"]
    assert ask(server, "GET", f"/v1/forget/{target_id}")[2]["state"] == "active"


def test_a_revocation_by_delete_may_say_why(server: Any) -> None:
    target_id = added(server)
    status, headers, page = ask(server, "DELETE", f"/v1/forget/{target_id}?reason=asked")
    assert (status, page["state"], headers["x-forget-epoch"]) == (
        200,
        "revoked",
        str(page["epoch"]),
    )
    reasons = server.pipeline.register.reasons("default", target_id)
    assert [reason.text for reason in reasons] == ["asked"]


# --- registering ----------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_and_stores_nothing(server: Any) -> None:
    target_id = added(server, phrases=["12 Rosebud Lane"])
    before = ask(server, "GET", "/v1/forget?include_revoked=true")[2]["data"]
    status, headers, page = ask(server, "POST", "/v1/forget?dry_run=true", TARGET)
    assert (status, page["dry_run"], page["state"]) == (200, True, "active")
    assert page["self_test"]["leaked"] == 0
    assert (target_id, "within") in [(c["target_id"], c["kind"]) for c in page["collisions"]]
    assert "location" not in headers
    ahead = TARGET | {"effective_at": "2999-01-01T00:00:00Z"}
    many = ask(server, "POST", "/v1/forget/batch?dry_run=true", [TARGET | {"draft": True}, ahead])
    assert [item["state"] for item in many[2]["data"]] == ["draft", "scheduled"]
    assert ask(server, "GET", "/v1/forget?include_revoked=true")[2]["data"] == before


@pytest.mark.parametrize("path", ["/v1/forget", "/v1/forget/batch"])
def test_many_are_registered_together_or_not_at_all(server: Any, path: str) -> None:
    before = len(ask(server, "GET", "/v1/forget")[2]["data"])
    status, headers, page = ask(server, "POST", path, [TARGET, TARGET | {"title": "u"}])
    assert (status, len(page["data"])) == (201, 2)
    assert headers["x-forget-epoch"] == str(page["data"][-1]["epoch"])
    status, _, page = ask(server, "POST", path, [TARGET, {"title": "t", "phrases": ["?"]}])
    assert (status, page["error"]["param"]) == (400, "targets[1].phrases[0].text")
    assert len(ask(server, "GET", "/v1/forget")[2]["data"]) == before + 2


@pytest.mark.parametrize("body", [{}, {"targets": CANARY}, [], {"targets": []}, [CANARY]])
def test_what_is_no_batch_is_refused(server: Any, body: Any) -> None:
    status, _, page = ask(server, "POST", "/v1/forget/batch", body)
    assert (status, page["error"]["code"]) == (400, "invalid_target")
    assert CANARY not in page["error"]["message"]


def test_a_key_of_idempotency_makes_one_target_of_two_requests(server: Any) -> None:
    first = ask(server, "POST", "/v1/forget", TARGET, idempotency_key="k-1")
    again = ask(server, "POST", "/v1/forget", TARGET, idempotency_key="k-1")
    assert first[2] == again[2]
    assert ("idempotent-replayed" in first[1], "idempotent-replayed" in again[1]) == (False, True)
    other = ask(server, "POST", "/v1/forget", TARGET | {"title": "u"}, idempotency_key="k-1")
    assert (other[0], other[2]["error"]["code"]) == (409, "idempotency_conflict")
    status, _, page = ask(server, "POST", "/v1/forget", TARGET, idempotency_key="k " + CANARY)
    assert (status, page["error"]["param"]) == (400, "Idempotency-Key")
    assert CANARY not in page["error"]["message"]


# --- reading --------------------------------------------------------------------------------------


def test_a_list_is_read_by_states_and_page_by_page(served: Any) -> None:
    with served() as server:
        ids = [added(server, draft=n % 2 == 0) for n in range(5)]
        for wanted, expected in (
            ("state=active", ids[1::2]),
            ("state=draft", ids[::2]),
            ("state=draft&state=active", ids),
            ("include_revoked=true", ids),
        ):
            found: list[str] = []
            more, after = True, ""
            while more:
                page = ask(server, "GET", f"/v1/forget?{wanted}&limit=2{after}")[2]
                found += [target["id"] for target in page["data"]]
                more, after = page["has_more"], f"&after={found[-1]}"
            assert found == expected


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (f"state={CANARY}", "state"),
        (f"after={CANARY}", "after"),
        ("limit=0", "limit"),
        (f"limit={CANARY}", "limit"),
    ],
)
def test_a_list_that_cannot_be_given_is_refused(server: Any, query: str, param: str) -> None:
    status, _, page = ask(server, "GET", f"/v1/forget?{query}")
    assert (status, page["error"]["param"]) == (400, param)
    assert CANARY not in page["error"]["message"]


def test_a_receipt_verifies_with_the_key_that_is_published(server: Any) -> None:
    target_id = added(server)
    status, headers, receipt = ask(server, "GET", f"/v1/forget/{target_id}/receipt")
    key = ask(server, "GET", "/v1/audit/key")[2]
    assert (status, headers["x-forget-epoch"]) == (200, str(receipt["epoch"]))
    assert verify_receipt(receipt, key["public_key"])
    assert receipt["key_id"] == key["key_id"]
    assert not verify_receipt(receipt | {"epoch": receipt["epoch"] + 1}, key["public_key"])


def test_the_log_is_paged_verified_held_against_a_checkpoint_and_exported(server: Any) -> None:
    added(server)
    first = ask(server, "GET", "/v1/audit?limit=1")[2]
    rest = ask(server, "GET", f"/v1/audit?limit=1000&after={first['data'][0]['seq']}")[2]
    assert (len(first["data"]), rest["has_more"]) == (1, False)
    assert ask(server, "GET", "/v1/audit/verify")[2]["ok"]

    mark = ask(server, "GET", "/v1/audit/checkpoint")[2]
    assert ask(server, "POST", "/v1/audit/verify", mark)[2]["ok"]
    assert not ask(server, "POST", "/v1/audit/verify", mark | {"count": 10**6})[2]["ok"]
    assert ask(server, "POST", "/v1/audit/verify", {"seq": CANARY})[0] == 400

    key = ask(server, "GET", "/v1/audit/key")[2]["public_key"]
    _, headers, page = server.ask("GET", "/v1/audit/export")
    assert headers["content-type"] == "application/jsonl"
    assert verify_export(page.splitlines(), key).ok
    assert not verify_export(page.replace(b'"add"', b'"aid"', 1).splitlines(), key).ok


def test_an_export_is_taken_in_again_and_a_forged_one_is_not(server: Any) -> None:
    added(server)
    _, headers, page = server.ask("GET", "/v1/forget/export")
    jsonl = {"content_type": "application/jsonl"}
    status, _, done = ask(server, "POST", "/v1/forget/import", page, **jsonl)
    assert (status, done["n"], headers["content-type"]) == (201, 0, "application/jsonl")
    forged = page.replace(b"Rosebud", b"Zanzibar")
    status, _, page = ask(server, "POST", "/v1/forget/import", forged, **jsonl)
    assert (status, page["error"]["code"]) == (400, "invalid_target")
    assert "Zanzibar" not in page["error"]["message"]
    status, _, page = ask(server, "POST", "/v1/forget/import", {"a": 1})
    assert (status, page["error"]["param"]) == (400, "content-type")


# --- what it meets --------------------------------------------------------------------------------


def test_a_preview_counts_what_a_check_then_finds(server: Any) -> None:
    target_id = added(server, phrases=["Marlowe Street 9"], draft=True)
    corpus = ["in Marlowe Street 9", "in M a r l o w e Street 9", "nowhere"]
    path = f"/v1/forget/{target_id}"
    status, _, seen = ask(server, "POST", f"{path}/preview", {"corpus": corpus})
    assert (status, seen["state"], seen["blocked"]["hits"]) == (200, "previewed", 2)
    lines = b"\n".join(map(orjson.dumps, corpus))
    same = ask(server, "POST", f"{path}/preview", lines, content_type="application/jsonl")[2]
    assert same == seen
    ask(server, "POST", f"{path}/activate")
    verdicts = [ask(server, "POST", "/v1/check", {"text": text})[2]["verdict"] for text in corpus]
    assert verdicts == ["rewind", "rewind", "allow"]


def test_traffic_is_replayed_through_what_is_in_force_or_what_is_named(server: Any) -> None:
    target_id = added(server, phrases=["Marlowe Street 10"], draft=True)
    lines = [{"text": "Marlowe Street 10", "about": True}, "Marlowe Street 10, once", "no", "no"]
    status, _, named = ask(server, "POST", "/v1/impact", {"lines": lines, "targets": [target_id]})
    assert status == 200
    assert (named["false_positives"]["hits"], named["false_positives"]["n"]) == (1, 3)
    assert named["by_target"] == [{"target_id": target_id, "hits": 2, "lines": 2}]
    active = ask(server, "POST", "/v1/impact", {"lines": lines})[2]
    assert target_id not in [row["target_id"] for row in active["by_target"]]


def test_an_observing_target_counts_real_traffic_and_changes_nothing(served: Any) -> None:
    chat = {"model": "speaker", "messages": [{"role": "user", "content": "Hello"}]}
    with served() as server:
        before = ask(server, "POST", "/v1/chat/completions", chat)[2]["choices"]
        target_id = added(server, phrases=["Paris"], action="observe")
        for stream in (False, True):
            server.ask("POST", "/v1/chat/completions", chat | {"stream": stream, "n": 2})
        server.settles(4, "elision_observed_total")
        seen = ask(server, "GET", f"/v1/forget/{target_id}/impact")[2]
        assert (seen["observing"], seen["hits"], seen["replies"]) == (True, 4, 4)
        assert ask(server, "POST", "/v1/chat/completions", chat)[2]["choices"] == before
        quiet = added(server, phrases=["London"])
        seen = ask(server, "GET", f"/v1/forget/{quiet}/impact")[2]
        assert (seen["observing"], seen["hits"]) == (False, 0)
        _, _, page = server.ask("GET", "/metrics")
        assert target_id.encode() not in page


def test_a_check_reads_texts_and_conversations(server: Any) -> None:
    target_id = added(server, phrases=["Nightingale Square"])
    text = "It is bmlnaHRpbmdhbGUgc3F1YXJl."
    status, headers, page = ask(server, "POST", "/v1/check", {"text": text})
    assert (status, page["verdict"], page["covered"]) == (200, "rewind", True)
    assert int(headers["x-forget-epoch"]) == server.pipeline.register.epoch("default")
    [hit] = [hit for hit in page["hits"] if hit["target_id"] == target_id]
    assert "base64" in hit["level"]
    turns = [
        {"role": "assistant", "content": "It is Nightingale"},
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": "Square."},
    ]
    assert ask(server, "POST", "/v1/check", {"messages": turns})[2]["verdict"] == "rewind"
    assert ask(server, "POST", "/v1/check", {"text": "It is a square."})[2]["hits"] == []


def test_a_check_heeds_the_scope_of_a_target(server: Any) -> None:
    added(server, phrases=["Kestrel Avenue 5"], scope={"models": ["other"], "keys": []})
    body = {"text": "Kestrel Avenue 5"}
    for model, verdict in (("speaker", "allow"), ("other@plain", "rewind"), ("other", "rewind")):
        page = ask(server, "POST", "/v1/check", body | {"model": model})[2]
        assert page["verdict"] == verdict


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"text": CANARY, "messages": []},
        {"text": [CANARY]},
        {"text": CANARY, "mode": CANARY},
        {"text": CANARY, "model": 1},
        {"messages": CANARY},
        {"messages": []},
        {"messages": [{"content": CANARY}]},
        {"messages": [{"role": "user", "content": [CANARY]}]},
    ],
)
def test_what_cannot_be_checked_is_refused(server: Any, body: Any) -> None:
    status, _, page = ask(server, "POST", "/v1/check", body)
    assert status == 400
    assert CANARY not in page["error"]["message"]


# --- every response -------------------------------------------------------------------------------


def test_every_guarded_response_tells_its_epoch(server: Any) -> None:
    target_id = added(server)
    epoch = str(server.pipeline.register.epoch("default"))
    chat = {"model": "speaker", "messages": [{"role": "user", "content": "Hello"}]}
    text = {"model": "speaker", "prompt": ["Once", "Twice"]}
    for path, body in (
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat | {"stream": True}),
        ("/v1/completions", text),
        ("/v1/completions", text | {"stream": True}),
        ("/v1/check", {"text": "a"}),
    ):
        assert server.ask("POST", path, body)[1]["x-forget-epoch"] == epoch
    gone = server.ask("DELETE", f"/v1/forget/{target_id}")[1]
    assert int(gone["x-forget-epoch"]) == int(epoch) + 1


def test_every_route_describes_bodies_answers_errors_and_roles(server: Any) -> None:
    paths = ask(server, "GET", "/openapi.json")[2]["paths"]
    for path, methods in paths.items():
        for method, described in methods.items():
            where = f"{method} {path}"
            assert "422" not in described["responses"], where
            assert described["x-elision-roles"], where
            if not path.startswith(("/v1/forget", "/v1/audit", "/v1/impact", "/v1/check")):
                continue
            told = described["responses"]
            done = next(value for code, value in told.items() if code.startswith("2"))
            assert all(value["schema"] for value in done["content"].values()), where
            errors = [value for code, value in told.items() if code.startswith("4")]
            assert len(errors) >= 1, where
            envelope = {"$ref": "#/components/schemas/Error"}
            assert all(e["content"]["application/json"]["schema"] == envelope
                       for e in errors), where  # fmt: skip
    assert len(paths) == len({label for _, label in PERMITTED}) - 1


def test_nothing_of_a_target_reaches_a_log_a_label_or_an_error(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    target = {"title": CANARY, "names": [CANARY], "phrases": [f"{CANARY} lane"], "case_ref": CANARY}
    with caplog.at_level(logging.DEBUG):
        target_id = added(server, **target)
        path = f"/v1/forget/{target_id}"
        told = [
            server.ask("POST", "/v1/forget?dry_run=true", target),
            server.ask("POST", f"{path}/preview", {"corpus": [f"{CANARY} lane"]}),
            server.ask("POST", "/v1/impact", {"lines": [f"{CANARY} lane"]}),
            server.ask("POST", "/v1/check", {"text": f"{CANARY} lane"}),
            server.ask("GET", f"{path}/receipt"),
            server.ask("GET", f"{path}/impact"),
            server.ask("POST", f"{path}/resume", {"reason": CANARY}),
            server.ask("POST", f"{path}/revoke", {"reason": CANARY}),
            server.ask("GET", "/v1/audit?limit=1000"),
            server.ask("GET", "/v1/audit/export"),
            server.ask("POST", f"{path}/purge", {"reason": CANARY}),
            server.ask("POST", f"/v1/forget/{CANARY}/revoke", {"reason": CANARY}),
            server.ask("POST", f"/v1/forget?{CANARY}={CANARY}", {CANARY: CANARY}),
            server.ask("POST", "/v1/forget/import", f'["{CANARY}"'.encode(),
                       content_type="application/jsonl"),
            server.ask("GET", "/metrics"),
        ]  # fmt: skip
    for status, headers, page in told:
        assert status < 500
        assert CANARY.encode() not in page
        assert CANARY not in str(headers)
    assert CANARY not in caplog.text
