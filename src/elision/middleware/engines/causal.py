"""A causal language model in memory: prompts in, rows of scores out."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import DynamicCache

from elision.contract import Request, text_of
from elision.errors import ConfigError, ContextLengthError, RequestError
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.attention import is_independent
from elision.middleware.engines.cache import full_cache, growing_cache, is_whole
from elision.middleware.engines.hesitation import SAMPLE, entropies_along
from elision.middleware.engines.ragged import Segment, score_trees
from elision.middleware.forms.dialects import Dialect, dialect_of
from elision.middleware.forms.turns import templated, tools_for
from elision.middleware.speculation.base import NOTHING
from elision.middleware.speculation.compaction import truncate
from elision.middleware.speculation.masks import Windows, chain_masks

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREFILL_CHUNK = 256
"""Prompt tokens per forward: how long one request may keep the others waiting."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request's prompt, rendered.

    Attributes:
        ids: Its tokens.
        before: The text that the reply continues; see `Context.before`.
    """

    ids: tuple[int, ...]
    before: str


class CausalModel:
    """A transformers model with its tokenizer, seen as a function from tokens to scores.

    Attributes:
        name: What reports call it.
        lexicon: What its tokens write.
        vocab_size: Scores per row.
        n_context: Longest sequence it takes, in tokens.
        eos: Tokens that end a reply.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str
    ) -> None:
        self.name = name
        self.model = cast("Any", model)
        self.model.eval()
        self.tokenizer = tokenizer
        self.vocab_size = int(self.model.get_output_embeddings().weight.shape[0])
        self.lexicon = TokenizerLexicon.of(tokenizer, vocab_size=self.vocab_size)
        self.n_context = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
        self.eos = _eos_set(model, tokenizer)
        self._window = Windows.of(model.config.get_text_config())

    @classmethod
    def load(cls, folder: Path, *, name: str, dtype: torch.dtype) -> CausalModel:
        """Load a model folder onto the GPU if there is one, else the CPU.

        Raises:
            ConfigError: If the folder does not hold a causal language model.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{folder} is not a causal language model: {exc}") from exc
        return cls(model.to(device), tokenizer, name=name)

    def beside(self, model: CausalModel) -> CausalModel:
        """Return this model, as an assistant of *model*.

        Raises:
            ConfigError: If their tokens differ: rows of scores could not be mixed.
        """
        own, other = self.tokenizer.get_vocab(), model.tokenizer.get_vocab()
        if self.vocab_size != model.vocab_size or own != other:
            raise ConfigError(
                f"{self.name!r} cannot assist {model.name!r}: it has {self.vocab_size} tokens, the "
                f"other {model.vocab_size}, and {len(own.items() ^ other.items())} entries of the "
                "tokenizers differ; an assistant needs the same tokenizer and as many scores"
            )
        return self

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return cast("torch.device", self.model.device)

    @cached_property
    def entropies(self) -> Tensor:
        """How hesitant it is along `SAMPLE`, in nats, rising; read when first asked for."""
        ids = cast("list[int]", self.tokenizer(SAMPLE)["input_ids"])
        return entropies_along(self.model, ids[: self.n_context])

    @cached_property
    def dialect(self) -> Dialect:
        """How its chat template writes calls and thoughts."""
        template = self.tokenizer.chat_template
        if isinstance(template, dict):  # several, by name; transformers picks among them likewise
            template = template.get("tool_use") or template.get("default")
        found = dialect_of(template)
        found = replace(found, calls_mark_id=self._unwritten(found.calls_mark))
        return found if found.think is None else replace(found, opens_thought=self._opens(found))

    def _unwritten(self, name: str) -> int | None:
        """Return the token called *name*, if there is one and it writes nothing."""
        token = self.tokenizer.get_vocab().get(name)
        return None if token is None or self.lexicon.bytes_of(token) else token

    def _opens(self, dialect: Dialect) -> bool:
        """Return whether prompts end within a thought."""
        assert dialect.think is not None
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, ValueError):
            return False
        return cast("str", text).rstrip().endswith(dialect.think[0])

    # --- prompts ---------------------------------------------------------------------------------

    def render(self, request: Request) -> Prompt:
        """Return *request*'s prompt as tokens.

        Raises:
            RequestError: If the template refuses the messages, or a token id does not exist.
            ContextLengthError: If the prompt leaves no room for a reply.
        """
        prompt = self._chat(request) if request.kind == "chat" else self._raw(request)
        wanted = len(prompt.ids) + (request.max_tokens or 1)
        if wanted > self.n_context:
            raise ContextLengthError(
                f"The prompt has {len(prompt.ids)} tokens and {request.max_tokens or 1} more are "
                f"asked for, but {self.name!r} takes {self.n_context} in all; shorten the prompt "
                "or lower max_tokens.",
                param="messages" if request.kind == "chat" else "prompt",
            )
        return prompt

    def _chat(self, request: Request) -> Prompt:
        if not self.tokenizer.chat_template:
            raise RequestError(
                f"{self.name!r} has no chat template; use /v1/completions.", param="messages"
            )
        messages = templated(request.messages, self.dialect)
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tools=cast("Any", tools_for(request)),
                tokenize=False,
                add_generation_prompt=not request.continue_final,
                continue_final_message=request.continue_final,
            )
        except (TemplateError, ValueError) as exc:
            raise RequestError(
                f"{self.name!r}'s chat template does not take these messages.", param="messages"
            ) from exc
        ids = self.tokenizer(cast("str", text), add_special_tokens=False)["input_ids"]
        before = text_of(request.messages[-1]) if request.continue_final else ""
        return Prompt(tuple(cast("list[int]", ids)), before)

    def _raw(self, request: Request) -> Prompt:
        if isinstance(request.prompt, str):
            ids = cast("list[int]", self.tokenizer(request.prompt)["input_ids"])
            return Prompt(tuple(ids) or self._start(), request.prompt)
        if bad := [t for t in request.prompt if not 0 <= t < self.vocab_size]:
            raise RequestError(
                f"{len(bad)} prompt tokens are outside the vocabulary of {self.vocab_size}.",
                param="prompt",
            )
        return Prompt(request.prompt or self._start(), self.lexicon.text(request.prompt))

    def _start(self) -> tuple[int, ...]:
        """Return what stands for an empty prompt."""
        start = self.tokenizer.bos_token_id
        if start is None:
            start = self.tokenizer.eos_token_id
        if start is None:
            raise RequestError(f"{self.name!r} cannot start from nothing.", param="prompt")
        return (cast("int", start),)

    # --- scores ----------------------------------------------------------------------------------

    def new_cache(self, *, full: bool = False) -> DynamicCache:
        """Return an empty key-value cache.

        Args:
            full: Whether every layer keeps all tokens, sliding windows included: such a cache can
                hold a tree and be cut anywhere; `score` tells the model what its windows hide.
        """
        return full_cache(self.model.config) if full else growing_cache(self.model.config)

    def copy_cache(self, cache: DynamicCache) -> DynamicCache:
        """Return a copy that shares nothing with *cache*."""
        return copy.deepcopy(cache)

    def cut_cache(self, cache: DynamicCache, tokens: tuple[int, ...]) -> DynamicCache:
        """Return a cache that holds *tokens* and nothing else, of one that holds them or more.

        A cache whose layers cannot all be cropped (sliding windows) is read anew.
        """
        surplus = int(cache.get_seq_length()) - len(tokens)
        if surplus <= 0:
            return cache
        if is_whole(cache):
            truncate(cache, len(tokens))
            return cache
        fresh = self.new_cache()
        for start in range(0, len(tokens), PREFILL_CHUNK):
            self.score(tokens[start : start + PREFILL_CHUNK], fresh)
        return fresh

    def score(self, tokens: tuple[int, ...], cache: DynamicCache) -> Tensor:
        """Append *tokens* to *cache* and return the scores behind the last, shape ``(vocab,)``.

        A lone token is scored as the root of a draft is, to the last bit.
        """
        if len(tokens) == 1 and is_independent(self.model):
            root = Segment(tokens, NOTHING, cache, int(cache.get_seq_length()))
            return score_trees(self.model, [root])[0][0]
        return self.rows(tokens, cache, 1)[-1]

    def rows(self, tokens: tuple[int, ...], cache: DynamicCache, n: int) -> Tensor:
        """Append *tokens* to *cache*; return the scores behind the last *n*, ``(n, vocab)``."""
        ids = torch.tensor([tokens], device=self.device)
        out: Any = self.model(
            input_ids=ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=n,
            **self._windows(cache, len(tokens)),
        )
        return cast("Tensor", out.logits[0])

    def _windows(self, cache: DynamicCache, n_new: int) -> dict[str, Any]:
        """Return the masks that a full cache needs where the model's own layers would slide."""
        n_past = int(cache.get_seq_length())
        if not (is_whole(cache) and self._window.binds(n_past + n_new)):
            return {}
        masks = chain_masks(
            self._window,
            backend=self.model.config._attn_implementation,
            dtype=self.model.dtype,
            device=self.device,
            n_past=n_past,
            n_new=n_new,
        )
        return {"attention_mask": masks}


def _eos_set(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    config = model.generation_config
    ids = config.eos_token_id if config is not None else None
    listed = ids if isinstance(ids, list) else [ids]
    return frozenset(i for i in (*listed, tokenizer.eos_token_id) if isinstance(i, int))
