"""What is asked of a tokenizer, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from elision.contract import Request
from elision.errors import RequestError

_TOLD: Final = frozenset(
    {
        "add_bos_token", "add_eos_token", "add_prefix_space", "bos_token", "chat_template",
        "clean_up_tokenization_spaces", "cls_token", "eos_token", "legacy", "mask_token",
        "model_max_length", "pad_token", "padding_side", "sep_token", "tokenizer_class",
        "truncation_side", "unk_token",
    }
)  # fmt: skip
"""Settings that are told; others may hold where a tokenizer lies on disk."""

_LONGEST: Final = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ToTokenize:
    """A text or a conversation to be seen as tokens.

    Attributes:
        request: Its prompt, or its messages as a chat would be asked with them.
        special: Whether a prompt gets the tokens that begin and end a text.
        names: Whether it is also wanted what the tokenizer calls each token.
        body: As the caller sent it, for an upstream.
    """

    request: Request
    special: bool = True
    names: bool = False
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenized:
    """What a text is as tokens.

    Attributes:
        ids: The tokens.
        n_context: Longest sequence that the model takes; None if nobody tells.
        names: What the tokenizer calls each, if that was wanted.
    """

    ids: tuple[int, ...] = field(repr=False)
    n_context: int | None = None
    names: tuple[str, ...] | None = field(default=None, repr=False)


class Tokens(Protocol):
    """A model's tokenizer."""

    async def tokenize(self, wanted: ToTokenize) -> Tokenized:
        """Return the tokens of a text.

        Raises:
            RequestError: If it cannot be rendered as asked.
            ElisionError: If an upstream cannot be asked.
        """
        ...

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text that *ids* write, special tokens included.

        Raises:
            RequestError: If one of them does not exist.
            ElisionError: If an upstream cannot be asked.
        """
        ...

    async def info(self) -> dict[str, Any]:
        """Return what may be told of its settings, named as in ``tokenizer_config.json``."""
        ...


def told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a tokenizer's settings what is told: words, numbers and flags, and no paths."""
    found = {key: _written(value) for key, value in settings.items()}
    return {
        key: min(value, _LONGEST) if type(value) is int else value
        for key, value in sorted(found.items())
        if key in _TOLD and isinstance(value, str | int | float | None)
    }


def _written(value: Any) -> Any:
    """Return what a token writes that is told with how it is read; everything else as it is."""
    if isinstance(value, Mapping):
        return value.get("content")
    return getattr(value, "content", value)


def check_ids(ids: Sequence[int], n_tokens: int) -> None:
    """Raise if one of *ids* is none of *n_tokens* tokens.

    Raises:
        RequestError: Saying how many are not.
    """
    if bad := sum(not 0 <= token < n_tokens for token in ids):
        raise RequestError(
            f"{bad} of 'tokens' are outside the vocabulary of {n_tokens}",
            param="tokens",
            code="invalid_value",
        )
