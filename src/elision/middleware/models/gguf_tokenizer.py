"""The tokenizer inside a GGUF: byte-level BPE with SmolLM's digit splitter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from elision.errors import PullError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


def byte_level(tokens: Sequence[str], *, merges: Sequence[str], kinds: Sequence[int]) -> Tokenizer:
    """Build the tokenizer that llama.cpp calls ``smollm``.

    Every digit is a token of its own: without the splitter, two spaces before a digit would be
    spelled by tokens that the model never met there.

    Args:
        tokens: The vocabulary, in GPT-2's printable spelling of bytes; an index is an id.
        merges: Pairs ``"left right"``, strongest first.
        kinds: llama.cpp's type of each token: 1 normal, 3 control (special), 4 user-defined.

    Raises:
        PullError: If there are tokens of other types, or merges of unknown tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if unknown := set(kinds) - {_NORMAL, _CONTROL, _USER_DEFINED}:
        raise PullError(f"the GGUF's vocabulary has tokens of the types {sorted(unknown)}")
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        raise PullError("the GGUF's vocabulary names a token twice, or types too few or too many")
    vocab = {token: index for index, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=_pairs(merges, vocab)))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    made.decoder = decoders.ByteLevel()
    for kind, add in ((_CONTROL, made.add_special_tokens), (_USER_DEFINED, made.add_tokens)):
        add(
            [
                AddedToken(token, normalized=False, special=kind == _CONTROL)
                for token, its in zip(tokens, kinds, strict=True)
                if its == kind
            ]
        )
    return made


def _pairs(merges: Sequence[str], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocab.keys():
            raise PullError("the GGUF's merges join tokens that its vocabulary lacks")
        pairs.append((left, right))
    return pairs
