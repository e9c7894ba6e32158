"""Elision: a decoding proxy that decides, token by token, what a model may say.

Three ways in: ``load`` (or ``wrap``, or ``connect``) for Python, ``elision serve`` for an
OpenAI-compatible endpoint, `chat_model` for LangChain. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from elision.errors import ElisionError as ElisionError

if TYPE_CHECKING:
    from elision.agents.atlas.atlas import Atlas as Atlas
    from elision.contract import Completion as Completion
    from elision.contract import Delta as Delta
    from elision.contract import Request as Request
    from elision.contract import Sampling as Sampling
    from elision.guards.targets import ForgetTarget as ForgetTarget
    from elision.guards.targets import Phrase as Phrase
    from elision.memory.memory import Memory as Memory
    from elision.middleware.client import Client as Client
    from elision.middleware.engines.custom_generate import recycling as recycling
    from elision.middleware.engines.processor import (
        as_logits_processor as as_logits_processor,
    )
    from elision.middleware.sdk import chat_model as chat_model
    from elision.middleware.sdk import connect as connect
    from elision.middleware.sdk import load as load
    from elision.middleware.sdk import wrap as wrap
    from elision.settings import Settings as Settings

_HOMES = {
    "Atlas": "elision.agents.atlas.atlas",
    "Client": "elision.middleware.client",
    "Completion": "elision.contract",
    "Delta": "elision.contract",
    "ForgetTarget": "elision.guards.targets",
    "Memory": "elision.memory.memory",
    "Phrase": "elision.guards.targets",
    "Request": "elision.contract",
    "Sampling": "elision.contract",
    "Settings": "elision.settings",
    "as_logits_processor": "elision.middleware.engines.processor",
    "chat_model": "elision.middleware.sdk",
    "connect": "elision.middleware.sdk",
    "load": "elision.middleware.sdk",
    "recycling": "elision.middleware.engines.custom_generate",
    "wrap": "elision.middleware.sdk",
}

__version__ = _version("elision")
__all__ = [
    "Atlas",
    "Client",
    "Completion",
    "Delta",
    "ElisionError",
    "ForgetTarget",
    "Memory",
    "Phrase",
    "Request",
    "Sampling",
    "Settings",
    "__version__",
    "as_logits_processor",
    "chat_model",
    "connect",
    "load",
    "recycling",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'elision' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
