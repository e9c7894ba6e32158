"""One choice being written: chain, draw, text and what may leave.

A `Reply` is everything about decoding that is not the model. An engine hands it the scores of the
next position, as often as it has not finished: behind ``tokens``, which grow, and shrink when a
session asks to go back. What may leave is taken from it at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from elision.contract import (
    BranchKey,
    Context,
    Delta,
    Finish,
    Here,
    Plan,
    Redact,
    Refuse,
    Rewind,
    TokenLogprob,
    TokenTrace,
    Verdict,
)
from elision.middleware.engines.draw import Draw
from elision.middleware.engines.logprobs import report
from elision.middleware.engines.past import Past, Stand, earliest
from elision.middleware.engines.release import Release
from elision.middleware.engines.tracing import Tracer, Watched
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
        shaped: The scores of the last visit, before temperature, shape ``(vocab,)``; None where
            no session acted.
        tracer: Tells what happened at each token, if the plan asks for it.
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
    past: Past = field(default_factory=Past)
    shaped: Tensor | None = None
    tracer: Tracer | None = None

    @classmethod
    def begin(cls, plan: Plan, context: Context, draw: Draw, *, max_tokens: int) -> Reply:
        """Open the sessions of one choice."""
        chain = Chain.begin(plan.recipes, context)
        release = Release(stop=plan.request.stop)
        reply = cls(plan, context, chain, draw, max_tokens, release)
        reply.tracer = Tracer.of(plan.recipes) if plan.trace else None
        if any(isinstance(verdict, Refuse) for verdict in chain.verdicts):
            reply._refuse()
        return reply

    def here(self, row: Tensor, branch: Callable[[BranchKey], Tensor] | None = None) -> Here:
        """Return the next position as the sessions see it.

        Args:
            row: The model's scores, shape ``(vocab,)``, any float type.
            branch: Gives other scores.
        """
        return Here(row.float(), position=len(self.tokens), branch=branch)

    def visit(self, here: Here) -> None:
        """Choose the token that follows at *here*, and take it in; or end, or go back."""
        position = here.position
        row = self.past.ban(here.raw, position)
        seen = None if self.tracer is None else self.tracer.watch(self.chain, row, here)
        scores = self.chain.score(row, here) if seen is None else seen.reported
        self.shaped = None if scores is here.raw else scores
        final = self.chain.choose_from(scores, here) if seen is None else seen.final
        token = self.draw.pick(final, position, self.past.n_rewinds)
        if token is None:
            self._turn_round(here.notes)
        elif token in self.context.eos:
            self._end("stop")
        else:
            stand = Stand(self.chain, self.pending, self.release.mark_here(), self.notes.copy())
            self.past.keep(position, stand)
            told = self._entry(scores, token), self._trace(seen, token)
            self._commit(token, told, here.notes)

    def _commit(
        self,
        token: int,
        told: tuple[TokenLogprob | None, TokenTrace | None],
        notes: Mapping[str, float],
    ) -> None:
        self.notes.update(notes)
        self.tokens.append(token)
        self.chain = self.chain.advance(token).notice(notes, self.tokens)
        text, self.pending = self.context.lexicon.write(self.pending, token)
        self.release.write(text, *told)
        if not self._enforce(self.chain.verdicts):
            return
        if self.release.stopped:
            self._end("stop")
        elif len(self.tokens) >= self.max_tokens:
            self._end("length")

    def _enforce(self, verdicts: tuple[Verdict, ...]) -> bool:
        """Do what *verdicts* call for; return whether the text stands as it was written."""
        rewinds = [verdict for verdict in verdicts if isinstance(verdict, Rewind)]
        possible = [rewind for rewind in rewinds if self.past.may(rewind)]
        instead = [rewind.otherwise for rewind in rewinds if rewind not in possible]
        if any(isinstance(verdict, Refuse) for verdict in (*verdicts, *instead)):
            self._refuse()
            return False
        if possible:
            self._go_back(earliest(possible))
            return False
        for verdict in (*verdicts, *instead):
            if isinstance(verdict, Redact):
                self.release.redact(verdict)
        return True

    def _go_back(self, rewind: Rewind) -> None:
        """Stand again where *rewind* says; what was chosen there is banned there."""
        stand = self.past.back(rewind, self.tokens)
        del self.tokens[rewind.to :]
        self.chain, self.pending, self.notes = stand.chain, stand.pending, stand.notes
        self.release.rewind(stand.mark)
        self.finish = None

    def _turn_round(self, notes: Mapping[str, float]) -> None:
        """Nothing acceptable is left: go back to where the forbidden began, else refuse.

        Of that, what has left stays: then the way back ends behind it.
        """
        n_tokens = len(self.tokens)
        places = range(n_tokens - max(1, self.chain.n_growing), n_tokens)
        possible = filter(self.past.may, (Rewind(place, frozenset()) for place in places))
        if (rewind := next(possible, None)) is not None:
            self._go_back(rewind)
            self.chain = self.chain.notice(notes, self.tokens)
        else:
            self._refuse()

    def _end(self, finish: Finish) -> None:
        """End the reply; the sessions judge the text as it ends, cut or not."""
        self.finish = finish
        if self.release.stopped:
            chain = self._cut_chain()
        else:
            self.release.write(self.context.lexicon.finish(self.pending))
            chain = self.chain
        chain = chain.finish()
        if self._enforce(chain.verdicts):
            self.notes.update({k: n - self.notes[k] for k, n in chain.tally.items()})

    def _cut_chain(self) -> Chain:
        """Return the sessions as they would stand had the text ended where a stop text cut it."""
        text = self.release.text
        stand = self.past.before(len(text))
        if stand is not None:
            return stand.chain.read(text[stand.mark.length :])
        return Chain.begin(self.plan.recipes, self.context).read(text)

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

    def _trace(self, seen: Watched | None, token: int) -> TokenTrace | None:
        if seen is None or self.tracer is None:
            return None
        return self.tracer.entry(seen, token, self.context.lexicon)

    def take(self) -> Delta | None:
        """Return what may leave now; None if nothing may and the reply goes on."""
        held = self.chain.held if self.finish is None else 0
        text, entries = self.release.take(held)
        traces = self.release.take_traces()
        self.past.forget_before(self.release.mark)
        if not (text or entries or traces or self.finish):
            return None
        return Delta(
            choice=self.context.choice,
            text=text,
            logprobs=entries,
            trace=traces,
            finish=self.finish,
        )
