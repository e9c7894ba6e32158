"""A model whose scores are asked for: what an upstream says of the next token, seen as a model.

Nothing is computed here. The cache holds the tokens themselves where others hold keys, so it can
be cut, copied and shared by a round as any other; a forward asks the upstream what may follow them.
Everything that decides between scores and text is therefore the local engine's own.

Source:
    Our own; serving.md 3.3, step 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig

from elision.errors import UpstreamError
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.cache import GrowingLayer
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.hesitation import SAMPLE
from elision.middleware.engines.upstream.asking import Asker, Question, Ticket
from elision.middleware.speculation.masks import Windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from elision.middleware.engines.upstream.asking import Scores

MOST_SAMPLED: Final = 64
"""Positions of the sample that are asked for, evenly spread."""


class TokensLayer(GrowingLayer):  # type: ignore[no-untyped-call] # its base registers itself
    """A cache layer that holds token ids, shape ``(1, 1, tokens, 1)``, and whose request it is.

    Attributes:
        ticket: Shared by the copies of a cache.
    """

    def __init__(self, ticket: Ticket) -> None:
        cast("Any", super()).__init__()
        self.ticket = ticket

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append ids; enter in *kwargs*' ``reads`` what has been read by now, and how much is new.

        The rows of several sequences hand keyword arguments on, but not what each cache returns.
        """
        reads: list[_Read] = kwargs.pop("reads")
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        ids = cast("list[int]", keys[0, 0, :, 0].tolist())
        reads.append(_Read(tuple(ids), key_states.shape[2], self.ticket))
        return keys, values


@dataclass(frozen=True, slots=True)
class _Read:
    """What one sequence of a forward has read, its *n_new* new tokens included."""

    ids: tuple[int, ...]
    n_new: int
    ticket: Ticket

    def questions(self, n: int) -> list[Question]:
        """Return what to ask for the rows behind the last *n* tokens."""
        ends = range(len(self.ids) - n + 1, len(self.ids) + 1)
        return [Question(self.ids[:end], self.ticket) for end in ends]


class _Forward:
    """What the engine calls as it would call a transformers model, with one sequence or several.

    It scores no trees: what is proposed side by side would have to be asked for one by one.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    training = False

    def __init__(self, asker: Asker, vocab_size: int) -> None:
        self.config: Any = PreTrainedConfig()
        self._asker = asker
        self._vocab_size = vocab_size

    def __call__(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> SimpleNamespace:
        """Return the scores behind the last *logits_to_keep* tokens; behind all if it is 0.

        Args:
            input_ids: New tokens of one row, shape ``(1, positions)``.
            past_key_values: A cache of `TokensLayer`, or the rows of several sequences with such.
            logits_to_keep: See above.
        """
        cache = new_cache(Ticket()) if past_key_values is None else past_key_values
        ids, reads = input_ids[:, None, :, None], list[_Read]()
        cache.update(ids, ids, 0, reads=reads)
        questions = [one for read in reads for one in read.questions(read.n_new)]
        found = self._asker.ask(questions[-logits_to_keep:])
        logits = torch.stack([self._row(scores) for scores in found])
        return SimpleNamespace(logits=logits[None], past_key_values=past_key_values)

    def _row(self, scores: Scores) -> Tensor:
        """Return *scores* as a row, shape ``(vocab,)``: log-probabilities, -inf where unknown."""
        row = torch.full((self._vocab_size,), -math.inf)
        known = [(token, logp) for token, logp in scores if 0 <= token < self._vocab_size]
        if scores and not known:
            raise UpstreamError("the upstream's tokens are none of its tokenizer's")
        if known:
            tokens, logps = zip(*known, strict=True)
            row[torch.tensor(tokens)] = torch.tensor(logps)
        return row


def new_cache(ticket: Ticket) -> DynamicCache:
    """Return an empty cache for the request of *ticket*."""
    cache = DynamicCache()
    cast("Any", cache).layers = [TokensLayer(ticket)]
    return cache


class UpstreamModel(CausalModel):
    """An upstream with its tokenizer, seen as a function from tokens to scores.

    Rows are log-probabilities of the likeliest tokens and ``-inf`` elsewhere, so what they lack of
    1 is unknown mass, and every recipe acts on the known ones alone. They are raw: before
    temperature, penalties and masks.

    Args:
        asker: Asks for rows; closed by whoever made it.
        tokenizer: The upstream's.
        name: What reports call it.
        n_context: Longest sequence that the upstream takes, in tokens.
        eos: Tokens that end a reply, besides the tokenizer's own.

    Raises:
        LexiconError: If nobody can say what the tokenizer's tokens write.
    """

    def __init__(
        self,
        asker: Asker,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        n_context: int,
        eos: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.vocab_size = len(tokenizer)
        self.lexicon = TokenizerLexicon.of(tokenizer)
        self.n_context = n_context
        own = tokenizer.eos_token_id
        self.eos = frozenset(eos) | ({own} if isinstance(own, int) else frozenset())
        self.asker = asker
        self.model = cast("Any", _Forward(asker, self.vocab_size))
        self._window = Windows()

    @cached_property
    def entropies(self) -> Tensor:
        """How hesitant it is along `SAMPLE`, in nats, rising; asked for once.

        Of what is unknown nothing is counted, so each is a little less than it should be.
        """
        ids = cast("list[int]", self.tokenizer(SAMPLE)["input_ids"])[: self.n_context]
        ends, ticket = range(len(ids), 0, -math.ceil(len(ids) / MOST_SAMPLED)), Ticket()
        found = self.asker.ask([Question(tuple(ids[:end]), ticket) for end in ends])
        logps = [torch.tensor([logp for _, logp in scores]) for scores in found]
        nats = [float(torch.special.entr(row.softmax(-1)).sum()) for row in logps]
        return torch.tensor(nats).sort().values

    def new_cache(self, *, full: bool = False) -> DynamicCache:
        """Return an empty cache of nobody's; see `cache_for`."""
        return new_cache(Ticket())

    def cache_for(self, ticket: Ticket) -> DynamicCache:
        """Return an empty cache for the request of *ticket*."""
        return new_cache(ticket)
