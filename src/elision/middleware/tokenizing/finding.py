"""Whose tokenizer is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from elision.contract import Engine, Request
from elision.errors import CapabilityError
from elision.middleware.tokenizing.encoder import EncoderTokens
from elision.middleware.tokenizing.forwarded import Answering, ForwardedTokens
from elision.middleware.tokenizing.local import Lending, LocalTokens

if TYPE_CHECKING:
    from elision.middleware.pipeline import Pipeline
    from elision.middleware.tokenizing.base import Tokens


class Tokenizers:
    """Finds the tokenizer of each model, and keeps what was copied. Lives with its pipeline.

    Args:
        pipeline: Whose models.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._kept: dict[str, Tokens] = {}

    async def of(self, model: str) -> Tokens:
        """Return the tokenizer of *model*.

        Args:
            model: An engine's alias, with a profile or not, or the encoder's; empty is the only
                engine there is.

        Raises:
            NotFoundError: If there is no such model.
            CapabilityError: If it tells no tokens.
            ElisionError: If it cannot be loaded.
        """
        embeddings = self._pipeline.embeddings
        if model and model == embeddings.name and model not in self._pipeline.engines:
            pieces = await embeddings.pieces()
            if pieces is None:
                raise _unable(model)
            return EncoderTokens(pieces)
        engine, _ = self._pipeline.resolve(Request(model=model))
        if engine.name not in self._kept:
            self._kept[engine.name] = await _of(engine)
        return self._kept[engine.name]


async def _of(engine: Engine) -> Tokens:
    if isinstance(engine, Lending):
        return await LocalTokens.of(engine)
    servers: Sequence[object] = getattr(engine, "replicas", (engine,))
    answering = [server for server in servers if isinstance(server, Answering)]
    if answering:
        return ForwardedTokens(engine.name, answering)
    raise _unable(engine.name)


def _unable(name: str) -> CapabilityError:
    return CapabilityError("a tokenizer", engine=name, missing="TOKEN_IDS", param="model")
