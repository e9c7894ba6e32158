"""What a server is asked for its proof: requests of a few tokens, with orders. No words of anybody.

What is told beside a reply is asked for as long as the server does not refuse it: one that shows
fewer log-probabilities, or takes no biases because it speculates, can still be proved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from elision.errors import NotFoundError, RequestError
from elision.middleware.engines.fleet.ordering import wire
from elision.middleware.engines.fleet.trying import Tried, tried_of
from elision.middleware.engines.plugin.orders import Order

BIAS: Final = "logit_bias"
N_TOKENS: Final = 24

_LINE: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday\n"
_PROMPT: Final = _LINE * 2
_MESSAGES: Final = ({"role": "user", "content": "Name the days of the week in one sentence."},)
_N_TOP: Final = 5
_SPECIAL: Final = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]|<[^<>]*\uff5c[^<>]*>")
_MOST_SPECIALS: Final = 4
_PARTED: Final = ((BIAS,), ("logprobs", "return_tokens_as_token_ids"))
"""Fields that a proof can do without, in the order in which they are left out."""


class Server(Protocol):
    """A server that is to prove itself."""

    @property
    def model(self) -> str:
        """Its name for its model."""
        ...

    async def ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return an answer's JSON; raise what a refusal means."""
        ...

    async def told(self, route: str) -> str:
        """Return an answer's text, likewise."""
        ...


class UnfitError(Exception):
    """What is missing, as a sentence; only who proves sees it."""


class Asking:
    """Asks one server. Lives for one proof.

    Args:
        server: Whom.
        secret: What orders are sealed with.

    Attributes:
        stop: The token that ends choices at which nothing acceptable is left, once it is known.
        left_out: Fields that the server refuses.
    """

    def __init__(self, server: Server, secret: str | None) -> None:
        self.stop: int | None = None
        self.left_out: frozenset[str] = frozenset()
        self._server = server
        self._secret = secret

    async def version(self) -> str:
        """Return vLLM's version; empty where it is not told."""
        try:
            told = await self._server.ask("GET", "/version")
        except (NotFoundError, RequestError):
            told = None
        version = told.get("version") if isinstance(told, dict) else None
        return version if isinstance(version, str) else ""

    async def metrics(self) -> str:
        """Return its metrics; empty where they are not told."""
        try:
            return await self._server.told("/metrics")
        except (NotFoundError, RequestError):
            return ""

    async def specials(self) -> tuple[int, ...]:
        """Return the first special tokens of a rendered chat, in order, each once."""
        body = {"model": self._server.model, "messages": [*_MESSAGES], "return_token_strs": True}
        try:
            told = await self._server.ask("POST", "/tokenize", body)
            pairs = [*zip(told["tokens"], told["token_strs"], strict=False)]
        except (NotFoundError, RequestError, KeyError, TypeError):
            return ()
        found = [token for token, name in pairs
                 if type(token) is int and _SPECIAL.fullmatch(str(name))]  # fmt: skip
        return tuple(dict.fromkeys(found))[:_MOST_SPECIALS]

    async def takes(self, xargs: Mapping[str, str]) -> bool:
        """Return whether a request of one token goes well with *xargs*."""
        body = self._body(1) | self._stops() | ({"vllm_xargs": dict(xargs)} if xargs else {})
        try:
            await self._server.ask("POST", "completions", body)
        except RequestError:
            return False
        return True

    async def completion(self, order: Order, max_tokens: int = N_TOKENS, **more: Any) -> Tried:
        """Return the reply to a prompt that begins a list a second time.

        Raises:
            UnfitError: If it is refused, whatever is left out.
        """
        body = self._body(max_tokens) | self._ordered(order) | more
        body |= {"logprobs": _N_TOP, "return_tokens_as_token_ids": True}
        return await self._said("completions", body)

    async def chat(self, order: Order, **more: Any) -> Tried:
        """Return the reply to a question.

        Raises:
            NotFoundError: If there are no chats.
            UnfitError: As `completion`.
        """
        body = self._body(N_TOKENS) | self._ordered(order) | {"messages": [*_MESSAGES]} | more
        del body["prompt"]
        return await self._said("chat/completions", body)

    async def _said(self, route: str, body: dict[str, Any]) -> Tried:
        left_out = self.left_out
        param: str | None = None
        for fields in ((), *_PARTED):
            if fields and not body.keys() & ({*fields} - left_out):
                continue
            left_out |= {*fields}
            sent = {name: value for name, value in body.items() if name not in left_out}
            try:
                tried = tried_of(await self._server.ask("POST", route, sent))
            except RequestError as exc:
                param = exc.param
            else:
                self.left_out |= body.keys() & left_out
                return tried
        raise UnfitError(_refusal(param))

    def _body(self, max_tokens: int) -> dict[str, Any]:
        body = {"model": self._server.model, "prompt": _PROMPT, "max_tokens": max_tokens}
        return body | {"temperature": 0}

    def _ordered(self, order: Order) -> dict[str, Any]:
        return {"vllm_xargs": wire(order, self._secret), **self._stops()}

    def _stops(self) -> dict[str, Any]:
        return {} if self.stop is None else {"stop_token_ids": [self.stop]}


def _refusal(param: str | None) -> str:
    if param is not None and param != "vllm_xargs":
        return f"it refuses what we must ask for, by the field {param[:64]!r}; allow that there"
    return (
        "it refuses our orders: it has another secret than vllm_secret, another version of "
        "elision, or a clock that differs from ours by minutes"
    )
