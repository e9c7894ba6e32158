"""Texts as vectors for whoever asks, screened: a vector tells much of what its text said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from elision.errors import ContextLengthError, ElisionError, GuardError, NotFoundError, RequestError
from elision.middleware.screening import RegisterScreen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from elision.encoders import Encoder
    from elision.encoders.pieces import Pieces
    from elision.guards.register.register import Register
    from elision.middleware.encoding import EncoderSource

Input: TypeAlias = "str | tuple[int, ...]"
"""A text, or the token ids that an encoder's own tokenizer makes of one."""

SLICE: Final = 128
"""Texts handed to the encoder at a time: more than a prompt has, so prompts go before them; few
enough that what is compiled waits a second, not a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What is to be embedded, and is not too long.

    Attributes:
        texts: The texts.
        n_tokens: Of all of them, their frames included.
    """

    texts: tuple[str, ...] = field(repr=False)
    n_tokens: int


class Embeddings:
    """The pipeline's sentence encoder, lent to callers. Lives as long as the pipeline.

    Args:
        source: The encoder, or where it comes from; None: there is none.
        register: What it says must not be kept is not embedded: vectors are made to be kept, texts
            can be rebuilt from them (Morris et al. 2023, arXiv:2310.06816), and no erasure of ours
            reaches where callers put them.
    """

    def __init__(self, source: EncoderSource | Encoder | None, register: Register) -> None:
        self._source = source
        self._register = register
        self._screen = RegisterScreen(register)

    @property
    def name(self) -> str:
        """The encoder's alias; empty if there is none."""
        return "" if self._source is None else self._source.name

    async def pieces(self) -> Pieces | None:
        """Return the encoder's tokens, loading it if need be; None if it does not tell them.

        Raises:
            ElisionError: If it cannot be loaded; see `EncoderSource`.
        """
        return _pieces_of(await asyncio.to_thread(self._encoder))

    async def read(self, inputs: Sequence[Input], *, dimensions: int | None = None) -> Texts:
        """Return *inputs* as texts that the encoder reads whole.

        Args:
            inputs: See `Input`.
            dimensions: Numbers per vector that the caller wants; only what the encoder has.

        Raises:
            RequestError: If one is too long, or its ids are none of the encoder's, or *dimensions*
                is another; ``param`` names it.
            ElisionError: If the encoder cannot be loaded.
        """
        encoder = await asyncio.to_thread(self._encoder)
        _check_dimensions(dimensions, encoder)
        return await asyncio.to_thread(_read, inputs, encoder)

    async def embed(self, texts: Texts, *, tenant: str) -> NDArray[np.float32]:
        """Return one unit vector per text, shape ``(len(texts.texts), dim)``, float32.

        They are kept for *tenant* until his data is erased, or they are the oldest.

        Args:
            texts: See `read`.
            tenant: Whose register applies, and whose cache.

        Raises:
            RequestError: If one holds what is registered; ``param`` names it.
            BusyError: If too many wait for the encoder.
            GuardError: If the register cannot be read.
            ElisionError: If the encoder cannot be loaded.
        """
        encoder = await asyncio.to_thread(self._encoder)
        vectors: NDArray[np.float32] | None = None
        seen: int | None = None
        # A long batch takes a minute: what was registered meanwhile is looked for again.
        while (epoch := await asyncio.to_thread(self._epoch, tenant)) != seen:
            for start in range(0, len(texts.texts), SLICE):  # so that whoever leaves ends it
                await asyncio.to_thread(self._check, texts.texts, start, tenant)
            if vectors is None:
                vectors = await _vectors(encoder, texts.texts, tenant)
            seen = epoch
        assert vectors is not None
        return vectors

    def _encoder(self) -> Encoder:
        if self._source is None:
            raise RequestError("no sentence encoder is set here; see the setting 'encoder'")
        source = self._source
        return source() if callable(source) else source

    def _check(self, texts: Sequence[str], start: int, tenant: str) -> None:
        """Raise if one of a slice must not be kept. Blocks; some milliseconds a text."""
        for index, text in enumerate(texts[start : start + SLICE], start):
            if not self._may_be_kept(text, tenant):
                raise _refused(
                    _param(index, texts),
                    "holds what is registered to be forgotten, and a vector would keep it; "
                    "leave it out",
                    "content_filter",
                )

    def _may_be_kept(self, text: str, tenant: str) -> bool:
        with _closed():
            return self._screen.may_write(tenant, text)

    def _epoch(self, tenant: str) -> int:
        with _closed():
            return self._register.epoch(tenant)


@contextmanager
def _closed() -> Iterator[None]:
    """Raise `GuardError` for whatever breaks within: nothing passes an unread register."""
    try:
        yield
    except ElisionError:
        raise
    except Exception as exc:
        raise GuardError(f"the register could not be read ({type(exc).__name__})") from exc


def no_model(alias: str, known: Iterable[str], encoder: str) -> NotFoundError:
    """Return the error for a model that writes no text: there is none, or it is the encoder."""
    there = f"there are: {', '.join(known)}"
    what = f"there is no model {alias[:128]!r}; {there}"
    if encoder and alias == encoder:
        what = f"{encoder!r} embeds and writes nothing (POST /v1/embeddings); {there}"
    return NotFoundError(what, code="model_not_found", param="model")


def _pieces_of(encoder: Encoder) -> Pieces | None:
    return getattr(encoder, "pieces", None)


def _check_dimensions(dimensions: int | None, encoder: Encoder) -> None:
    if dimensions not in (None, encoder.dim):
        raise RequestError(
            f"'dimensions' must be {encoder.dim}, which is what {encoder.name!r} has: it is not "
            "trained for parts of its vectors to stand alone",
            param="dimensions",
            code="invalid_value",
        )


def _read(inputs: Sequence[Input], encoder: Encoder) -> Texts:
    """See `Embeddings.read`. An encoder without tokens reads any length; it is counted in words."""
    pieces = _pieces_of(encoder)
    texts = [_text(one, _param(index, inputs), encoder, pieces) for index, one in enumerate(inputs)]
    if pieces is None:
        return Texts(texts=tuple(texts), n_tokens=sum(len(text.split()) for text in texts))
    counts = [len(ids) for ids in pieces.encode(texts)]
    for index, count in enumerate(counts):
        if count > pieces.n_context:
            param = _param(index, texts)
            raise ContextLengthError(
                f"{param!r} has {count} tokens, but {encoder.name!r} reads {pieces.n_context}, "
                "and would overlook the rest; send it in parts",
                param=param,
            )
    return Texts(texts=tuple(texts), n_tokens=sum(counts))


def _text(one: Input, param: str, encoder: Encoder, pieces: Pieces | None) -> str:
    if isinstance(one, str):
        return one
    text = pieces.text(one) if pieces is not None else None
    if text is None:
        raise _refused(
            param,
            f"holds token ids that are none of {encoder.name!r}: send text (with langchain-openai, "
            "set check_embedding_ctx_length=False), or the ids that /tokenize gives for this model",
            "foreign_token_ids",
        )
    return text


def _param(index: int, inputs: Sequence[object]) -> str:
    """Return the name of an input: one alone may have been sent alone."""
    return "input" if len(inputs) == 1 else f"input[{index}]"


def _refused(param: str, why: str, code: str) -> RequestError:
    return RequestError(f"{param!r} {why}", param=param, code=code)


async def _vectors(encoder: Encoder, texts: Sequence[str], tenant: str) -> NDArray[np.float32]:
    import numpy as np

    parts = [np.empty((0, encoder.dim), dtype=np.float32)]
    for start in range(0, len(texts), SLICE):
        future = encoder.embed(texts[start : start + SLICE], tenant=tenant)
        parts.append(await asyncio.wrap_future(future))
    return np.concatenate(parts)
