"""The tokenizer of the sentence encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from elision.errors import RequestError
from elision.middleware.tokenizing.base import Tokenized, ToTokenize, check_ids, told

if TYPE_CHECKING:
    from elision.encoders.pieces import Pieces


class EncoderTokens:
    """What texts are to the sentence encoder, as ``POST /v1/embeddings`` takes them.

    Args:
        pieces: Its tokens.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    async def tokenize(self, wanted: ToTokenize) -> Tokenized:
        """See `Tokens.tokenize`.

        Raises:
            RequestError: If it is a chat: encoders have no template.
        """
        if wanted.request.kind == "chat":
            raise RequestError("a sentence encoder has no chat template", param="messages")
        return await asyncio.to_thread(self._tokenize, wanted)

    def _tokenize(self, wanted: ToTokenize) -> Tokenized:
        pieces = self._pieces
        (ids,) = pieces.encode([cast("str", wanted.request.prompt)], framed=wanted.special)
        names = tuple(pieces.names(ids)) if wanted.names else None
        return Tokenized(ids=tuple(ids), n_context=pieces.n_context, names=names)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """See `Tokens.detokenize`; what the tokenizer drops (case, spaces) does not come back."""
        check_ids(ids, len(self._pieces))
        return await asyncio.to_thread(self._pieces.decode, ids, framed=True)

    async def info(self) -> dict[str, Any]:
        """See `Tokens.info`."""
        own = {"model_max_length": self._pieces.n_context, "tokenizer_class": "Tokenizer"}
        return told(own)
