"""What an upstream can do, found out by asking it: some eight tiny requests, once.

Servers ignore what they do not know, so an answer of status 200 proves nothing. What counts is
what comes back: log-probabilities that are there, a bias that changed a token, a prompt that grew
by as many tokens as were added. The prompts are fixed; nobody's words are among them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from elision.errors import ElisionError, NotFoundError, RequestError, UpstreamError
from elision.middleware.engines.upstream.offers import UNKNOWN, VLLM, Offers

_log = logging.getLogger("elision.upstream")

Ask: TypeAlias = Callable[[str, str, "Mapping[str, Any] | None"], Awaitable[Any]]
"""Sends method, route and body, and returns the answer's JSON; raises what a refusal means. A route
that begins with a slash hangs at the server's root, not at the base URL."""

TOTAL_S: Final = 20.0
"""Longest time that all of it may take, in seconds."""

_PROMPT: Final = ({"role": "user", "content": "Say OK."},)
_BEGUN: Final = ({"role": "assistant", "content": "OK, then, here we go:"},)
_OPEN: Final = {"continue_final_message": True, "add_generation_prompt": False}
_TOKEN: Final = 90
"""A token of every vocabulary that no reply to `_PROMPT` is likely to begin with: ``Z`` where ids
are bytes, ``{`` or ``W`` where 94 printable characters or the 256 bytes come first."""
_IDS: Final = [_TOKEN] * 5
_MOST: Final = 20
_FEW: Final = 5
_OWNERS: Final = {"vllm": VLLM, "llamacpp": "llama.cpp"}
_PAUSE_S: Final = 30.0
_UNABLE: Final = frozenset({404, 405, 409, 500, 501})
"""Statuses that say that a thing is not offered; others say that the upstream is not well."""
_CLOSED: Final = _UNABLE | {403}
"""Likewise of a route that vLLM lists and keeps closed unless it is told to open it."""


class Probe:
    """Asks one upstream. Lives for one probe.

    Args:
        ask: Sends one request.
        model: The upstream's name for the model.
        length_field: What the upstream calls the reply's bound.
    """

    def __init__(self, ask: Ask, *, model: str, length_field: str) -> None:
        self._ask = ask
        self._model = model
        self._chat_body = {"model": model, length_field: 1, "temperature": 0}
        self._offers = Offers()

    async def run(self) -> Offers:
        """Return what it offers.

        Raises:
            ElisionError: If it could not be asked: no connection, a wrong key, too many requests.
            TimeoutError: If it took longer than `TOTAL_S`.
        """
        async with asyncio.timeout(TOTAL_S):
            await self._server()
            plain = await self._log_probabilities()
            if plain:
                await self._bias(plain)
                await self._continuation(plain)
            await self._completions()
            await self._generate()
        return self._offers

    async def _server(self) -> None:
        """Find out which server it is, and how long a sequence it takes."""
        models = _objects((await self._try("GET", "models")).get("data"))
        own = next((one for one in models if one.get("id") == self._model), {})
        server = _OWNERS.get(str(own.get("owned_by")), UNKNOWN)
        limit = own.get("max_model_len")
        if server == UNKNOWN and limit and "version" in await self._try("GET", "/version"):
            server = VLLM  # behind a proxy that names another owner
        self._note(
            server=server,
            bad_words=server == VLLM,
            max_model_len=limit if isinstance(limit, int) else None,
        )

    async def _log_probabilities(self) -> dict[str, Any]:
        """Return a reply of one token, asked with as much as is served; nothing: no chats.

        A strict server loses the field that it refuses, no other.
        """
        ids = {"return_token_ids": True}
        rungs: list[dict[str, Any]] = [_top(_MOST) | ids, _top(_MOST), _top(_FEW), {}]
        if self._offers.server == VLLM:
            rungs = [_top(_MOST) | ids, _top(_FEW) | ids, ids, {}]
        for rung in rungs:
            reply = await self._chat(rung)
            if not reply:
                continue
            choice = _first(reply)
            rows = _objects(_object(choice.get("logprobs")).get("content")) or [{}]
            self._note(
                n_logprobs=len(_objects(rows[0].get("top_logprobs"))),
                token_ids=bool(choice.get("token_ids") and reply.get("prompt_token_ids")),
            )
            return reply
        return {}

    async def _bias(self, plain: Mapping[str, Any]) -> None:
        """See whether a bias of 100 changes the greedy token."""
        biased = await self._chat({"logit_bias": {str(_TOKEN): 100}})
        before = _said(plain)
        self._note(logit_bias=bool(biased and before) and before != _said(biased))

    async def _continuation(self, plain: Mapping[str, Any]) -> None:
        """See whether an open turn makes the prompt longer than none, and shorter than a closed."""
        n_without = _n_prompt(plain)
        n_open = _n_prompt(await self._chat(_OPEN, begun=True))
        if n_without and n_open > n_without:
            self._note(continues=n_open < _n_prompt(await self._chat({}, begun=True)))

    async def _completions(self) -> None:
        """See whether ids are taken as a prompt: then it is as long as they are, or one longer."""
        n = self._offers.n_logprobs
        for n_top in (n, _FEW) if n > _FEW else (n,):
            body = {"model": self._model, "max_tokens": 1, "temperature": 0, "prompt": _IDS}
            body |= {"logprobs": n_top} if n_top else {}
            reply = await self._try("POST", "completions", body)
            if reply:
                break
        else:
            return
        rows = _objects(_object(_first(reply).get("logprobs")).get("top_logprobs")) or [{}]
        n_told = len(rows[0])
        self._note(
            completions=True,
            prompt_ids=_n_prompt(reply) in (len(_IDS), len(_IDS) + 1),
            # Tokens of one name, such as halves of characters, share an entry here.
            n_text_logprobs=n_top if 2 * n_told > n_top else n_told,
        )

    async def _generate(self) -> None:
        """See whether vLLM's route from ids to ids is open."""
        if self._offers.server != VLLM:
            return
        body = {
            "model": self._model,
            "token_ids": _IDS,
            "sampling_params": {"max_tokens": 1, "temperature": 0},
            "stream": False,
        }
        reply = await self._try("POST", "/inference/v1/generate", body, unable=_CLOSED)
        self._note(generate=bool(_first(reply).get("token_ids")))

    async def _chat(self, more: Mapping[str, Any], *, begun: bool = False) -> dict[str, Any]:
        body = self._chat_body | {"messages": [*_PROMPT, *(_BEGUN if begun else ())]} | dict(more)
        return await self._try("POST", "chat/completions", body)

    async def _try(
        self,
        method: str,
        route: str,
        body: Mapping[str, Any] | None = None,
        unable: frozenset[int] = _UNABLE,
    ) -> dict[str, Any]:
        """Return the answer; an empty one if it was refused."""
        try:
            return _object(await self._ask(method, route, body))
        except (RequestError, NotFoundError):
            return {}
        except UpstreamError as exc:
            if exc.upstream_status in unable:
                return {}
            raise

    def _note(self, **seen: Any) -> None:
        self._offers = replace(self._offers, **seen)


class Probing:
    """Asks an upstream once, for everybody who waits. Lives as long as the engine.

    Attributes:
        offers: What was found; None until a probe went well.
    """

    def __init__(self, begin: Callable[[], Probe]) -> None:
        self.offers: Offers | None = None
        self._begin = begin
        self._running: asyncio.Task[None] | None = None
        self._not_before = 0.0

    async def ask(self) -> Offers | None:
        """Return what the upstream offers; None if it cannot be asked now.

        Never raises for what the upstream does. After a probe that
        took too long nothing is asked for half a minute, so that a slow upstream does not keep
        every request waiting.
        """
        if self.offers is None and time.monotonic() >= self._not_before:
            loop = asyncio.get_running_loop()
            if self._running is None or self._running.get_loop() is not loop:
                self._running = loop.create_task(self._run())
            # Not awaited itself: neither does who leaves cancel it, nor it who stays.
            await asyncio.wait([self._running])
        return self.offers

    async def aclose(self) -> None:
        """Call off what is being asked on this loop."""
        running = self._running
        if running is not None and running.get_loop() is asyncio.get_running_loop():
            running.cancel()
            await asyncio.wait([running])

    async def _run(self) -> None:
        try:
            self.offers = await self._begin().run()
        except TimeoutError:
            self._not_before = time.monotonic() + _PAUSE_S
        except ElisionError as exc:
            _log.info("the upstream could not be asked what it offers (%s)", type(exc).__name__)
        finally:
            self._running = None


def _top(n: int) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": n}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [_object(one) for one in value] if isinstance(value, list) else []


def _first(reply: object) -> dict[str, Any]:
    return next(iter(_objects(_object(reply).get("choices"))), {})


def _said(reply: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a reply says, wherever it says it; nothing if it says nothing."""
    message = _object(_first(reply).get("message"))
    said = tuple(message.get(key) or "" for key in ("content", "reasoning_content", "reasoning"))
    return said if any(said) else ()


def _n_prompt(reply: Mapping[str, Any]) -> int:
    n_tokens = _object(reply.get("usage")).get("prompt_tokens")
    return n_tokens if isinstance(n_tokens, int) else 0
