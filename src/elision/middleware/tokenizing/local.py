"""The tokenizer of a model in this process."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast, runtime_checkable

from elision.contract import Capability, Engine
from elision.middleware.asks import check_asks
from elision.middleware.fields import reject, unsupported
from elision.middleware.tokenizing.base import Tokenized, ToTokenize, check_ids, told

if TYPE_CHECKING:
    from concurrent.futures import Future

    from elision.middleware.engines.causal import CausalModel

_UNRENDERED: Final = (
    "chat_template", "chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs",
)  # fmt: skip
"""Fields of vLLM's that change what a chat is rendered to; no chat answered here has one."""


@runtime_checkable
class Lending(Protocol):
    """An engine that lends its model; see `LocalEngine`."""

    name: str
    capabilities: Capability

    def borrow(self, work: Callable[[CausalModel], Any]) -> Future[Any]:
        """See `LocalEngine.borrow`."""
        ...


class LocalTokens:
    """A copy of a model's tokenizer: long texts do not hold up the model's thread.

    Args:
        engine: Whose it is.
        reader: Renders prompts as its model does, on any thread and of any length.
        n_context: Longest sequence that the model takes.
    """

    def __init__(self, engine: Engine, reader: CausalModel, n_context: int) -> None:
        self._engine = engine
        self._reader = reader
        self._tokenizer = cast("Any", reader.tokenizer)
        self._n_context = n_context

    @classmethod
    async def of(cls, engine: Lending) -> Self:
        """Copy the tokenizer of *engine*, on its thread.

        Raises:
            BusyError: If its queue is full.
            EngineError: If it is closed.
        """
        reader, n_context = await asyncio.wrap_future(engine.borrow(_reader))
        return cls(cast("Engine", engine), reader, n_context)

    async def tokenize(self, wanted: ToTokenize) -> Tokenized:
        """See `Tokens.tokenize`."""
        return await asyncio.to_thread(self._tokenize, wanted)

    def _tokenize(self, wanted: ToTokenize) -> Tokenized:
        ids = self._chat(wanted) if wanted.request.kind == "chat" else self._prompt(wanted)
        names = tuple(self._tokenizer.convert_ids_to_tokens(list(ids))) if wanted.names else None
        return Tokenized(ids=ids, n_context=self._n_context, names=names)

    def _prompt(self, wanted: ToTokenize) -> tuple[int, ...]:
        encoded = self._tokenizer(wanted.request.prompt, add_special_tokens=wanted.special)
        return tuple(encoded["input_ids"])

    def _chat(self, wanted: ToTokenize) -> tuple[int, ...]:
        check_asks(wanted.request, self._engine)
        for key in _UNRENDERED:
            if wanted.request.extra.get(key):
                raise unsupported(key, "rendering a chat otherwise than it is answered is")
        if wanted.special:
            raise reject("add_special_tokens", "must be false: the chat's template adds its own")
        return self._reader.render(wanted.request).ids

    async def detokenize(self, ids: Sequence[int]) -> str:
        """See `Tokens.detokenize`."""
        check_ids(ids, self._reader.vocab_size)
        return await asyncio.to_thread(self._text, ids)

    def _text(self, ids: Sequence[int]) -> str:
        # Models may score more ids than the tokenizer knows; these write nothing.
        known = [token for token in ids if token < len(self._tokenizer)]
        text: str = self._tokenizer.decode(
            known, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    async def info(self) -> dict[str, Any]:
        """See `Tokens.info`."""
        own = {**self._tokenizer.init_kwargs, **self._tokenizer.special_tokens_map}
        own["model_max_length"] = self._n_context
        own["tokenizer_class"] = type(self._tokenizer).__name__
        own["chat_template"] = self._tokenizer.chat_template
        return told(own)


def _reader(model: CausalModel) -> tuple[CausalModel, int]:
    reader = copy.copy(model)
    reader.tokenizer = copy.deepcopy(model.tokenizer)
    reader.model, reader.n_context = None, sys.maxsize
    return reader, model.n_context
