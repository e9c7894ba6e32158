"""``POST /v1/check``: a text or a conversation is judged, and nothing is generated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from elision.errors import RequestError
from elision.guards.phrases.recent import Recent
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.service import answer, grant_of, service_of
from elision.middleware.gateway.shapes import CHECKED, TO_CHECK, answers, takes

if TYPE_CHECKING:
    from elision.guards.detection.check import Checker, CheckResult
    from elision.guards.register.register import Register
    from elision.guards.targets import ForgetTarget
    from elision.middleware.gateway.auth import Grant

router = APIRouter(tags=["check"])

_COMPILED = 64


class Checkers:
    """Compiled checks, kept until the tenant's targets change. Lives with the application.

    Args:
        register: Where the targets are kept.
    """

    def __init__(self, register: Register) -> None:
        self._register = register
        self._kept: Recent[tuple[str, str, str], tuple[tuple[ForgetTarget, ...], Checker]] = Recent(
            entries=_COMPILED
        )

    def current(self, grant: Grant, model: str) -> tuple[int, Checker]:
        """Return the tenant's epoch and the check of what holds for a caller and a model."""
        from elision.guards.detection.check import Checker

        epoch = self._register.epoch(grant.tenant)
        active = self._register.active(grant.tenant)
        key = (grant.tenant, *_relevant(active, grant.name, model))
        kept = self._kept.get(key)
        if kept is not None and kept[0] is active:
            return epoch, kept[1]
        checker = Checker.compile(
            [target for target in active if target.scope.covers(model=model, key=grant.name)]
        )
        self._kept.put(key, (active, checker))
        return epoch, checker


def _relevant(active: tuple[ForgetTarget, ...], key: str, model: str) -> tuple[str, str]:
    """Leave out of a caller what no scope asks for, so that all share one compiled check."""
    by_key = any(target.scope.keys for target in active)
    by_model = any(target.scope.models for target in active)
    return key if by_key else "", model if by_model else ""


@router.post("/v1/check", responses=answers(CHECKED, 400, 403, 429), openapi_extra=takes(TO_CHECK))
async def check_text(request: Request) -> Response:
    """Judge a text or a conversation over every normal form and decoder; nothing is generated."""
    service = service_of(request)
    body = await read_json(request, service.settings.body_limit_bytes)
    given, model = _what(body)
    epoch, result = await asyncio.to_thread(
        _check, service.checkers, grant_of(request), model, given
    )
    return answer(result.to_body(), epoch=epoch)


def _check(
    checkers: Checkers, grant: Grant, model: str, given: str | list[dict[str, Any]]
) -> tuple[int, CheckResult]:
    from elision.guards.detection.check import check

    epoch, checker = checkers.current(grant, model)
    return epoch, check(checker, given)


def _what(body: object) -> tuple[str | list[dict[str, Any]], str]:
    """Return what to judge, and the model it is meant for.

    Raises:
        RequestError: If the body has neither a text nor messages, or both.
    """
    if not isinstance(body, dict) or ("text" in body) == ("messages" in body):
        raise RequestError(
            "write an object with either 'text' or 'messages'", param="text", code="invalid_value"
        )
    if unknown := body.keys() - {"text", "messages", "model"}:
        raise RequestError(
            f"{len(unknown)} keys of the body are not known; write only text or messages, and model"
        )
    model = body.get("model", "")
    if not isinstance(model, str):
        raise RequestError("'model' must be a string", param="model", code="invalid_type")
    alias = model.partition("@")[0]
    if "text" in body:
        if not isinstance(body["text"], str):
            raise RequestError("'text' must be a string", param="text", code="invalid_type")
        return body["text"], alias
    return _messages(body["messages"]), alias


def _messages(messages: object) -> list[dict[str, Any]]:
    if isinstance(messages, list) and messages and all(map(_is_message, messages)):
        return messages
    raise RequestError(
        "'messages' must be a list of objects with a role and a content",
        param="messages",
        code="invalid_type",
    )


def _is_message(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        return False
    content = item.get("content")
    if isinstance(content, list):
        return all(isinstance(part, dict) for part in content)
    return content is None or isinstance(content, str)
