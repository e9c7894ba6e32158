"""One choice being decoded: what it asks of the next forward, and its walk through the answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from elision.contract import BranchKey, Delta
from elision.errors import EngineError
from elision.middleware.engines.branches import Asides
from elision.middleware.engines.decoding import Reply
from elision.middleware.speculation.base import NOTHING, Draft, Drafter, Mode, NoDraft
from elision.middleware.speculation.compaction import compact
from elision.middleware.speculation.controller import Ledger
from elision.middleware.speculation.walk import Answers, Need, Visit, Walk, Walking, walk

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache


@dataclass(slots=True, eq=False)
class Sequence:
    """One choice and its cache. Between steps the cache holds prompt + reply but the last token.

    Attributes:
        reply: The choice.
        cache: Keys and values; longer than the invariant says only right after a rewind.
        prompt: The prompt's tokens.
        first: Scores behind the prompt, shape ``(vocab,)``.
        deliver: Takes what may leave.
        cut_cache: Makes a cache hold the given tokens and no more.
        drafter: Proposes tokens.
        ledger: What drafting may cost.
        mode: Whether to draft.
        is_apart: Whether it must have every forward to itself.
        asides: Other contexts that follow it.
        contrasts: Whether some session may read other scores.
        n_steps: Forwards it took part in.
        n_proposed: Proposed tokens that were scored.
        n_accepted: Those of them that were drawn.
    """

    reply: Reply
    cache: DynamicCache
    prompt: tuple[int, ...]
    first: Tensor
    deliver: Callable[[Delta], None]
    cut_cache: Callable[[DynamicCache, tuple[int, ...]], DynamicCache]
    drafter: Drafter = field(default_factory=NoDraft)
    ledger: Ledger = field(default_factory=Ledger)
    mode: Mode = "off"
    is_apart: bool = True
    asides: Asides = field(default_factory=dict)
    contrasts: bool = False
    n_steps: int = 0
    n_proposed: int = 0
    n_accepted: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the choice has ended."""
        return self.reply.finish is not None

    @property
    def tokens(self) -> list[int]:
        """The reply so far."""
        return self.reply.tokens

    @property
    def n_past(self) -> int:
        """Tokens in the cache: prompt and reply but the last."""
        return len(self.prompt) + len(self.reply.tokens) - 1

    @property
    def root(self) -> int:
        """The last token of the reply: certain, but not in the cache yet."""
        return self.reply.tokens[-1]

    @property
    def counts(self) -> dict[str, int]:
        """What drafting has done for it so far."""
        return {
            "steps": self.n_steps,
            "proposed": self.n_proposed,
            "accepted": self.n_accepted,
            "tokens": len(self.reply.tokens),
        }

    def begin(self) -> Walking:
        """Choose the first token, from the scores behind the prompt."""
        done = Walk(())
        done.n_written += yield from self._visit(self.first, None)
        return done

    def cut(self) -> None:
        """End the choice because time is up."""
        self.reply.cut()
        self.hand_over()

    def hand_over(self) -> None:
        """Deliver what may leave."""
        if delta := self.reply.take():
            self.deliver(delta)

    def prepare(self) -> None:
        """Make ready for a forward: forget what was taken back."""
        if int(self.cache.get_seq_length()) > max(self.n_past, len(self.prompt)):
            tokens = (*self.prompt, *self.reply.tokens[:-1])
            self.cache = self.cut_cache(self.cache, tokens)

    def propose(self, n: int) -> Draft:
        """Return a draft of at most *n* tokens that ends no later than the reply must."""
        depth = self.reply.max_tokens - len(self.reply.tokens) - 1
        if self.mode == "off" or n < 1 or depth < 1:
            return NOTHING
        return self.drafter.propose(self.reply.tokens, n=n, depth=depth)

    def walk(self, logits: Tensor, draft: Draft) -> Walking:
        """Choose tokens for as long as the draft has them.

        Args:
            logits: Scores behind the root and every node, shape ``(n + 1, vocab)``.
            draft: What was scored. The cache holds a slot for the root and each of its nodes.
        """
        visit = partial(self._step, logits)
        done = yield from walk(draft, visit, before=tuple(self.reply.tokens))
        self.n_steps += 1
        self.n_proposed += len(draft)
        self.n_accepted += len(done.path) - 1
        return done

    def _step(self, logits: Tensor, done: Walk) -> Visit:
        """Draw at the node that *done* has come to; return the token if the walk may go on."""
        node = done.path[-1]
        has_grown = yield from self._visit(logits[node], node)
        if self.reply.shaped is not None:
            done.shaped[node] = self.reply.shaped
        done.n_written += has_grown
        return self.root if has_grown and not self.is_over else None

    def learn(self, logits: Tensor, draft: Draft, walk: Walk) -> None:
        """Keep in the cache what was accepted, and let the drafter learn from the rest as well."""
        if draft:
            compact(self.cache, walk.path, len(draft) + 1)
        self.drafter.learn(walk.before, draft, logits, walk.path, walk.shaped)

    def _visit(self, row: Tensor, node: int | None) -> Generator[Need, Answers, bool]:
        """Let the reply choose from *row*, hand over what may leave; return whether it grew by one.

        What may leave is settled token by token, drafted or not: text that has left cannot be
        taken back, so a draft must not change when that is.
        """
        n_before = len(self.reply.tokens)
        found: dict[BranchKey, Tensor] = {}
        here = self.reply.here(row, partial(_found, found))
        if self.contrasts and (keys := self.reply.chain.needs(here)):
            found.update((yield Need(keys, node)))
        self.reply.visit(here)
        self.hand_over()
        return len(self.reply.tokens) == n_before + 1


def _found(found: Answers, key: BranchKey) -> Tensor:
    if key not in found:
        raise EngineError("a recipe reads a branch that it did not say it needs here")
    return found[key]
