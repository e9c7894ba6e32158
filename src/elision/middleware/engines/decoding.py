"""One choice being written: chain, draw, text and what may leave.

A `Reply` is everything about decoding that is not the model. An engine hands it the scores of the
next position and is told which token to feed back; what may leave is taken from it at any time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor

from elision.contract import (
    Context,
    Delta,
    Finish,
    Here,
    Plan,
    Redact,
    Refuse,
    Rewind,
    TokenLogprob,
    Verdict,
)
from elision.errors import GuardError
from elision.middleware.engines.draw import Draw
from elision.middleware.engines.logprobs import report
from elision.middleware.engines.release import Release
from elision.middleware.interventions.base import Chain


@dataclass(slots=True)
class Reply:
    """The state of one choice. Owned by the engine's thread.

    Attributes:
        plan: What to write.
        context: What the sessions were opened with.
        chain: The open sessions.
        draw: Picks the tokens.
        max_tokens: Most tokens to write.
        tokens: Written so far, the end token left out.
        pending: Bytes that wait for the rest of their character.
        finish: Why it ended; None while it goes on.
        notes: Sums of what the sessions noted, over committed tokens.
    """

    plan: Plan
    context: Context
    chain: Chain
    draw: Draw
    max_tokens: int
    release: Release
    tokens: list[int] = field(default_factory=list)
    pending: bytes = b""
    finish: Finish | None = None
    notes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def begin(cls, plan: Plan, context: Context, draw: Draw, *, max_tokens: int) -> Reply:
        """Open the sessions of one choice."""
        chain = Chain.begin(plan.recipes, context)
        release = Release(stop=plan.request.stop)
        return cls(plan, context, chain, draw, max_tokens, release)

    def visit(self, row: Tensor) -> int | None:
        """Choose the token that follows, and take it in.

        Args:
            row: The model's scores for the next position, shape ``(vocab,)``, any float type.

        Returns:
            The token to feed to the model, or None once the reply has ended.
        """
        here = Here(row.float(), position=len(self.tokens))
        scores = self.chain.score(here.raw, here)
        token = self.draw.pick(self.chain.choose_from(scores, here), len(self.tokens))
        if token is None:
            self._refuse()
        elif token in self.context.eos:
            self._end("stop")
        else:
            self.notes.update(here.notes)
            self._commit(token, self._entry(scores, token))
        return None if self.finish else token

    def _commit(self, token: int, entry: TokenLogprob | None) -> None:
        self.tokens.append(token)
        self.chain = self.chain.advance(token)
        text, self.pending = self.context.lexicon.write(self.pending, token)
        self.release.write(text, entry)
        if not self._enforce(self.chain.verdicts):
            self._refuse()
        elif self.release.stopped:
            self._end("stop")
        elif len(self.tokens) >= self.max_tokens:
            self._end("length")

    def _enforce(self, verdicts: tuple[Verdict, ...]) -> bool:
        """Do what *verdicts* call for; return whether the reply may go on."""
        for verdict in verdicts:
            match verdict:
                case Redact():
                    self.release.redact(verdict)
                case Refuse():
                    return False
                case Rewind():
                    raise GuardError("a session asked to rewind; this engine cannot go back")
        return True

    def _end(self, finish: Finish) -> None:
        """End the reply; the sessions judge the text as it ends, cut or not."""
        self.finish = finish
        if self.release.stopped:
            chain = Chain.begin(self.plan.recipes, self.context).read(self.release.text)
        else:
            self.release.write(self.context.lexicon.finish(self.pending))
            chain = self.chain
        self.chain = chain.finish()
        self.notes.update({k: n - self.notes[k] for k, n in self.chain.tally.items()})
        if not self._enforce(self.chain.verdicts):
            self._refuse()

    def _refuse(self) -> None:
        """End the reply for the guard: what is held is dropped, nothing else is said."""
        self.finish = "content_filter"
        self.release.drop_held(len(self.release.text) - self.release.mark)
        if self.release.mark == 0:
            self.release.write(self.plan.refusal)

    def cut(self) -> None:
        """End the reply because time is up; what may leave leaves."""
        if self.finish is None:
            self._end("length")

    def _entry(self, scores: Tensor, token: int) -> TokenLogprob | None:
        n_top = self.plan.request.logprobs
        if n_top is None:
            return None
        nameable = self.chain.conceal(scores)
        return report(scores, nameable, token, n_top=n_top, lexicon=self.context.lexicon)

    def take(self) -> Delta | None:
        """Return what may leave now; None if nothing may and the reply goes on."""
        held = self.chain.held if self.finish is None else 0
        text, entries = self.release.take(held)
        if not (text or entries or self.finish):
            return None
        return Delta(choice=self.context.choice, text=text, logprobs=entries, finish=self.finish)
