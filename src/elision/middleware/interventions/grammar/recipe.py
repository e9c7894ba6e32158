"""The grammar mask: a token that the grammar does not have next cannot be chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from elision.contract import ALLOW, Context, Here, Stage
from elision.errors import RequestError
from elision.middleware.interventions.grammar.compiled import Compiler

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grammar:
    """Forbid every token with which the reply could no longer become a text of the grammar.

    A recipe. It acts before the guard's masks, which weigh what they forbid against what is left
    of the row: here, against what the grammar allows.

    Attributes:
        source: Lark, or JSON of llguidance's ``{"grammars": [...]}``; see `of_schema`.
        reads_before: Whether the text that the reply continues is part of it, as an assistant's
            beginning is; the prompt of a raw completion is not.

    Source:
        Willard and Louf 2023, arXiv:2307.09702 (masks by automaton); Moskal et al., llguidance
        (Earley parser over derivatives of regular expressions). Ours: no token is forced, so that
        every way to write the text is allowed.
    """

    source: str = field(repr=False)
    reads_before: bool = True
    stage = Stage.HARD_MASK
    rank = -10

    def begin(self, context: Context) -> GrammarSession:
        """Open a session for one choice, behind the text that the reply continues.

        Raises:
            RequestError: If that text does not fit the grammar, or the grammar cannot be compiled.
        """
        compiler = Compiler.of(context.lexicon)
        matcher = compiler.matcher(self.source)
        if matcher.is_error():
            raise RequestError("the grammar of this reply cannot be compiled", code="bad_grammar")
        if self.reads_before and not compiler.read(matcher, context.before):
            raise RequestError(
                "the beginning that the reply is to continue does not fit the form asked for; "
                "leave one of them out",
                param="messages",
                code="beginning_does_not_fit",
            )
        return GrammarSession(matcher, context.eos, len(context.lexicon))


@dataclass(frozen=True, slots=True, eq=False)
class GrammarSession:
    """One choice under a `Grammar`. A value: its matcher stands still, successors have their own.

    A matcher is copied before it moves, which takes longer the longer the text is. The mask of a
    session that has been advanced is let go, so that sessions kept to go back to hold none.

    Attributes:
        matcher: Where the text stands in the grammar; None where it has left it.
        eos: Tokens that end the reply.
        n_tokens: Tokens of the lexicon; a row may score more.
    """

    matcher: LLMatcher | None = field(repr=False)
    eos: frozenset[int]
    n_tokens: int
    _lock: Lock = field(default_factory=Lock, repr=False)
    _seen: list[Tensor] = field(default_factory=list, repr=False)
    held = 0
    verdict = ALLOW

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the scores with every token that cannot come next at ``-inf``.

        The tokens that end the reply stay where the text may end.

        Raises:
            RequestError: If the grammar turns out too complex here.
        """
        forbidden = self._forbidden(logits.shape[-1])
        return logits.masked_fill(forbidden.to(logits.device), -float("inf"))

    def advance(self, token: int) -> GrammarSession:
        """Return the session after *token*; after one that was forbidden nothing is allowed.

        Raises:
            RequestError: If the grammar turns out too complex here.
        """
        if self.matcher is None:
            return self
        with self._lock:
            matcher = self.matcher.deep_copy()
            self._seen.clear()  # kept for a way back, a session is seldom asked again
        is_known = 0 <= token < self.n_tokens and token not in self.eos
        fits = is_known and matcher.try_consume_tokens([token]) == 1
        _check(matcher)
        return GrammarSession(matcher if fits else None, self.eos, self.n_tokens)

    def finish(self) -> GrammarSession:
        """Return the session after the end of the text."""
        return self

    def _forbidden(self, n_scores: int) -> Tensor:
        """Return which tokens cannot come next, bool, shape ``(n_scores,)``."""
        with self._lock:
            if not self._seen or len(self._seen[0]) != n_scores:
                self._seen[:] = [self._look(n_scores)]
            return self._seen[0]

    def _look(self, n_scores: int) -> Tensor:
        import numpy as np
        import torch

        allowed = torch.zeros(n_scores, dtype=torch.bool)
        if self.matcher is None:
            return ~allowed
        may_end = self.matcher.is_accepting()
        bits = np.unpackbits(
            np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8), bitorder="little"
        )
        _check(self.matcher)
        known = torch.from_numpy(bits[: min(n_scores, self.n_tokens)]).bool()
        allowed[: len(known)] = known
        ends = [token for token in self.eos if token < n_scores]
        allowed[ends] = may_end
        return ~allowed


def _check(matcher: LLMatcher) -> None:
    """Raise if *matcher* has come to a limit; to have no token to go on with is none."""
    if matcher.is_error() and not matcher.get_error().startswith("NoExtension"):
        raise RequestError(
            "the schema is too complex to go on writing by; simplify its patterns and unions",
            code="schema_too_complex",
        )
