"""Small real tokenizers that need no download.

Both are fast tokenizers of the tokenizers package with byte-level decoding, so
`TokenizerLexicon.of` accepts them, and both speak ChatML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from elision.errors import MissingExtraError
from elision.lexicon import TokenizerLexicon

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% if not (loop.last and continue_final_message is defined and continue_final_message) %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The chat template: every turn between ``<|im_start|>`` and ``<|im_end|>``, no default system."""

PAD, BOS, EOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer in which every byte is a token and its id is the byte.

    A character beyond ASCII therefore arrives as several tokens, none of which is a whole
    character. Ids 256, 257 and 258 are bos, eos and pad.

    Raises:
        MissingExtraError: If transformers is not installed.
    """
    return _fast(_byte_level({letter: byte for byte, letter in enumerate(_letters())}))


def byte_lexicon() -> TokenizerLexicon:
    """Return what `byte_tokenizer`'s tokens write; needs no package beyond Elision's own."""
    pieces = [bytes([byte]) for byte in range(256)]
    return TokenizerLexicon([*pieces, b"", b"", b""], special=(256, 257, 258))


def word_tokenizer(texts: Iterable[str], *, vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE trained on *texts*: common words are one token, rare ones several.

    Args:
        texts: What to learn merges from; the same texts always give the same tokenizer.
        vocab_size: Most tokens to end with; at least 259, for the bytes and the specials.

    Raises:
        MissingExtraError: If transformers is not installed.
    """
    from tokenizers import pre_tokenizers, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer = _byte_level({}, use_regex=True)
    tokenizer.train_from_iterator(texts, trainer)
    return _fast(tokenizer)


def _letters() -> list[str]:
    """Return GPT-2's printable letter for each byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def _byte_level(vocab: dict[str, int], *, use_regex: bool = False) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    try:
        from transformers import PreTrainedTokenizerFast
    except ImportError as exc:
        raise MissingExtraError("transformers", extra="local") from exc
    make: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    fast = make(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD)
    fast.chat_template = CHATML
    return fast
