"""``POST /v1/embeddings``: texts as vectors, by the sentence encoder that the guards use."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from elision.contract import Usage
from elision.errors import NotFoundError
from elision.middleware.fields import TYPE, Fields, check_text, reject, unsupported
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.limits.meter import meter_of
from elision.middleware.gateway.service import EPOCH_HEADER, service_of, tenant_of
from elision.middleware.gateway.shapes import answers, takes
from elision.middleware.gateway.text_shapes import EMBEDDINGS, N_INPUTS, TO_EMBED
from elision.middleware.gateway.waiting import in_time
from elision.middleware.prompts import TOKEN_ID_MAX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from elision.middleware.embedding import Embeddings, Input

_CUTTING: Final = ("truncate", "truncate_prompt_tokens")
"""Fields by which servers are asked to cut texts."""

router = APIRouter(tags=["embeddings"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The body of ``POST /v1/embeddings``, read.

    Attributes:
        model: The encoder, as the caller named it.
        inputs: What to embed.
        encoding: How vectors are written: ``float`` or ``base64``.
        dimensions: Numbers per vector that the caller wants.
    """

    model: str
    inputs: tuple[Input, ...] = field(repr=False)
    encoding: str = "float"
    dimensions: int | None = None


@router.post(
    "/v1/embeddings",
    responses=answers(EMBEDDINGS, 400, 403, 404, 413, 429),
    openapi_extra=takes(TO_EMBED),
)
async def create_embeddings(request: Request) -> Response:
    """Embed a text or several. What is registered to be forgotten is refused."""
    service, tenant = service_of(request), tenant_of(request)
    pipeline = service.pipeline
    wanted = read_wanted(await read_json(request, service.settings.body_limit_bytes))
    check_model(wanted.model, pipeline.embeddings)
    texts = await pipeline.embeddings.read(wanted.inputs, dimensions=wanted.dimensions)
    meter = meter_of(request)
    await meter.ask_for(texts.n_tokens, model=wanted.model)
    epoch = await pipeline.epoch(tenant)
    meter.begin()
    work = pipeline.embeddings.embed(texts, tenant=tenant)
    vectors = await in_time(request, work)
    meter.used(Usage(prompt_tokens=texts.n_tokens))
    service.metrics.tokens.labels("prompt").inc(texts.n_tokens)
    data = await asyncio.to_thread(_rendered, vectors, texts.n_tokens, wanted)
    return Response(data, headers={EPOCH_HEADER: str(epoch)}, media_type="application/json")


def check_model(model: str, embeddings: Embeddings) -> None:
    """Raise unless *model* is the encoder's alias.

    Raises:
        NotFoundError: Naming the one there is.
    """
    if model and model == embeddings.name:
        return
    there = f"there is {embeddings.name!r}" if embeddings.name else "none is set (encoder)"
    raise NotFoundError(
        f"no sentence encoder is called {model[:128]!r} here; {there}",
        code="model_not_found",
        param="model",
    )


def read_wanted(body: object) -> Wanted:
    """Read the body of ``POST /v1/embeddings``; fields that it does not know are left aside.

    Raises:
        RequestError: If a field is malformed, or asks for texts to be cut; ``param`` names it.
    """
    fields = Fields(body)
    model, encoding = fields.need("model"), fields.take("encoding_format")
    encoding = "float" if encoding is None else encoding
    check_text(model, "model")
    if encoding not in ("float", "base64"):
        raise reject("encoding_format", "must be 'float' or 'base64'")
    for key in _CUTTING:
        if fields.take(key) not in (None, False):
            raise unsupported(key, "cutting texts is")
    return Wanted(
        model=model,
        inputs=_inputs(fields.need("input")),
        encoding=encoding,
        dimensions=fields.integer("dimensions", 1, TOKEN_ID_MAX),
    )


def _inputs(value: object) -> tuple[Input, ...]:
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        return (_input(value, "input"),)
    if not isinstance(value, list):
        raise reject("input", "must be a text, token ids, or an array of either", TYPE)
    if not value:
        raise reject("input", "must not be empty", "empty_array")
    if len(value) > N_INPUTS:
        raise reject("input", f"must hold at most {N_INPUTS} texts; send the others in another")
    return tuple(_input(one, f"input[{index}]") for index, one in enumerate(value))


def _input(value: object, param: str) -> Input:
    if isinstance(value, str):
        check_text(value, param)
        if not value:
            raise reject(param, "must not be empty", "empty_string")
        return value
    if not isinstance(value, list):
        raise reject(param, "must be a text or an array of token ids", TYPE)
    if not value:
        raise reject(param, "must not be empty", "empty_array")
    if not all(type(token) is int and 0 <= token <= TOKEN_ID_MAX for token in value):
        raise reject(param, "must hold token ids only, or texts only", TYPE)
    return tuple(value)


def _rendered(vectors: NDArray[np.float32], n_tokens: int, wanted: Wanted) -> bytes:
    """Return the answer's body. Blocks: a thousand vectors take some 30 ms as numbers."""
    rows: list[Any] = [*vectors.astype("<f4")]
    if wanted.encoding == "base64":
        rows = [base64.b64encode(row.tobytes()).decode() for row in rows]
    data = [
        {"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    body = {"object": "list", "data": data, "model": wanted.model, "usage": usage}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
