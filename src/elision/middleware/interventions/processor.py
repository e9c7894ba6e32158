"""Recipes as a Hugging Face `LogitsProcessor`, for a ``model.generate`` that is not ours.

A processor is told nothing but the tokens so far: not where the prompt ends, not which row became
which beam. Sessions are values and follow from the tokens alone, so it keeps them in a tree of
the tokens written and looks each row up: beams, dropped drafts and repeated rows need no more.

A call belongs to the generation under way if each of its rows is one of that generation's prompts,
or a text seen in it plus one token. Any other call begins a new generation, whose prompts are its
rows. One case looks the same from here: a new prompt that is a text of the generation before plus
exactly one token is taken for that text going on; `RecipeProcessor.reset` in between tells.

What a recipe asks for beyond scores cannot be given here. A verdict (take text back, redact,
refuse) stops the generation with an error, and one about the very last token is never asked for:
guards that judge instead of masking belong behind `elision.wrap`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from transformers import LogitsProcessor

from elision.contract import Context, Here, Lexicon, Recipe
from elision.errors import CapabilityError, ConfigError, EngineError
from elision.lexicon import TokenizerLexicon
from elision.middleware.interventions.base import Chain

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Before: TypeAlias = Literal["prompt", "nothing"]


def as_logits_processor(
    *recipes: Recipe,
    tokenizer: PreTrainedTokenizerBase | None = None,
    lexicon: Lexicon | None = None,
    pad: int | None = None,
    eos: int | Iterable[int] | None = None,
    before: Before = "prompt",
    tenant: str = "default",
) -> RecipeProcessor:
    """Return *recipes* as a processor for ``generate(logits_processor=[...])``.

    Args:
        recipes: In any order; they act in the order of their stages.
        tokenizer: Whose tokens these are; gives the lexicon, *pad* and *eos* unless given.
        lexicon: What each token writes. Recipes that read text fail without it.
        pad: Stands in front of shorter prompts and behind finished replies. Tokens of this id at a
            prompt's beginning are not part of it.
        eos: Tokens that end a reply. Behind one, a row is left alone.
        before: What the reply goes on: the ``prompt`` (raw completion), or ``nothing`` (the prompt
            is a rendered chat). The first is the safe choice for guards.
        tenant: Whose register applies.

    Returns:
        A processor for any number of generations, one at a time. Behind it, ``generate`` still
        applies the warpers of its own configuration: ask for ``temperature=1, top_k=0, top_p=1``
        where the recipes do that work.
    """
    if tokenizer is not None:
        pad = cast("int | None", tokenizer.pad_token_id) if pad is None else pad
        eos = cast("int | None", tokenizer.eos_token_id) if eos is None else eos
    return RecipeProcessor(
        recipes,
        lexicon=_Lexicons(tokenizer, lexicon),
        pad=pad,
        eos=frozenset([eos] if isinstance(eos, int) else eos or ()),
        before=before,
        tenant=tenant,
    )


class _Unread:
    """Stands where nobody gave a lexicon; refuses to be read, so that no guard reads nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask for what they can do without
            raise AttributeError(name)
        raise ConfigError(
            "a recipe reads text, but the processor has no lexicon; pass tokenizer= or lexicon="
        )

    def __len__(self) -> int:
        return int(self.texts)


class _Lexicons:
    """The lexicon, once the model's vocabulary size is known: scores may outnumber the tokens."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase | None, lexicon: Lexicon | None = None
    ) -> None:
        self._tokenizer = None if lexicon is not None else tokenizer
        self._lexicon = lexicon
        if self._tokenizer is not None:
            self._lexicon = _read(self._tokenizer)

    @property
    def known(self) -> bool:
        return self._lexicon is not None

    def of_size(self, vocab_size: int) -> Lexicon:
        if self._lexicon is None:
            return cast("Lexicon", _Unread())
        if self._tokenizer is not None and len(self._lexicon) < vocab_size:
            self._lexicon = _read(self._tokenizer, vocab_size)
        return self._lexicon


@dataclass(slots=True)
class _Node:
    """A text seen in the generation under way, and the sessions behind its last token."""

    chain: Chain
    length: int = 0
    ended: bool = False
    children: dict[int, _Node] = field(default_factory=dict)

    def child(self, token: int, eos: frozenset[int]) -> _Node:
        """Return the node behind *token*, made when first asked for."""
        if token not in self.children:
            ended = self.ended or token in eos
            chain = self.chain if ended else self.chain.advance(token)
            self.children[token] = _Node(chain, self.length + 1, ended)
        return self.children[token]


class RecipeProcessor(LogitsProcessor):
    """Runs recipes on the rows of a batch; made by `as_logits_processor`.

    Lives for any number of generations, one at a time; not for two threads at once.

    Attributes:
        recipes: What acts.
    """

    def __init__(
        self,
        recipes: Iterable[Recipe],
        *,
        lexicon: _Lexicons,
        pad: int | None,
        eos: frozenset[int],
        before: Before,
        tenant: str,
    ) -> None:
        self.recipes = tuple(recipes)
        self._lexicons = lexicon
        self._pad = pad
        self._eos = eos
        self._before = before
        self._tenant = tenant
        self._prompt_length = 0
        self._prompts: dict[tuple[int, ...], _Node] = {}

    def reset(self) -> None:
        """Forget the generation under way: the next call begins a new one, whatever its rows."""
        self._prompts = {}

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores to choose from.

        Args:
            input_ids: Prompt and reply of each row, shape ``(B, T)``.
            scores: Shape ``(B, V)``; not modified.

        Returns:
            Scores of the same shape and dtype; the same object if no recipe acts. A row in which
            the recipes leave no token gets its end-of-text token.

        Raises:
            CapabilityError: If a session calls for more than scores, such as taking text back.
            EngineError: If a row has no token left and no end-of-text token is known.
        """
        nodes = self._locate(input_ids.tolist(), scores.shape[-1])
        rows = [self._adjust(node, row) for node, row in zip(nodes, scores, strict=True)]
        if all(new is None for new in rows):
            return scores
        kept = zip(rows, scores, strict=True)
        return torch.stack([old if new is None else new.to(old.dtype) for new, old in kept])

    def _locate(self, rows: list[list[int]], vocab_size: int) -> list[_Node]:
        """Return each row's node; where one is not of this generation, begin a new one."""
        known = [self._walk(row) for row in rows]
        nodes = [node for node in known if node is not None]
        if len(nodes) < len(rows):
            self.reset()
            self._prompt_length = len(rows[0])
            nodes = [self._begin(tuple(row), vocab_size) for row in rows]
        return nodes

    def _walk(self, row: list[int]) -> _Node | None:
        end = self._prompt_length
        node = self._prompts.get(tuple(row[:end]))
        for token in row[end:-1]:
            node = node and node.children.get(token)
        return node.child(row[-1], self._eos) if node and len(row) > end else node

    def _begin(self, prompt: tuple[int, ...], vocab_size: int) -> _Node:
        if prompt not in self._prompts:
            context = self._context(prompt, vocab_size)
            self._prompts[prompt] = _Node(Chain.begin(self.recipes, context))
        return self._prompts[prompt]

    def _context(self, prompt: tuple[int, ...], vocab_size: int) -> Context:
        first = next((n for n, token in enumerate(prompt) if token != self._pad), len(prompt))
        ids, lexicon = prompt[first:], self._lexicons.of_size(vocab_size)
        goes_on = self._before == "prompt" and self._lexicons.known
        return Context(
            lexicon=lexicon,
            vocab_size=vocab_size,
            prompt_ids=ids,
            before=_text(lexicon, ids) if goes_on else "",
            eos=self._eos,
            tenant=self._tenant,
        )

    def _adjust(self, node: _Node, row: Tensor) -> Tensor | None:
        """Return the row's new scores; None if they stay as they are."""
        if node.ended:
            return None
        if node.chain.verdicts:
            raise CapabilityError("a verdict", engine="transformers.generate", missing="REWIND")
        adjusted = node.chain.adjust(row, Here(row, position=node.length))
        if adjusted is row:
            return None
        return self._end(row) if bool(adjusted.amax() == -torch.inf) else adjusted

    def _end(self, row: Tensor) -> Tensor:
        """Return a row that can only end."""
        if not self._eos:
            raise EngineError("no acceptable token is left and no end of text is known; pass eos=")
        ended = torch.full_like(row, -torch.inf)
        ended[list(self._eos)] = 0
        return ended


def _read(tokenizer: PreTrainedTokenizerBase, vocab_size: int | None = None) -> Lexicon:
    # pyright takes no cached_property for a protocol's property.
    return cast("Lexicon", TokenizerLexicon.of(tokenizer, vocab_size=vocab_size))


def _text(lexicon: Lexicon, ids: Iterable[int]) -> str:
    return b"".join(map(lexicon.bytes_of, ids)).decode("utf-8", "replace")
