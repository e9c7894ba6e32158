"""What the plug-in knows of the server that it runs in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeGuard, cast

from elision.contract import Lexicon, Request
from elision.errors import ConfigError, GuardError
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.plugin.admission import secret_of
from elision.middleware.engines.plugin.kept import Kept
from elision.middleware.interventions.entropy.rows import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from elision.contract import Recipe
    from elision.middleware.engines.plugin.orders import Order


class Worker:
    """One of vLLM's processes, seen from a row: vocabulary, end tokens, masks learned.

    The `Reader` of the sessions that it opens. Lives as long as the process.

    Args:
        tokenizer: Makes the server's tokenizer; called once.
        vocab_size: Scores per row.
        eos: Tokens that end a reply.
        secret: What orders are sealed with; None takes any.
        unfit: Why no order can be carried out here, in one sentence; empty: nothing is wrong.

    Attributes:
        kept: Masks learned.
    """

    def __init__(
        self,
        tokenizer: Callable[[], PreTrainedTokenizerBase],
        *,
        vocab_size: int,
        eos: Iterable[int] = (),
        secret: str | None = None,
        unfit: str = "",
    ) -> None:
        self._make_tokenizer = tokenizer
        self._listed_eos = frozenset(eos)
        self.vocab_size = vocab_size
        self.secret = secret
        self.unfit = unfit
        self.kept = Kept()

    @classmethod
    def of(cls, vllm_config: Any, *, unfit: str = "") -> Self:
        """Return the worker of a vLLM that is configured like this; nothing is read yet."""
        config = vllm_config.model_config
        return cls(
            lambda: _tokenizer(config),
            vocab_size=int(config.get_vocab_size()),
            eos=_eos(config.try_get_generation_config(), config.hf_text_config),
            secret=secret_of(os.environ),
            unfit=unfit,
        )

    def __repr__(self) -> str:
        return f"Worker({self.vocab_size} scores, {self.kept!r})"

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The server's own."""
        return self._make_tokenizer()

    @cached_property
    def lexicon(self) -> TokenizerLexicon:
        """What its tokens write.

        Raises:
            LexiconError: If that cannot be told: nothing can be guarded then.
        """
        return TokenizerLexicon.of(self.tokenizer, vocab_size=self.vocab_size)

    @cached_property
    def eos(self) -> frozenset[int]:
        """Tokens that end a reply, the tokenizer's own included."""
        own = cast("Any", self.tokenizer).eos_token_id
        return frozenset(t for t in (*self._listed_eos, own) if self._has(t))

    @cached_property
    def silent(self) -> tuple[int, ...]:
        """Tokens that an order without a stop token ends with: end tokens, or else specials.

        Raises:
            ConfigError: If the model has neither.
        """
        found = self.eos or frozenset(t for t in self.lexicon.special if self._has(t))
        if not found:
            raise ConfigError("the model has no token that writes nothing; it cannot be stopped")
        return tuple(sorted(found))

    def get_ready(self) -> None:
        """Read the vocabulary, and compile what a CPU sharpens rows by, while nobody waits.

        Raises:
            LexiconError: If nothing can be guarded with this vocabulary.
            ConfigError: If the model has no token that writes nothing.
        """
        import torch

        _ = self.silent, self.lexicon
        if not torch.cuda.is_available():
            prepare()

    def ends(self, order: Order) -> tuple[int, ...]:
        """Return what is forced where nothing acceptable is left."""
        return (order.stop,) if self._has(order.stop) else self.silent

    def reserved(self, order: Order) -> tuple[int, ...]:
        """Return what nothing but a dead row may choose."""
        return (order.stop,) if self._has(order.stop) else ()

    def masks(self, order: Order) -> tuple[Recipe, ...]:
        """Return what enforces the masks that *order* asks for; learn them first if it has them.

        Raises:
            GuardError: If they are not known here, or are not those it has.
            TargetError: If what it has are no masks.
        """
        learned = None if order.learn is None else self.kept.learn(order.learn)
        if not order.guard:
            return ()
        masks = self.kept.find(order.guard)
        if masks is None or learned not in (None, order.guard):
            raise GuardError("the masks of an order are not known to this server; send them first")
        return masks.recipes(self.read_lexicon)

    def encode(self, text: str) -> tuple[int, ...]:
        """See `Reader.encode`."""
        ids = cast("Any", self.tokenizer)(text, add_special_tokens=False)["input_ids"]
        return tuple(cast("list[int]", ids))

    def prompt_after(self, change: Callable[[Request], Request]) -> tuple[int, ...]:
        """Raise: requests are rendered before they come here.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("another prompt cannot be rendered inside vLLM; give its tokens")

    def entropy_exceeded(self, share: float) -> float:
        """Raise: nobody has measured the model here.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("a share of positions cannot be told inside vLLM; give tau, in nats")

    @property
    def read_lexicon(self) -> Lexicon:
        """`lexicon`, as recipes take it."""
        # pyright takes no cached_property for a protocol's property.
        return cast("Lexicon", self.lexicon)

    def _has(self, token: object) -> TypeGuard[int]:
        return isinstance(token, int) and 0 <= token < self.vocab_size


def _tokenizer(config: Any) -> PreTrainedTokenizerBase:
    from importlib import import_module

    found = import_module("vllm.tokenizers").cached_tokenizer_from_config(config)
    if found is None:
        raise ConfigError("the server runs without a tokenizer; leave out --skip-tokenizer-init")
    return cast("PreTrainedTokenizerBase", found)


def _eos(generation: Mapping[str, Any], model: Any) -> frozenset[int]:
    """Return the end tokens that a model's configurations name, a single one or a list."""
    named = (generation.get("eos_token_id"), getattr(model, "eos_token_id", None))
    listed = (ids if isinstance(ids, list | tuple) else [ids] for ids in named)
    return frozenset(token for ids in listed for token in ids if isinstance(token, int))
