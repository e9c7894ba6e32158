"""One body for each route that takes one, as the description shows it; each is taken as it stands.

Ids and models stand for those that a server has.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from elision.middleware.gateway.routes import OPERATIONS

_STREET: Final = {"title": "a street", "phrases": ["Marlowe Street"]}
_REASON: Final = {"reason": "a complaint"}
_CHECKPOINT: Final = {
    "log_id": "2f7f94de9d0822f84e798867728568e6",
    "seq": 7,
    "hash": "09a26d2b79e3771a4380bc030f624780da7dfa8c1e27fef5c38f5a35775dcc5d",
    "count": 8,
    "ts": "2030-01-31T12:00:00.000Z",
    "signature": "L1wjVfpIsZBrayuCcN+4r54d0Gok/mzmBIT6Mmp18CG8pp6qBA8x57y+VSIARaN69AO8M0AJ1f==",
}

EXAMPLES: Mapping[str, Any] = MappingProxyType(
    {
        "/v1/forget": _STREET,
        "/v1/forget/batch": {"targets": [_STREET]},
        **{f"/v1/forget/{{id}}/{name}": _REASON for name in OPERATIONS},
        "/v1/forget/{id}/extend": {"expires_at": "2999-01-01T00:00:00Z"},
        "/v1/forget/{id}/preview": {"corpus": ["in Marlowe Street", "elsewhere"]},
        "/v1/impact": {"lines": ["an ordinary line", {"text": "about it", "about": True}]},
        "/v1/audit/verify": _CHECKPOINT,
        "/v1/check": {"text": "He lives in Marlowe Street."},
        "/beta/litellm_basic_guardrail_api": {
            "input_type": "response",
            "texts": ["He lives in Marlowe Street."],
        },
        "/v1/embeddings": {"model": "all-minilm-l6-v2", "input": "What is the capital of France?"},
        "/tokenize": {"model": "smollm2-135m", "prompt": "The capital of France"},
        "/detokenize": {"model": "smollm2-135m", "tokens": [65, 66]},
        "/v1/memory/records/{id}/move": {"action": "approve", "reason": "read-by-ann"},
        "/v1/memory/search": {"query": "capital of France", "k": 3},
        "/v1/memory/erase": {"subject": "u-17", "reason": "gdpr.17", "dry_run": True},
        "/v1/episodes/{id}/reward": {"reward": 1, "by": "human"},
    }
)
"""A body by route, as `routes` writes it; those of requests for text stand in their shapes."""
