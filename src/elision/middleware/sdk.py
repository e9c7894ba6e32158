"""The short forms: one call from nothing to a client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from elision.errors import UpstreamError
from elision.middleware.assembly import around, assemble
from elision.middleware.client import Client
from elision.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from elision.agents.langchain import ChatElision


def load(
    model: str | None = None,
    *,
    profile: str | None = None,
    assistants: Mapping[str, str] | None = None,
    **settings: Any,
) -> Client:
    """Return a client for a model of this machine, pulled first if need be.

    Args:
        model: An alias, a hub id or a folder; None takes the setting's.
        profile: Profile of calls that name none.
        assistants: Other models that calls may have read beside it, by name: each an alias, a hub
            id or a folder; None takes the setting's.
        **settings: Any of `Settings`: ``home``, ``cache``, ``dtype``, ``threads``, ``tenant`` ...

    Raises:
        ConfigError: If an assistant has other tokens than the model.
        MissingExtraError: If the ``local`` extra is not installed.
        NotFoundError: If there is no such model or profile.
        PullError: If the model cannot be fetched.
    """
    from elision.middleware.models.progress import RichProgress

    chosen = _settings(model=model, profile=profile, assistants=assistants, **settings)
    chosen = chosen.model_copy(update={"upstream": None})
    with RichProgress() as progress:
        return Client(assemble(chosen, progress=progress))


def wrap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    profile: str | None = None,
    assistants: Mapping[str, PreTrainedModel] | None = None,
    **settings: Any,
) -> Client:
    """Return a client for a model that is already in memory.

    Args:
        model: Any causal language model of transformers; the client's thread uses it from now on.
        tokenizer: Its fast tokenizer.
        profile: Profile of calls that name none.
        assistants: Other models that calls may have read beside it, by name; of the same tokenizer.
        **settings: Any of `Settings` that concern the register or the limits.

    Raises:
        ConfigError: If an assistant has other tokens than the model.
        LexiconError: If the tokenizer cannot be guarded.
    """
    from elision.middleware.engines.local import LocalEngine

    chosen = _settings(profile=profile, **settings)
    engine = LocalEngine.wrap(model, tokenizer, settings=chosen, assistants=assistants)
    return Client(around(engine, chosen))


def connect(
    url: str,
    *,
    model: str | None = None,
    key: str | None = None,
    profile: str | None = None,
    **settings: Any,
) -> Client:
    """Return a client for an OpenAI-compatible server, guarded by this machine's register.

    Args:
        url: Its base URL, with ``/v1``.
        model: The model to ask for; None takes the first that the server lists.
        key: Bearer key for the server.
        profile: Profile of calls that name none.
        **settings: Any of `Settings`: ``home``, ``tenant``, ``upstream_timeout_s`` ...

    Raises:
        UpstreamError: If the server does not answer.
    """
    named = model or _first_model(url, key, private=settings.get("upstream_private", False))
    chosen = _settings(upstream=url, model=named, upstream_key=key, profile=profile, **settings)
    if "assistants" not in settings:  # a file's are those of the model that is served from here
        chosen = chosen.model_copy(update={"assistants": {}})
    return Client(assemble(chosen))


def chat_model(model: str | None = None, **options: Any) -> ChatElision:
    """Return a LangChain chat model over a model of this machine; its ``close`` ends both.

    Args:
        model: See `load`.
        **options: ``client`` for one that exists, and stays its owner's to close;
            ``profile``, ``temperature``, ``max_tokens`` ...

    Raises:
        MissingExtraError: If the ``agents`` extra is not installed.
    """
    from elision.agents.langchain import ChatElision

    client = options.pop("client", None)
    if client is not None:
        return ChatElision(client=client, **options)
    client = load(model)
    options.setdefault("owns_client", True)
    try:
        return ChatElision(client=client, **options)
    except BaseException:
        client.close()
        raise


def _first_model(url: str, key: str | None, *, private: bool) -> str:
    from elision.middleware.engines.remote import RemoteEngine

    async def ask() -> tuple[str, ...]:
        engine = RemoteEngine(url, model="", key=key, private=private)
        try:
            return await engine.models()
        finally:
            await engine.aclose()

    with ThreadPoolExecutor(1) as pool:  # the caller may be inside a running loop
        models = pool.submit(asyncio.run, ask()).result()
    if not models:
        raise UpstreamError(f"the server at {url!r} lists no model; name one with model=...")
    return models[0]


def _settings(**given: Any) -> Settings:
    return Settings(**{key: value for key, value in given.items() if value is not None})
