"""Encoders as LangChain embeddings, and LangChain embeddings as an encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from elision.encoders.encoder import SentenceEncoder
from elision.encoders.protocol import Encoder
from elision.encoders.vector_cache import ENTRIES
from elision.errors import EngineError, MissingExtraError
from elision.memory.index.vectors import unit

try:
    from langchain_core.embeddings import Embeddings
except ImportError as exc:
    raise MissingExtraError("langchain-core", extra="agents") from exc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LocalEmbeddings(Embeddings):
    """An encoder of ours, for whatever takes LangChain's embeddings. Nothing leaves the machine.

    Args:
        encoder: What turns texts into vectors; not closed here.
        tenant: Whose cache of vectors is used; no tenant reads another's.
    """

    def __init__(self, encoder: Encoder, *, tenant: str = "default") -> None:
        self._encoder = encoder
        self._tenant = tenant

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one unit vector per text.

        Raises:
            EngineError: If the encoder breaks or is closed.
        """
        return _lists(self._encoder.embed(texts, tenant=self._tenant).result())

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of one text: the same as that of a document."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the same without blocking the event loop."""
        future = self._encoder.embed(texts, tenant=self._tenant)
        return _lists(await asyncio.wrap_future(future))

    async def aembed_query(self, text: str) -> list[float]:
        """Return the same without blocking the event loop."""
        return (await self.aembed_documents([text]))[0]


def _lists(rows: NDArray[np.float32]) -> list[list[float]]:
    found: list[list[float]] = rows.tolist()
    return found


class EmbeddingsEncoder(SentenceEncoder):
    """LangChain embeddings, for whatever takes an encoder of ours; on a thread of their own.

    Documents and queries are embedded alike, by ``embed_documents``: a store compares them. Vectors
    are brought to length 1, and kept per tenant until they are erased.

    Args:
        embeddings: LangChain's. What they send to whom is their affair.
        name: Part of a store's identity: another name is another encoder. None: the class's name
            and the model that it names.
        dim: Numbers per vector; None asks for one vector to see.
        entries: Vectors kept.

    Raises:
        EngineError: If *dim* is None and the embeddings give no vector.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        name: str | None = None,
        dim: int | None = None,
        entries: int = ENTRIES,
    ) -> None:
        def embed(texts: Sequence[str]) -> NDArray[np.float32]:
            return unit(embeddings.embed_documents(list(texts)))

        name = _name(embeddings) if name is None else name
        super().__init__(embed, name=name, dim=dim or _dim(embeddings, name), entries=entries)


def _name(embeddings: Embeddings) -> str:
    models = (getattr(embeddings, name, None) for name in ("model_name", "model"))
    model = next((model for model in models if isinstance(model, str)), "")
    return ":".join(filter(None, (type(embeddings).__name__, model)))


def _dim(embeddings: Embeddings, name: str) -> int:
    rows = embeddings.embed_documents(["dimension"])
    if len(rows) != 1 or not rows[0]:
        raise EngineError(f"the embeddings {name!r} gave no vector for a text")
    return len(rows[0])
