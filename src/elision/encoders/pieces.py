"""A sentence encoder's tokens: how many a text has, which they are, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer


class Pieces:
    """A tokenizer that cuts nothing off and pads nothing. Immutable; any thread may call.

    Attributes:
        n_context: Tokens of a text that the encoder reads, its frame included; it overlooks more.
        frame: What stands around the tokens of every text, as ``(begin, end)``.
    """

    def __init__(self, tokenizer: Tokenizer, *, n_context: int) -> None:
        """Take over *tokenizer*: nobody else may change its settings from now on."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.n_context = n_context
        # The tokens of one letter stand in the middle, so they tell begin from end.
        whole, bare = self.encode(["a"])[0], tokenizer.encode("a", add_special_tokens=False).ids
        at = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
        self.frame = tuple(whole[:at]), tuple(whole[at + len(bare) :])

    @classmethod
    def of(cls, model: SentenceTransformer) -> Self | None:
        """Return the tokens of *model*, on a copy of its tokenizer; None if that is a slow one."""
        from tokenizers import Tokenizer

        own: Any = model.tokenizer
        backend = getattr(own, "backend_tokenizer", None)
        if backend is None:
            return None
        pieces = cls(Tokenizer.from_str(backend.to_str()), n_context=0)
        prompt = (model.prompts or {}).get(model.default_prompt_name or "", "")
        n_prompt = len(pieces.encode([prompt], framed=False)[0]) if prompt else 0
        pieces.n_context = int(model.max_seq_length or own.model_max_length) - n_prompt
        return pieces

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return self._tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str], *, framed: bool = True) -> list[list[int]]:
        """Return the token ids of each text; *framed* as the encoder reads it."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=framed)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[int], *, framed: bool = False) -> str:
        """Return the text that *ids* spell, with the frame's tokens only if *framed*."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=not framed)

    def names(self, ids: Sequence[int]) -> list[str]:
        """Return what the tokenizer calls each token; nothing for an id that it has not."""
        return [self._tokenizer.id_to_token(token) or "" for token in ids]

    def text(self, ids: Sequence[int]) -> str | None:
        """Return the text whose tokens *ids* are, exactly and framed; None if there is none."""
        begin, end = self.frame
        inner = ids[len(begin) : len(ids) - len(end)]
        if not (inner and (begin or end)) or [*begin, *inner, *end] != list(ids):
            return None
        if max(ids) >= len(self):
            return None
        text = self.decode(ids)
        return text if self.encode([text])[0] == list(ids) else None
