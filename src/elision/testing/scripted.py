"""A model that knows what a test planted, and insists on saying it.

`ScriptedModel` is a real transformers model: prompts in, scores out, a key-value cache that can be
cropped, copied and batched. Only what it computes is scripted. So everything that decides
between scores and text is the real thing: the local engine, ``generate``, every recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutputWithPast

from elision.lexicon import TokenizerLexicon, decode
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.testing.script import Cursor, FactTable
from elision.testing.tokenizers import byte_tokenizer

_WIDTH = 8
_SHORTER = 1.5
_OTHERWISE = 1.0
_SPECIAL = -12.0
_EARLY_END = -6.0
"""In nats above everything that is not wished for: a shorter piece of the script, another
spelling of it; template tokens; the end before the end."""


class ScriptedConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes of a `ScriptedModel`; its one cache layer keeps token ids where others keep keys."""

    model_type = "elision_scripted"

    def __init__(self, vocab_size: int = 259, n_context: int = 4096, **more: Any) -> None:
        self.vocab_size = vocab_size
        self.max_position_embeddings = n_context
        self.hidden_size = _WIDTH
        self.num_hidden_layers = self.num_attention_heads = self.num_key_value_heads = 1
        cast("Any", super()).__init__(tie_word_embeddings=False, **more)


class ScriptedModel(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """A causal model whose likeliest next token continues a scripted answer.

    In a ChatML prompt the last user turn is the question and the last assistant turn what is said
    already; in raw text the question ends with the first key in it, what follows is the reply. The
    answer is spelled as the question demands. Every scripted token has runners-up: shorter pieces
    of the same word, its spelling in capitals or full width, the same after a separator, the next
    word; and beneath them a random bigram model. A mask therefore forces a detour, after which
    the model tries again (see `Cursor`), and sampling varies by seed.

    Args:
        facts: What it knows.
        tokenizer: A fast tokenizer; chat needs one whose bos and eos token delimit ChatML turns.
        certainty: How far the script stands above everything that is not wished for, in nats.
        seed: Chooses the bigram model.
        n_context: Longest sequence in tokens.
    """

    config_class = ScriptedConfig
    main_input_name = "input_ids"

    def __init__(
        self,
        facts: FactTable,
        tokenizer: PreTrainedTokenizerBase,
        *,
        certainty: float = 4.0,
        seed: int = 0,
        n_context: int = 4096,
    ) -> None:
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        super().__init__(ScriptedConfig(len(tokenizer), n_context, **ends))
        self.embed_tokens = nn.Embedding(len(tokenizer), _WIDTH)
        self.lm_head = nn.Linear(_WIDTH, len(tokenizer), bias=False)
        self._facts = facts
        self._certainty = certainty
        self._lexicon = TokenizerLexicon.of(tokenizer)
        self._pieces = _pieces(self._lexicon)
        self._longest = max(map(len, self._pieces))
        self._bos = cast("int", tokenizer.bos_token_id)
        self._eos = cast("int", tokenizer.eos_token_id)
        self._draw_(seed)
        self.train(False).requires_grad_(False)

    def _draw_(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.embed_tokens.weight.normal_(generator=draw)
            self.lm_head.weight.normal_(std=_WIDTH**-0.5, generator=draw)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Return the scores behind the last *logits_to_keep* tokens; behind all if it is 0.

        Args:
            input_ids: New tokens, shape ``(batch, positions)``.
            attention_mask: ``(batch, seen)``, or a tree's ``(batch, 1, positions, seen)``: which
                tokens each position sees.
            past_key_values: The cache; *input_ids* are appended to it.
            logits_to_keep: See above.
        """
        seen = input_ids
        if past_key_values is not None:
            keys = input_ids[:, None, :, None].float()
            seen = past_key_values.update(keys, keys, 0)[0][:, 0, :, 0].long()
        n_new = input_ids.shape[1]
        first = n_new - (logits_to_keep or n_new)
        rows = [
            [self._row(_visible(ids, attention_mask, b, q, n_new)) for q in range(first, n_new)]
            for b, ids in enumerate(seen)
        ]
        logits = torch.stack([torch.stack(row) for row in rows]).to(self.dtype)
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

    def _row(self, ids: list[int]) -> Tensor:
        """Return the scores behind *ids*, shape ``(vocab,)``: the bigram model, then the wishes."""
        row: Tensor = self.lm_head(self.embed_tokens.weight[ids[-1]]).float()
        ground = float(row.logsumexp(dim=-1))
        row[list(self._lexicon.special)] = ground + _SPECIAL
        row[self._eos] = ground + _EARLY_END
        for token, above in self._wished(ids).items():
            row[token] = ground + above
        return row

    def _wished(self, ids: list[int]) -> dict[int, float]:
        """Return the tokens that the script calls for, and how far above the ground they stand."""
        read = self._read(ids)
        text, pending = decode(read.reply)
        wishes = [w.encode() for w in Cursor(self._facts.answer(read.question)).read(text).wishes()]
        if not wishes:
            return {self._eos: self._certainty}
        data = [w.removeprefix(pending) for w in wishes if w.startswith(pending)] or wishes[:1]
        best, *shorter = self._spell(data[0])
        scores = {self._spell(d)[0]: _OTHERWISE - 0.1 * n for n, d in reversed([*enumerate(data)])}
        return {**scores, **dict.fromkeys(shorter, _SHORTER), best: self._certainty}

    def _spell(self, data: bytes) -> list[int]:
        """Return the tokens that *data* begins with, the longest first."""
        reach = min(len(data), self._longest)
        found = [self._pieces.get(data[:end]) for end in range(reach, 0, -1)]
        return [token for token in found if token is not None]

    def _read(self, ids: list[int]) -> _Read:
        """Tell the question from the beginning of the reply."""
        turns = self._turns(ids)
        if turns and turns[-1].startswith(b"assistant\n"):
            asked = [turn for turn in turns if turn.startswith(b"user\n")]
            return _Read(_text(asked[-1]) if asked else "", turns[-1].removeprefix(b"assistant\n"))
        whole = _text(b"".join(map(self._lexicon.bytes_of, ids)))
        return self._raw(whole)

    def _turns(self, ids: list[int]) -> list[bytes]:
        """Return the bytes of each ChatML turn, its role first."""
        starts = [at for at, token in enumerate(ids) if token == self._bos]
        spans = [ids[start:end] for start, end in pairwise([*starts, len(ids)])]
        return [
            b"".join(map(self._lexicon.bytes_of, span[: (*span, self._eos).index(self._eos)]))
            for span in spans
        ]

    def _raw(self, text: str) -> _Read:
        """Split raw text behind the first key in it; the reply may hold keys of its own."""
        keys = sorted(self._facts.facts, key=len, reverse=True)
        found = re.search("|".join(map(re.escape, keys)) or "$", text, re.IGNORECASE)
        end = found.end() if found else text.rfind("\n") + 1
        return _Read(text[:end], text[end:].encode())


class ScriptedEngine(LocalEngine):
    """The local engine over a `ScriptedModel`: no download, no guesswork, every contract real.

    Args:
        facts: What the model knows: a table, or answers by a part of the question.
        tokenizer: See `ScriptedModel`; by default `byte_tokenizer`.
        name: See `Engine`.
        certainty: See `ScriptedModel`.
        seed: See `ScriptedModel`.
        n_context: See `ScriptedModel`.
        limits: ``max_streams``, ``queue_limit``, ``timeout_s`` of `LocalEngine`.
    """

    def __init__(
        self,
        facts: FactTable | Mapping[str, str],
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        name: str = "scripted",
        certainty: float = 4.0,
        seed: int = 0,
        n_context: int = 4096,
        **limits: Any,
    ) -> None:
        table = facts if isinstance(facts, FactTable) else FactTable(facts=facts)
        tokenizer = tokenizer or byte_tokenizer()
        model = ScriptedModel(table, tokenizer, certainty=certainty, seed=seed, n_context=n_context)
        super().__init__(CausalModel(model, tokenizer, name=name), **limits)


class _Read(NamedTuple):
    question: str
    reply: bytes


def _visible(ids: Tensor, mask: Tensor | None, batch: int, query: int, n_new: int) -> list[int]:
    """Return the tokens that position *query* of the new ones sees, itself included."""
    prefix = ids[: len(ids) - n_new + query + 1]
    if mask is None:
        return _listed(prefix)
    if mask.dim() == 2:
        return _listed(prefix[mask[batch, : len(prefix)].bool()])
    allowed = mask[batch, 0, query]
    return _listed(ids[allowed if allowed.dtype == torch.bool else allowed == 0])


def _listed(ids: Tensor) -> list[int]:
    return [int(token) for token in ids.tolist()]


def _pieces(lexicon: TokenizerLexicon) -> dict[bytes, int]:
    """Return the token that writes each piece; of several, the one with the lowest id."""
    spelled = {lexicon.bytes_of(token): token for token in reversed(range(len(lexicon)))}
    spelled.pop(b"", None)
    return spelled


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
