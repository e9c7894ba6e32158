"""Keys and roles: who may take which route, and that no tenant meets another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from fastapi import FastAPI

from elision.errors import ConfigError
from elision.middleware.gateway.routes import PERMITTED, check_table, lacking, route_label
from elision.settings import ROLES, Settings

KEYS = [
    {"name": role, "key": f"secret-of-{role}", "roles": [role], "tenant": "a"} for role in ROLES
]
BOTH = ["requester", "operator", "auditor", "service"]
OTHERS = [
    {"name": "hashed", "sha256": hashlib.sha256(b"secret-of-b").hexdigest(), "tenant": "b",
     "roles": BOTH},
    {"name": "both", "key": "secret-of-both", "tenant": "a", "roles": BOTH},
]  # fmt: skip
TARGET = {"title": "t", "phrases": ["Rosebud Lane"], "case_ref": "Rosebud 1"}


@pytest.fixture(scope="module")
def keyed(served: Any) -> Iterator[Any]:
    with served(keys=[*KEYS, *OTHERS]) as server:
        yield server


def ask(server: Any, who: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    status, _, page = server.ask(method, path, body, authorization=f"Bearer secret-of-{who}")
    try:
        return status, orjson.loads(page)
    except orjson.JSONDecodeError:  # metrics, and what is one JSON value a line
        return status, page


def added(server: Any, who: str, **fields: Any) -> str:
    status, made = ask(server, who, "POST", "/v1/forget", TARGET | fields)
    assert status == 201, made
    return str(made["id"])


# --- every role on every route --------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_the_table_says_and_nothing_else(keyed: Any, role: str) -> None:
    for (method, label), permitted in PERMITTED.items():
        path = label.replace("{id}", "ft_00000000000000000000")
        status, page = ask(keyed, role, method, path, None if method == "GET" else {})
        refused = status == 403 and page["error"]["code"] == "role_missing"
        assert refused == (role not in permitted), (method, label, status)
        if refused:
            assert all(repr(wanted) in page["error"]["message"] for wanted in permitted)


def test_every_route_is_in_the_table(keyed: Any) -> None:
    app = keyed.listener.config.app
    check_table(app)
    described = {
        (method.upper(), route_label(path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    assert described == {key for key in PERMITTED if key != ("GET", "/openapi.json")}


def test_a_route_without_roles_keeps_the_server_from_starting() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/v1/forget/{target_id}/rename", lambda: None, methods=["POST"])
    with pytest.raises(ConfigError, match="no roles"):
        check_table(app)


@pytest.mark.parametrize(
    "path", ["/v1/forget/x/y", "/v1/forget/", "/v1/forget//", "/v1/audits", "/v1/forget/x/purge/"]
)
def test_what_is_no_route_has_no_label_of_its_own(keyed: Any, path: str) -> None:
    assert route_label(path) in {"other", "/v1/forget/{id}"}
    assert ask(keyed, "service", "POST", path, {})[0] in {403, 404, 405}


def test_a_head_request_needs_what_its_get_needs() -> None:
    assert lacking(frozenset({"service"}), "HEAD", "/v1/audit") == {"auditor"}


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_may_be_given_as_its_digest_and_is_bound_to_its_tenant(keyed: Any) -> None:
    before = ask(keyed, "b", "GET", "/v1/forget")[1]["data"]
    target_id = added(keyed, "b")
    status, shown = ask(keyed, "b", "GET", f"/v1/forget/{target_id}")
    assert (status, shown["tenant"], shown["requested_by"]) == (200, "b", "hashed")
    assert len(ask(keyed, "b", "GET", "/v1/forget")[1]["data"]) == len(before) + 1


@pytest.mark.parametrize("sent", ["secret-of-nobody", "", "secret-of-", "hashed", "é"])
def test_a_key_that_is_none_of_the_servers_is_refused(keyed: Any, sent: str) -> None:
    status, _, page = keyed.ask("GET", "/v1/models", authorization=f"Bearer {sent}")
    assert (status, orjson.loads(page)["error"]["code"]) == (401, "invalid_api_key")


def test_the_single_key_has_every_role_and_still_cannot_approve_its_own(served: Any) -> None:
    with served(api_key="k", approval="required") as server:

        def post(path: str, body: Any = None) -> tuple[int, Any]:
            status, _, page = server.ask("POST", path, body, authorization="Bearer k")
            return status, orjson.loads(page)

        status, made = post("/v1/forget", TARGET)
        assert (status, made["state"]) == (201, "pending_approval")
        status, page = post(f"/v1/forget/{made['id']}/approve")
        assert (status, page["error"]["type"]) == (403, "permission_error")
        assert "somebody else" in page["error"]["message"]


@pytest.mark.parametrize(
    "keys",
    [
        [{"name": "a", "roles": ["service"]}],
        [{"name": "a", "key": "k", "sha256": "0" * 64}],
        [{"name": "a", "key": ""}],
        [{"name": "a", "key": "zanzibar-7731"}, {"name": "a", "key": "other"}],
        [{"name": "a", "key": "zanzibar-7731"}, {"name": "b", "key": "zanzibar-7731"}],
        [{"name": "a", "key": "zanzibar-7731", "roles": ["king"]}],
        [{"name": "api_key", "key": "zanzibar-7731"}],
        [{"name": "no blanks", "key": "zanzibar-7731"}],
    ],
)
def test_keys_that_cannot_be_told_apart_are_refused_and_not_shown(
    home: Any, keys: list[dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match=r"key|roles|name") as refused:
        Settings(api_key="another", keys=keys)
    assert "zanzibar" not in str(refused.value)


# --- what is withheld -----------------------------------------------------------------------------


def test_an_auditor_reads_the_record_without_its_words(keyed: Any) -> None:
    target_id = added(keyed, "both")
    for path in (f"/v1/forget/{target_id}", "/v1/forget"):
        status, page = ask(keyed, "auditor", "GET", path)
        assert status == 200
        assert "Rosebud" not in str(page)
    shown = ask(keyed, "auditor", "GET", f"/v1/forget/{target_id}")[1]
    assert shown["withheld"] == ["title", "phrases", "case_ref"]
    assert (shown["state"], shown["requested_by"]) == ("active", "both")
    assert "Rosebud" in str(ask(keyed, "approver", "GET", f"/v1/forget/{target_id}")[1])


def test_only_operators_see_examples(keyed: Any) -> None:
    target_id = added(keyed, "both", draft=True)
    path, body = f"/v1/forget/{target_id}/preview", {"corpus": ["by Rosebud Lane"]}
    assert ask(keyed, "both", "POST", path, body)[1]["examples"][0]["excerpt"] == "by █████"
    assert "examples" not in ask(keyed, "requester", "POST", path, body)[1]


# --- tenants --------------------------------------------------------------------------------------


def test_no_route_shows_or_moves_another_tenants_target(keyed: Any) -> None:
    mine = added(keyed, "both")
    for method, label in PERMITTED:
        if not label.startswith("/v1/forget/{id}") or label.endswith("approve"):
            continue
        body = {"reason": "r", "expires_at": None} if label.endswith("extend") else {"reason": "r"}
        body = {"corpus": []} if label.endswith("preview") else body
        path = label.replace("{id}", mine)
        status, page = ask(keyed, "b", method, path, None if method == "GET" else body)
        assert (status, page["error"]["code"]) == (404, "target_not_found"), (method, label)
    assert ask(keyed, "both", "GET", f"/v1/forget/{mine}")[1]["state"] == "active"


def test_lists_exports_checks_and_logs_are_the_tenants_own(keyed: Any) -> None:
    mine = added(keyed, "both", phrases=["Xanadu Road 99"])
    for path in ("/v1/forget?include_revoked=true", "/v1/forget/export", "/v1/audit?limit=1000"):
        assert mine in str(ask(keyed, "both", "GET", path)[1])
        assert mine not in str(ask(keyed, "b", "GET", path)[1])
    text = {"text": "It is Xanadu Road 99."}
    assert ask(keyed, "both", "POST", "/v1/check", text)[1]["verdict"] == "rewind"
    assert ask(keyed, "b", "POST", "/v1/check", text)[1]["verdict"] == "allow"
    status, _ = ask(keyed, "b", "POST", "/v1/impact", {"lines": ["x"], "targets": [mine]})
    assert status == 404


def test_an_exported_log_shows_of_other_tenants_only_the_links(keyed: Any) -> None:
    mine = added(keyed, "both")
    _, _, page = keyed.ask("GET", "/v1/audit/export", authorization="Bearer secret-of-b")
    lines = [orjson.loads(line) for line in page.splitlines()]
    assert mine.encode() not in page
    assert {"seq", "prev_hash", "hash"} in [set(line) for line in lines]
    assert {line["tenant"] for line in lines if "tenant" in line} <= {"", "b"}
