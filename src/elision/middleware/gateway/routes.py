"""Which routes there are and which roles may take them: one table, checked before any of them.

The roles, as a settings file grants them to a key:

* ``requester`` registers targets, previews them and submits them.
* ``approver`` approves what somebody else has requested.
* ``operator`` puts targets in force and out of it, purges, exports and imports; likewise reads and
  erases what is remembered.
* ``auditor`` reads the audit log and the register without its words.
* ``service`` asks for text, says how good it was, and asks for nothing of the register.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from elision.errors import ConfigError
from elision.settings import ROLES, Role

if TYPE_CHECKING:
    from fastapi import FastAPI

_EVERYONE = frozenset(ROLES)
_WORDS = frozenset[Role]({"requester", "approver", "operator"})
_READERS = frozenset[Role]({*_WORDS, "auditor"})
_CHECKERS = frozenset[Role]({*_WORDS, "service"})
_PROPOSERS = frozenset[Role]({"requester", "operator"})
_OPERATOR = frozenset[Role]({"operator"})
_AUDITOR = frozenset[Role]({"auditor"})
_SERVICE = frozenset[Role]({"service"})
_INSPECTORS = frozenset[Role]({"operator", "auditor"})

OPERATIONS = MappingProxyType(
    {
        "submit": _PROPOSERS,
        "approve": frozenset[Role]({"approver"}),
        "activate": _OPERATOR,
        "suspend": _OPERATOR,
        "resume": _OPERATOR,
        "revoke": _OPERATOR,
        "extend": _OPERATOR,
        "purge": _OPERATOR,
    }
)
"""What can be done to a target, each at ``POST /v1/forget/{id}/OPERATION``, and who may."""

PERMITTED: Mapping[tuple[str, str], frozenset[Role]] = MappingProxyType(
    {
        ("POST", "/v1/chat/completions"): _SERVICE,
        ("POST", "/v1/completions"): _SERVICE,
        ("POST", "/v1/responses"): _SERVICE,
        ("GET", "/v1/responses/{id}"): _SERVICE,
        ("DELETE", "/v1/responses/{id}"): _SERVICE,
        ("GET", "/v1/responses/{id}/input_items"): _SERVICE,
        ("POST", "/v1/embeddings"): _SERVICE,
        ("POST", "/tokenize"): _SERVICE,
        ("POST", "/detokenize"): _SERVICE,
        ("GET", "/tokenizer_info"): _SERVICE,
        ("POST", "/v1/check"): _CHECKERS,
        ("POST", "/beta/litellm_basic_guardrail_api"): _SERVICE,
        ("GET", "/v1/models"): _EVERYONE,
        ("GET", "/v1/models/{id}"): _EVERYONE,
        ("GET", "/v1/engines"): _INSPECTORS,
        ("POST", "/v1/forget"): _PROPOSERS,
        ("GET", "/v1/forget"): _READERS,
        ("POST", "/v1/forget/batch"): _PROPOSERS,
        ("GET", "/v1/forget/export"): _OPERATOR,
        ("POST", "/v1/forget/import"): _OPERATOR,
        ("GET", "/v1/forget/{id}"): _READERS,
        ("DELETE", "/v1/forget/{id}"): _OPERATOR,
        ("POST", "/v1/forget/{id}/preview"): _WORDS,
        ("GET", "/v1/forget/{id}/receipt"): _READERS,
        ("GET", "/v1/forget/{id}/impact"): _READERS,
        **{("POST", f"/v1/forget/{{id}}/{name}"): who for name, who in OPERATIONS.items()},
        ("POST", "/v1/impact"): _READERS,
        ("GET", "/v1/audit"): _AUDITOR,
        ("GET", "/v1/audit/verify"): _AUDITOR,
        ("POST", "/v1/audit/verify"): _AUDITOR,
        ("GET", "/v1/audit/checkpoint"): _AUDITOR,
        ("GET", "/v1/audit/export"): _AUDITOR,
        ("GET", "/v1/audit/key"): _EVERYONE,
        ("GET", "/v1/forget/{id}/memory"): _OPERATOR,
        ("GET", "/v1/memory/records"): _OPERATOR,
        ("GET", "/v1/memory/records/{id}"): _OPERATOR,
        ("POST", "/v1/memory/records/{id}/move"): _OPERATOR,
        ("POST", "/v1/memory/search"): _OPERATOR,
        ("POST", "/v1/memory/erase"): _OPERATOR,
        ("GET", "/v1/memory/erasures"): _INSPECTORS,
        ("GET", "/v1/memory/erasures/{id}"): _INSPECTORS,
        ("GET", "/v1/memory/stats"): _INSPECTORS,
        ("GET", "/v1/memory/export"): _OPERATOR,
        ("POST", "/v1/memory/import"): _OPERATOR,
        ("GET", "/v1/episodes/{id}"): frozenset[Role]({"operator", "auditor", "service"}),
        ("POST", "/v1/episodes/{id}/reward"): frozenset[Role]({"operator", "service"}),
        ("GET", "/healthz"): _EVERYONE,
        ("GET", "/readyz"): _EVERYONE,
        ("GET", "/metrics"): _EVERYONE,
        ("GET", "/openapi.json"): _EVERYONE,
    }
)
"""Method and route, and the roles any one of which is enough."""

_LABELS = frozenset(label for _, label in PERMITTED)
_WITH_IDS = (
    "/v1/forget", "/v1/memory/records", "/v1/memory/erasures", "/v1/episodes", "/v1/responses",
)  # fmt: skip


def route_label(path: str) -> str:
    """Return the route that *path* belongs to, its variable part left out; ``other`` if none."""
    if path in _LABELS and "{" not in path:
        return path
    if path.startswith("/v1/models/"):
        return "/v1/models/{id}"  # an id may hold slashes
    for room in _WITH_IDS:
        if path.startswith(f"{room}/"):
            _, slash, rest = path.removeprefix(f"{room}/").partition("/")
            label = f"{room}/{{id}}{slash}{rest}"
            return label if label in _LABELS else "other"
    return "other"


def lacking(roles: frozenset[Role], method: str, path: str) -> frozenset[Role]:
    """Return the roles one of which *roles* lacks for a request; none if it may be made.

    What is no route of ours is let through: the router has the better answer to it.
    """
    wanted = PERMITTED.get(("GET" if method == "HEAD" else method, route_label(path)), frozenset())
    return frozenset() if wanted & roles else wanted


def check_table(app: FastAPI) -> None:
    """Raise unless every route of *app* is in the table.

    Raises:
        ConfigError: If one is not: anybody with a key could take it.
    """
    for route in app.routes:
        path = getattr(route, "path", "")
        for method in getattr(route, "methods", None) or ():
            if method != "HEAD" and (method, route_label(path)) not in PERMITTED:
                raise ConfigError(f"the route {method} {path} has no roles; name them in routes.py")
