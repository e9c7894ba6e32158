"""The tokenizer behind an upstream, asked as vLLM and llama.cpp's server are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from elision.errors import CapabilityError, ElisionError, NotFoundError, UpstreamError
from elision.middleware.tokenizing.base import Tokenized, ToTokenize, told

T = TypeVar("T")

_UNABLE: Final = (404, 405, 501)
_OURS: Final = ("elision", "model")


@runtime_checkable
class Answering(Protocol):
    """A server that is asked for JSON; see `RemoteEngine.ask`."""

    model: str

    async def ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        """See `RemoteEngine.ask`."""
        ...


class ForwardedTokens:
    """Asks the first of several like servers that answers.

    Args:
        name: The engine's, for errors.
        servers: In the order in which they are asked.
    """

    def __init__(self, name: str, servers: Sequence[Answering]) -> None:
        self._name = name
        self._servers = tuple(servers)

    async def tokenize(self, wanted: ToTokenize) -> Tokenized:
        """See `Tokens.tokenize`."""
        body = {key: value for key, value in wanted.body.items() if key not in _OURS}
        if wanted.request.kind == "text":  # what llama.cpp's server calls them
            body |= {"content": wanted.request.prompt, "add_special": wanted.special}
        said = await self._asked("POST", "/tokenize", body)
        ids = _all_of(int, said.get("tokens"))
        if ids is None:
            raise self._strange("/tokenize")
        n_context = said.get("max_model_len")
        return Tokenized(
            ids=ids,
            n_context=n_context if type(n_context) is int else None,
            names=_all_of(str, said.get("token_strs")) if wanted.names else None,
        )

    async def detokenize(self, ids: Sequence[int]) -> str:
        """See `Tokens.detokenize`."""
        said = await self._asked("POST", "/detokenize", {"tokens": [*ids]})
        text = said.get("prompt", said.get("content"))
        if not isinstance(text, str):
            raise self._strange("/detokenize")
        return text

    async def info(self) -> dict[str, Any]:
        """See `Tokens.info`."""
        return told(await self._asked("GET", "/tokenizer_info", None))

    async def _asked(
        self, method: str, route: str, body: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        failure: ElisionError | None = None
        for server in self._servers:
            named = None if body is None else {**body, "model": server.model}
            try:
                said = await server.ask(method, route, named)
            except (NotFoundError, UpstreamError) as exc:
                if not (_is_unable(exc) or exc.retryable):
                    raise
                failure = failure or exc
                continue
            if isinstance(said, Mapping):
                return said
            raise self._strange(route)
        raise self._refusal(route, failure)

    def _refusal(self, route: str, failure: ElisionError | None) -> ElisionError:
        if failure is None or _is_unable(failure):
            return CapabilityError(route, engine=self._name, missing="TOKEN_IDS", param="model")
        return failure

    def _strange(self, route: str) -> UpstreamError:
        return UpstreamError(f"the upstream's answer at {route} is none that is known")


def _is_unable(exc: ElisionError) -> bool:
    """Whether *exc* says that there is no such route; of a GET, that is an upstream's failure."""
    return isinstance(exc, NotFoundError) or getattr(exc, "upstream_status", None) in _UNABLE


def _all_of(kind: type[T], values: object) -> tuple[T, ...] | None:
    if isinstance(values, list) and all(type(value) is kind for value in values):
        return tuple(values)
    return None
