"""``/v1/responses/{id}``: what is kept is shown, listed and deleted."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from elision.errors import NotFoundError
from elision.middleware.fields import unsupported
from elision.middleware.gateway.responses import shapes
from elision.middleware.gateway.responses.answering import recalling_of
from elision.middleware.gateway.responses.items import Item
from elision.middleware.gateway.responses.kept import Entry
from elision.middleware.gateway.responses.recalling import Reader
from elision.middleware.gateway.service import answer, grant_of, service_of
from elision.middleware.gateway.shapes import answers
from elision.middleware.gateway.streaming import until_gone

router = APIRouter(prefix="/v1/responses", tags=["text"])

MAX_PAGE = 100
_PAGE = 20


@router.get(
    "/{response_id}", response_model=None, responses=answers(shapes.RESPONSE, 403, 404, 429)
)
async def get_response(request: Request, response_id: str, stream: bool = False) -> Response:
    """Return a response that is kept, as it may be said now."""
    if stream:
        raise unsupported("stream", "telling a finished response as a stream is")
    return await until_gone(request.receive, _shown(request, response_id))


async def _shown(request: Request, response_id: str) -> Response:
    recalling, grant = recalling_of(request), grant_of(request)
    entry = recalling.kept.find(grant.tenant, response_id)
    reader = await _reader(request, entry)
    outputs = await recalling.outputs(entry, reader)
    body = entry.response() | {"output": outputs}
    told = {name: value for name, value in body.items() if name not in shapes.CLOSED}
    names = await recalling.withheld(told, reader)
    return answer(
        body | {name: shapes.INSTEAD.get(name) for name in names}, epoch=reader.rules.epoch
    )


@router.delete("/{response_id}", response_model=None, responses=answers(shapes.GONE, 403, 404))
async def delete_response(request: Request, response_id: str) -> Response:
    """Forget a response; what went on from it can then no longer be continued."""
    recalling_of(request).kept.drop(grant_of(request).tenant, response_id)
    return answer({"id": response_id, "object": "response", "deleted": True})


@router.get(
    "/{response_id}/input_items",
    response_model=None,
    responses=answers(shapes.ITEMS, 400, 403, 404, 429),
)
async def list_input_items(
    request: Request,
    response_id: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = _PAGE,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """List what a response was made from, earlier turns included; the latest item first."""
    chain = recalling_of(request).kept.chain(grant_of(request).tenant, response_id)
    places = [(entry, n) for entry in chain[:-1] for n in range(len(entry.ids))]
    places += [(chain[-1], n) for n in range(len(chain[-1].given_ids))]
    page, has_more = _page(places if order == "asc" else places[::-1], after, limit)
    return await until_gone(request.receive, _listed(request, chain[-1], page, has_more))


async def _listed(
    request: Request, last: Entry, page: list[tuple[Entry, int]], has_more: bool
) -> Response:
    """Return *page*: nothing else of the conversation is read."""
    recalling, reader = recalling_of(request), await _reader(request, last)
    items: list[Item] = []
    for _, run in groupby(page, key=lambda place: place[0].id):
        found = [*run]
        items += await recalling.told(found[0][0], [n for _, n in found], reader)
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else _NO_ENDS
    return answer(
        {"object": "list", "data": items, "has_more": has_more, **ends}, epoch=reader.rules.epoch
    )


_NO_ENDS = {"first_id": "", "last_id": ""}


async def _reader(request: Request, entry: Entry) -> Reader:
    grant, pipeline = grant_of(request), service_of(request).pipeline
    rules = await pipeline.rules(grant.tenant, entry.engine, grant.name)
    return Reader(rules=rules, engine=entry.engine, key=grant.name)


def _page(
    places: list[tuple[Entry, int]], after: str | None, limit: int
) -> tuple[list[tuple[Entry, int]], bool]:
    first = 0
    if after is not None:
        found = [at for at, (entry, n) in enumerate(places) if entry.ids[n] == after]
        if not found:
            raise NotFoundError("there is no item of that id", code="item_not_found", param="after")
        first = found[0] + 1
    return places[first : first + limit], first + limit < len(places)
