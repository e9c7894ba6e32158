"""``GET /v1/forget/{id}/receipt``: a signed statement without a word of the target."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from elision.guards.evidence.receipts import receipt_for
from elision.middleware.gateway.service import answer, service_of, tenant_of
from elision.middleware.gateway.shapes import RECEIPT, answers

router = APIRouter(prefix="/v1/forget", tags=["forget"])


@router.get("/{target_id}/receipt", response_model=None, responses=answers(RECEIPT, 403, 404, 409))
async def receipt_of_target(request: Request, target_id: str) -> Response:
    """Return a new receipt: what is suppressed how, tried on the guard, and signed."""
    register, tenant = service_of(request).register, tenant_of(request)
    receipt: dict[str, Any] = await asyncio.to_thread(receipt_for, register, tenant, target_id)
    return answer(receipt, epoch=receipt["epoch"])
