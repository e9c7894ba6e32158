"""A text whose tokens are known, an answer or a prompt, and what is read beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from elision.contract import BranchKey, Here, Plan, Request
from elision.errors import ContextLengthError, RequestError
from elision.middleware.engines.branches import Asides, Waiting, chain_of, fetch
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.station import Station
from elision.middleware.interventions.base import Chain
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.walk import Need

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache


_STRIDE: Final = 8


@dataclass(frozen=True, slots=True)
class Given:
    """A text whose tokens are known.

    Attributes:
        ids: Prompt and answer, the end token included where it counts.
        start: Index of the first token that the sessions read.
        prompt_ids: What they are told was the prompt.
        before: What they are told the answer continues.
        text: What is echoed.
        ends: Whether the last token ends the answer.
    """

    ids: tuple[int, ...] = field(repr=False)
    start: int
    prompt_ids: tuple[int, ...] = field(default=(), repr=False)
    before: str = field(default="", repr=False)
    text: str = field(default="", repr=False)
    ends: bool = False

    @classmethod
    def of(cls, request: Request, model: CausalModel) -> Given:
        """Read *request*: its answer behind its prompt, or the prompt that it wants echoed.

        An echoed prompt is scored from its first token on, so that the guard reads all of it as if
        it were being written.

        Raises:
            RequestError: If the answer is empty or holds ids that do not exist.
            ContextLengthError: If the model cannot read that much.
        """
        prompt = model.render(request)
        if request.answer is None:
            return cls(prompt.ids, 0, text=prompt.before)
        answer = _answer_ids(request.answer, model)
        ids = (*prompt.ids, *answer)
        if len(ids) - 1 > model.n_context:
            raise ContextLengthError(
                f"Prompt and answer have {len(ids)} tokens, but {model.name!r} takes "
                f"{model.n_context}; shorten one of them.",
                param="answer",
            )
        return cls(ids, len(prompt.ids), prompt.ids, prompt.before, ends=answer[-1] in model.eos)


def _answer_ids(answer: str | tuple[int, ...], model: CausalModel) -> tuple[int, ...]:
    if isinstance(answer, str):
        ids = cast("list[int]", model.tokenizer(answer, add_special_tokens=False)["input_ids"])
        end = cast("int | None", model.tokenizer.eos_token_id)
        return (*ids, *(() if end is None else (end,)))
    if not answer or not all(0 <= token < model.vocab_size for token in answer):
        raise RequestError(
            f"The answer is empty or has ids outside the vocabulary of {model.vocab_size}.",
            param="answer",
        )
    return answer


@dataclass(slots=True, eq=False)
class Along:
    """Other contexts along a given text; see `elision.middleware.engines.branches.Followed`.

    Attributes:
        home: What scores the text itself.
        cache: Keys and values of the text, of a whole chunk of it at a time.
        asides: The other contexts.
        contrasts: Whether some session may read other scores.
        tokens: The answer before the position stood at.
        draft: The chunk, as tokens in a row.
        node: The token of the chunk behind which the position lies.
    """

    home: Station
    cache: DynamicCache
    asides: Asides
    contrasts: bool
    tokens: tuple[int, ...] = field(default=(), repr=False)
    draft: Draft = field(default=NOTHING, repr=False)
    node: int = 0

    @classmethod
    def of(
        cls, plan: Plan, chain: Chain, prompt: tuple[int, ...], home: Station, n_reply: int = 1
    ) -> Along:
        """Open the other contexts that *chain* may read along *n_reply* tokens; none has been read.

        Raises:
            ContextLengthError: If one of them would not take as many.
        """
        contrasts = bool(chain.branches)
        cache = home.model.new_cache(full=contrasts and home.takes_trees)
        return cls(home, cache, home.asides(plan, chain, prompt, n_reply), contrasts)

    def stride(self, n: int) -> int:
        """Return how much of the text to read at a time, *n* or less: each may ask for branches."""
        if not self.contrasts:
            return n
        return min(n, _STRIDE) if self.home.takes_trees else 1

    def stand(self, node: int, n: int, tokens: tuple[int, ...]) -> None:
        """Go to the position behind token *node* of a chunk of *n*; *tokens* is the answer there.

        An empty answer is its beginning, whatever the chunk.
        """
        self.node, self.tokens = node, tokens
        if len(self.draft) != n - 1:
            self.draft = chain_of(n)

    def here(self, row: Tensor, chain: Chain, position: int) -> Here:
        """Return the position with all that the sessions of *chain* read there."""
        found: dict[BranchKey, Tensor] = {}
        here = Here(row.float(), position=position, branch=found.__getitem__)
        if self.contrasts and (keys := chain.needs(here)):
            ask = Waiting(self, self.draft, Need(keys, self.node))
            fetch([ask], self.home)
            if ask.failure is not None:
                raise ask.failure
            found.update(ask.answers)
        return here
