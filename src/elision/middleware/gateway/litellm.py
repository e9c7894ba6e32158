"""``POST /beta/litellm_basic_guardrail_api``: LiteLLM's Generic Guardrail API, answered by us.

LiteLLM sends the whole text so far with every question and keeps account of what it has sent on; an
answer depends on the question alone. See docs/litellm.md for how to set it up.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from elision.contract import Request as Prompt
from elision.errors import GuardError
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.guardrail import prompts
from elision.middleware.gateway.guardrail.asked import (
    REQUESTS_HEADER,
    STREAMING_HEADER,
    Asked,
    asked_of,
)
from elision.middleware.gateway.guardrail.growing import Growing, Key, Reading
from elision.middleware.gateway.guardrail.replies import Judged, is_clean, judged, opened
from elision.middleware.gateway.service import answer, grant_of, service_of
from elision.middleware.gateway.shapes import answers, takes
from elision.middleware.planning import Defence
from elision.middleware.profiles import profile_named
from elision.middleware.starting import REFUSAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elision.middleware.enforcement import Enforcement
    from elision.middleware.gateway.service import Service
    from elision.middleware.holding.layers import Layers

router = APIRouter(tags=["guardrail"])

ROUTE: Final = "/beta/litellm_basic_guardrail_api"

_TEXTS = {"type": ["array", "null"], "items": {"type": "string"}}
_OBJECTS = {"type": ["array", "null"], "items": {"type": "object"}}
_SEARCHED = {"description": "Every string in it is held against the register."}
_ASKED = {
    "type": "object",
    "required": ["input_type"],
    "properties": {
        "input_type": {"enum": ["request", "response"]},
        "texts": _TEXTS,
        "images": _TEXTS,
        "structured_messages": _OBJECTS,
        "tool_calls": _SEARCHED,
        "tools": _SEARCHED,
        "model": {"type": ["string", "null"]},
    },
}
_ANSWERED = {
    "type": "object",
    "required": ["action"],
    "properties": {
        "action": {"enum": ["NONE", "BLOCKED", "GUARDRAIL_INTERVENED"]},
        "blocked_reason": {"type": "string"},
        "texts": {"type": "array", "items": {"type": "string"}},
        "stream_holdback_chars": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    },
}


def _header(name: str, *known: str) -> dict[str, Any]:
    schema = {"enum": [*known], "default": known[0]}
    return {"name": name, "in": "header", "required": False, "schema": schema}


_OPTIONS = {
    "parameters": [
        _header(STREAMING_HEADER, "block_only", "incremental_diff"),
        _header(REQUESTS_HEADER, "off", "redact", "block"),
    ]
}
_BLOCKED: dict[str, Any] = {"action": "BLOCKED", "blocked_reason": REFUSAL}


@router.post(
    ROUTE,
    responses=answers(_ANSWERED, 400, 403, 413, 429, 500),
    openapi_extra=takes(_ASKED) | _OPTIONS,
)
async def apply_guardrail(request: Request) -> Response:
    """Judge a prompt or a reply for LiteLLM; every text is judged from its beginning."""
    service, grant = service_of(request), grant_of(request)
    body = await read_json(request, service.settings.body_limit_bytes)
    asked = asked_of(body, request.headers)
    alias = asked.model.partition("@")[0]
    rules = await service.pipeline.rules(grant.tenant, alias, grant.name)
    if not rules.targets:
        said: dict[str, Any] = {"action": "NONE"}
    elif asked.is_response:
        said = await _on_response(service, request.app.state.growing, asked, rules)
    else:
        said = await asyncio.to_thread(_on_request, asked, rules)
    return answer(said, epoch=rules.epoch)


def _on_request(asked: Asked, rules: Enforcement) -> dict[str, Any]:
    if asked.requests == "off" or not prompts.is_met(asked, rules.checker):
        return {"action": "NONE"}
    texts = None
    if asked.requests == "redact":
        texts = prompts.redacted(asked, rules.checker, marker=rules.guard.marker)
    if texts is None:
        return _BLOCKED
    return {"action": "GUARDRAIL_INTERVENED", "texts": texts}


async def _on_response(
    service: Service, growing: Growing, asked: Asked, rules: Enforcement
) -> dict[str, Any]:
    keys = _keys(asked)
    known = [growing.take(rules, *pair) for pair in zip(keys, asked.texts, strict=True)]
    layers = await _layers(service, asked, rules) if asked.leaves or None in known else None
    # In a thread: long texts take their time, and a sentence is embedded before it may leave.
    said, readings = await asyncio.to_thread(_judge, asked, known, layers, rules.guard.marker)
    for key, reading in zip(keys, readings, strict=True):
        if asked.call and reading.text and said is not _BLOCKED:
            growing.put(rules, key, reading)
    return said


async def _layers(service: Service, asked: Asked, rules: Enforcement) -> Layers:
    """Return everything that guards a reply; the semantic layer only where the prompt is known."""
    profile = replace(profile_named("guarded"), fail_mode=service.settings.fail_mode)
    if not asked.messages:
        profile = replace(profile, semantic=False)
    prompt = Prompt(messages=asked.messages, model=asked.model)
    failed = service.metrics.failures.labels(GuardError.__name__).inc
    defence = await Defence.of(profile, rules, prompt, None, on_failure=failed)
    return await defence.layers(prompt)


def _judge(
    asked: Asked, known: Sequence[Reading | None], layers: Layers | None, marker: str
) -> tuple[dict[str, Any], list[Reading]]:
    """Return the answer, and how far each text has been read for it."""
    readings = [one if layers is None or one is not None else opened(layers) for one in known]
    read = [reading for reading in readings if reading is not None]
    if layers is not None and not is_clean(asked.leaves, layers):
        return _BLOCKED, read
    found = [
        judged(reading, text, streaming=asked.streaming, marker=marker)
        for reading, text in zip(read, asked.texts, strict=True)
    ]
    return _answered(asked, found), read


def _answered(asked: Asked, found: Sequence[Judged]) -> dict[str, Any]:
    if any(one.is_refused for one in found):
        return _BLOCKED
    held = [one.n_held for one in found]
    texts = [one.text for one in found]
    if texts == [*asked.texts]:
        return {"action": "NONE", "stream_holdback_chars": held}
    return {"action": "GUARDRAIL_INTERVENED", "texts": texts, "stream_holdback_chars": held}


def _keys(asked: Asked) -> list[Key]:
    """Return what each text's reading is kept under: all that its hold was opened with."""
    prompt = hashlib.sha256(orjson.dumps(asked.messages)).digest()
    return [(asked.call, prompt, index) for index in range(len(asked.texts))]
