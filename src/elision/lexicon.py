"""What each token writes: the one file that knows about pieces and bytes.

A lexicon is a tokenizer seen from the outside: token id in, bytes out. Guard, hold-back and
emitter read the same lexicon, so what is scanned is what is sent.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from elision.errors import LexiconError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PROBE = "Elision's probe: naïve café, 12 345 ± 6 — Ω, 東京, 🙂.\n\tEnd."


class TokenizerLexicon:
    """The bytes each token writes, and how they become text.

    Immutable. Special tokens write nothing, as do ids that the model scores but the tokenizer
    does not know.

    Attributes:
        special: Ids of the special tokens.
    """

    def __init__(self, pieces: Sequence[bytes], *, special: Iterable[int] = ()) -> None:
        self.special = frozenset(special)
        self._bytes = tuple(
            b"" if token in self.special else piece for token, piece in enumerate(pieces)
        )
        self._text = tuple(_whole(piece) for piece in self._bytes)
        self._continuing = tuple(t for t, b in enumerate(self._bytes) if b and b[0] & 0xC0 == 0x80)
        self._partial = tuple(t for t, text in enumerate(self._text) if text is None)

    def __len__(self) -> int:
        return len(self._bytes)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that *token* writes; none for an id beyond the vocabulary."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    @property
    def texts(self) -> tuple[str | None, ...]:
        """The text of each token; None where its bytes are not whole characters."""
        return self._text

    @property
    def continuing(self) -> tuple[int, ...]:
        """Tokens whose first byte continues a character: only these can complete pending bytes."""
        return self._continuing

    @property
    def partial(self) -> tuple[int, ...]:
        """Tokens whose bytes are not whole characters by themselves."""
        return self._partial

    def write(self, pending: bytes, token: int) -> tuple[str, bytes]:
        """Return what *token* adds to the text, and the bytes that still wait for their character.

        Args:
            pending: The bytes left over by the call before; empty at the start.
            token: Id of the next token.

        Returns:
            ``(text, pending)``. Bytes that can no longer become a character are written as U+FFFD,
            one for each maximal part, as Unicode advises.
        """
        if not pending and 0 <= token < len(self._text):
            text = self._text[token]
            if text is not None:
                return text, b""
        return decode(pending + self.bytes_of(token))

    def finish(self, pending: bytes) -> str:
        """Return the text that *pending* becomes when nothing follows it."""
        return pending.decode("utf-8", "replace")

    def text(self, tokens: Iterable[int]) -> str:
        """Return the whole text of *tokens*."""
        return b"".join(map(self.bytes_of, tokens)).decode("utf-8", "replace")

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, *, vocab_size: int | None = None
    ) -> TokenizerLexicon:
        """Read the lexicon of a Hugging Face tokenizer and prove it on a probe text.

        Args:
            tokenizer: Any fast tokenizer: byte-level BPE, or SentencePiece style with or without
                byte fall-back.
            vocab_size: How many ids the model scores, if more than the tokenizer knows.

        Raises:
            LexiconError: If the tokenizer is of another kind, or what it decodes differs from the
                joined bytes. A guard on such a lexicon would look at a text that nobody receives.
        """
        spell = _speller(tokenizer)
        size = max(len(tokenizer), vocab_size or 0)
        names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        added = {t: token.content for t, token in tokenizer.added_tokens_decoder.items()}
        pieces = [b""] * size
        for token, name in enumerate(names):
            if token in added:
                pieces[token] = added[token].encode()
            elif name is not None:
                pieces[token] = spell(name)
        special = {t for t, token in tokenizer.added_tokens_decoder.items() if token.special}
        lexicon = cls(pieces, special=special.union(tokenizer.all_special_ids))
        _prove(lexicon, tokenizer)
        return lexicon


def decode(data: bytes) -> tuple[str, bytes]:
    """Split *data* into the text it is so far and the bytes of a character not yet whole."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(data), decoder.getstate()[0]


def _whole(piece: bytes) -> str | None:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return None


@lru_cache(maxsize=1)
def _byte_of_letter() -> dict[str, int]:
    """Return GPT-2's printable alphabet for bytes, inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(hidden)}


def _spell_byte_level(name: str) -> bytes:
    table = _byte_of_letter()
    return b"".join(bytes([table[c]]) if c in table else c.encode() for c in name)


def _spell_sentencepiece(name: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace("▁", " ").encode()


def _speller(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise LexiconError(
            f"{type(tokenizer).__name__} has no tokenizers backend; convert it to a fast tokenizer"
        )
    decoder = json.dumps(json.loads(backend.to_str()).get("decoder"))
    if '"ByteLevel"' in decoder:
        return _spell_byte_level
    if '"Metaspace"' in decoder or "▁" in decoder or "\\u2581" in decoder:
        return _spell_sentencepiece
    raise LexiconError(
        f"{type(tokenizer).__name__} decodes by {decoder}; only byte-level BPE and SentencePiece "
        "vocabularies are understood"
    )


def _prove(lexicon: TokenizerLexicon, tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode(_PROBE, add_special_tokens=False)
    told = lexicon.text(ids).removeprefix(" ")
    said = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if told != str(said).removeprefix(" "):
        raise LexiconError(
            f"{type(tokenizer).__name__} decodes a probe text of {len(ids)} tokens to something "
            "else than its tokens' bytes; this tokenizer cannot be guarded"
        )
