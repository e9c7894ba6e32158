"""``POST /tokenize``, ``POST /detokenize`` and ``GET /tokenizer_info``, in vLLM's forms."""

from __future__ import annotations

from typing import Any, cast

from fastapi import APIRouter, Request, Response

from elision.contract import Request as Asked
from elision.errors import RequestError
from elision.middleware.fields import TYPE, Fields, check_text, reject
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.service import answer, service_of
from elision.middleware.gateway.shapes import answers, takes
from elision.middleware.gateway.text_shapes import (
    DETOKENIZED,
    TO_DETOKENIZE,
    TO_TOKENIZE,
    TOKENIZED,
    TOKENIZER,
)
from elision.middleware.gateway.waiting import in_time
from elision.middleware.prompts import TOKEN_ID_MAX, read_messages
from elision.middleware.tokenizing import Tokenized, Tokenizers, Tokens, ToTokenize
from elision.middleware.wire import read_continues

router = APIRouter(tags=["tokens"])


@router.post(
    "/tokenize", responses=answers(TOKENIZED, 400, 404, 413, 429), openapi_extra=takes(TO_TOKENIZE)
)
async def tokenize(request: Request) -> Response:
    """Return a text or a conversation as tokens."""
    body = await _body(request)
    wanted = read_wanted(body)
    found = await in_time(request, _tokenized(request, wanted))
    told: dict[str, Any] = {
        "count": len(found.ids),
        "max_model_len": found.n_context,
        "tokens": found.ids,
        "token_strs": found.names,
    }
    return answer(told)


@router.post(
    "/detokenize",
    responses=answers(DETOKENIZED, 400, 404, 413, 429),
    openapi_extra=takes(TO_DETOKENIZE),
)
async def detokenize(request: Request) -> Response:
    """Return the text that tokens write, special ones included."""
    fields = Fields(await _body(request))
    ids = fields.need("tokens")
    if not isinstance(ids, list) or not all(_is_id(token) for token in ids):
        raise reject("tokens", "must be an array of token ids", TYPE)
    model = fields.word("model", 256) or ""
    return answer({"prompt": await in_time(request, _detokenized(request, model, ids))})


@router.get("/tokenizer_info", responses=answers(TOKENIZER, 400, 404, 429))
async def show_tokenizer(request: Request, model: str = "") -> Response:
    """Tell the settings of a model's tokenizer; of the only model, if none is named."""
    return answer(await in_time(request, _info(request, model)))


def read_wanted(body: object) -> ToTokenize:
    """Read the body of ``POST /tokenize``; without a model it is for the only one there is.

    Raises:
        RequestError: If a field is malformed, or there are not either a prompt or messages.
    """
    fields = Fields(body)
    prompt, messages = fields.take("prompt"), fields.take("messages")
    if (prompt is None) == (messages is None):
        raise RequestError("write either 'prompt' or 'messages'", param="prompt", code=TYPE)
    model, names = fields.word("model", 256) or "", fields.flag("return_token_strs")
    special = fields.flag("add_special_tokens", absent=messages is None)
    raw = cast("dict[str, Any]", body)
    if messages is None:
        check_text(prompt, "prompt")
        asked = Asked(kind="text", model=model, prompt=prompt)
        return ToTokenize(request=asked, special=special, names=names, body=raw)
    read = read_messages(messages)
    continues = read_continues(fields, read)
    asked = Asked(model=model, messages=read, continue_final=continues, extra=fields.rest())
    return ToTokenize(request=asked, special=special, names=names, body=raw)


async def _body(request: Request) -> Any:
    return await read_json(request, service_of(request).settings.body_limit_bytes)


async def _tokenized(request: Request, wanted: ToTokenize) -> Tokenized:
    return await (await _tokens(request, wanted.request.model)).tokenize(wanted)


async def _detokenized(request: Request, model: str, ids: list[int]) -> str:
    return await (await _tokens(request, model)).detokenize(ids)


async def _info(request: Request, model: str) -> dict[str, Any]:
    return await (await _tokens(request, model)).info()


async def _tokens(request: Request, model: str) -> Tokens:
    tokenizers: Tokenizers = request.app.state.tokenizers
    return await tokenizers.of(model)


def _is_id(token: object) -> bool:
    return type(token) is int and 0 <= token <= TOKEN_ID_MAX
