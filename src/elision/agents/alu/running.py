"""One request on its way through ALU's stages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from elision.agents.alu.bounds import bounded
from elision.agents.alu.case import Case, Outcome
from elision.agents.alu.choosing import Variant, best_of
from elision.agents.alu.config import AluConfig
from elision.agents.alu.following import asked_about, named
from elision.agents.alu.instead import Instead
from elision.agents.alu.prompts import digests
from elision.agents.alu.purse import Purse
from elision.agents.alu.roles import Candidate, Draft, Evidence, Finding, Roles, Score
from elision.agents.alu.shortlist import merged
from elision.agents.alu.verdict import AluVerdict, Path, Reason
from elision.contract import Finish
from elision.errors import UpstreamTimeoutError

_WORST = Score(leak=1, utility=1)


@dataclass(slots=True)
class Run:
    """What one request has come to so far."""

    roles: Roles
    config: AluConfig
    case: Case
    purse: Purse
    seen: tuple[Candidate, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    findings: tuple[Finding, ...] | None = ()
    scores: tuple[Score, ...] = ()
    chosen: int | None = None
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.purse.clock()

    async def outcome(self) -> Outcome:
        """Go through all stages that are needed, and return what may leave."""
        await self._screen()
        draft = await self._draft()
        await self._shortlist(draft)
        if not self.candidates:
            return self._out("clean", draft.text, cut=draft.cut)
        if self._told_enough():
            return await self._instead(draft, "disclosure")
        if reason := self._short_of("judge"):
            return await self._instead(draft, reason, judged=False)
        await self._judge(draft)
        if self.findings == ():
            return await self._second_opinion(draft)
        return await self._rewritten(draft)

    async def _screen(self) -> None:
        if len(self.case.targets):
            with self.purse.stage("screen"):
                self.seen = await self.roles.auditor.shortlist(self.case, None)

    async def _draft(self) -> Draft:
        with self.purse.stage("draft"):
            draft = await self.roles.vanilla.generate(self.case, self.purse)
        if draft is None:
            raise UpstreamTimeoutError("no draft was written before the deadline")
        return draft

    async def _shortlist(self, draft: Draft) -> None:
        """Take in what the draft comes near to, and what it gives away to the letter."""
        if not len(self.case.targets):
            return
        with self.purse.stage("shortlist"):
            near = await self.roles.auditor.shortlist(self.case, draft)
        with self.purse.stage("check"):
            literal = await self._literal(draft.text)
        whole = Evidence("draft", 0, len(draft.text))
        given = [Candidate(target, "literal", 1.0, (whole,)) for target in sorted(literal)]
        self.candidates = merged((*given, *self.seen, *near), self.config.shortlist)

    async def _judge(self, draft: Draft) -> None:
        """Have the draft judged; what gives a target away to the letter needs no judge."""
        with self.purse.stage("judge"):
            found = await self.roles.auditor.judge(self.case, draft, self.candidates, self.purse)
        self.findings = found
        literal = await self._literal(draft.text)
        if found is not None and (unseen := literal - {one.target_id for one in found}):
            self.findings = (*found, *self._by_rule(unseen, draft))

    def _by_rule(self, targets: frozenset[str], draft: Draft) -> list[Finding]:
        places = self.case.targets.shortlist(draft.text)
        spans = {one.target_id: (one.evidence[0].start, one.evidence[0].end) for one in places}
        whole = 0, len(draft.text)
        return [Finding(one, "direct", spans.get(one, whole)) for one in sorted(targets)]

    async def _second_opinion(self, draft: Draft) -> Outcome:
        """Let a draft go that the judge cleared, if the critic sees nothing in it either."""
        if self.config.confirm:
            if reason := self._short_of("critic"):
                return await self._instead(draft, reason, judged=False)
            scores = await self._rated([draft.text])
            if scores is None:
                return await self._instead(draft, "critic_invalid", judged=False)
            self.scores = scores
            if scores[0].leak < self.config.least:
                return await self._instead(draft, "critic_objects", judged=False)
        self._remember()
        return self._out("cleared", draft.text, cut=draft.cut)

    async def _rewritten(self, draft: Draft) -> Outcome:
        if reason := self._short_of("rewrite"):
            return await self._instead(draft, reason)
        with self.purse.stage("rewrite"):
            texts = await self.roles.eraser.rewrite(
                self.case, draft, self.candidates, self._objections(draft), self.purse
            )
        if not texts:
            return await self._instead(draft, "no_variants")
        if reason := self._short_of("critic"):
            return await self._instead(draft, reason)
        variants = await self._variants(texts)
        if variants is None:
            return await self._instead(draft, "critic_invalid")
        self.scores = tuple(one.score for one in variants)
        best = best_of(variants, draft.text, self.config)
        if not best:
            return await self._instead(draft, "below_threshold")
        return await self._composed(best, draft)

    def _objections(self, draft: Draft) -> tuple[Finding, ...]:
        """Return the findings; of a draft that nobody could judge, all of it for every target."""
        if self.findings is not None:
            return self.findings
        whole = 0, len(draft.text)
        return tuple(Finding(one.target_id, "direct", whole) for one in self.candidates)

    async def _variants(self, texts: Sequence[str]) -> list[Variant] | None:
        """Return all variants rated; of those that rules object to, the critic is not asked."""
        plain = [n for n, text in enumerate(texts) if not await self._objectionable(text)]
        rated = await self._rated([texts[n] for n in plain]) if plain else ()
        if rated is None:
            return None
        scores = dict(zip(plain, rated, strict=True))
        return [Variant(n, text, scores.get(n, _WORST)) for n, text in enumerate(texts)]

    async def _objectionable(self, text: str) -> bool:
        """Return whether a variant gives a target away to the letter, or comes near a new one.

        The critic hears of the shortlisted targets only: of others it would know nothing.
        """
        if await self._literal(text):
            return True
        near = await self.roles.auditor.shortlist(self.case, Draft(text))
        return not {one.target_id for one in near} <= {one.target_id for one in self.candidates}

    async def _rated(self, texts: Sequence[str]) -> tuple[Score, ...] | None:
        with self.purse.stage("critic"):
            scores = await self.roles.critic.score(self.case, texts, self.candidates, self.purse)
        return scores if scores is not None and len(scores) == len(texts) else None

    async def _composed(self, best: Sequence[Variant], draft: Draft) -> Outcome:
        """Return the best variant, or the merged ones if nothing came back with them.

        What was made of a draft that was cut ends as that did.
        """
        self.chosen = best[0].index
        if self.config.composer == "merge" and len(best) > 1 and self.roles.composer:
            text = await self._merged([one.text for one in best])
            if text is not None:
                return self._ended("merged", text, draft)
        return self._ended("rewritten", best[0].text, draft)

    def _ended(self, path: Path, text: str, draft: Draft) -> Outcome:
        text, cut = bounded(text, self.case.max_tokens)
        return self._out(path, text, cut=cut or draft.cut)

    async def _merged(self, texts: Sequence[str]) -> str | None:
        """Return a merged text that passed the audit; None if there is none."""
        if self.roles.composer is None or not self.purse.affords("compose", 2):
            return None
        with self.purse.stage("compose"):
            text = await self.roles.composer.compose(self.case, texts, self.candidates, self.purse)
        if text is None or await self._literal(text) or not self.purse.affords("judge"):
            return None
        draft = Draft(text)
        near = await self.roles.auditor.shortlist(self.case, draft)
        candidates = merged((*self.candidates, *near), self.config.shortlist)
        with self.purse.stage("judge"):
            found = await self.roles.auditor.judge(self.case, draft, candidates, self.purse)
        return text if found == () else None

    async def _instead(self, draft: Draft, reason: Reason, *, judged: bool = True) -> Outcome:
        """Return what is said where nothing of the draft may leave as it is."""
        with self.purse.stage("fallback"):
            said = await Instead(self.roles, self.config, self.case, self.purse, self.seen).of(
                draft,
                self.candidates,
                self.findings if judged else None,
                hurried=reason in {"deadline", "calls"},
            )
        return self._out(
            "fallback", said.text, finish=said.finish, fallback=said.name, reason=reason
        )

    async def _literal(self, text: str) -> frozenset[str]:
        return await asyncio.to_thread(self.case.targets.given_away, text, named(self.seen))

    def _short_of(self, stage: str) -> Reason:
        if self.purse.affords(stage):
            return ""
        return "calls" if self.purse.calls.total() >= self.purse.most_calls else "deadline"

    def _told_enough(self) -> bool:
        told = self.case.disclosure
        return told is not None and any(
            told.exceeds(target, self.case.question, self.config.n_facts)
            for target in asked_about(self.case, self.seen)
        )

    def _remember(self) -> None:
        if self.case.disclosure is not None:
            for target in asked_about(self.case, self.seen):
                self.case.disclosure.tell(target, self.case.question)

    def _out(
        self,
        path: Path,
        text: str,
        *,
        cut: bool = False,
        finish: Finish = "stop",
        fallback: str = "",
        reason: Reason = "",
    ) -> Outcome:
        purse = self.purse
        verdict = AluVerdict(
            path=path,
            mode=self.config.mode,
            fallback=fallback,
            reason=reason,
            calls=dict(purse.calls),
            usage=purse.usage,
            timings_ms=dict(purse.timings_ms),
            total_ms=(purse.clock() - self.begun) * 1e3,
            candidates=tuple(one.target_id for one in self.candidates),
            channels=tuple(one.channel for one in self.candidates),
            n_findings=None if self.findings is None else len(self.findings),
            leaks=tuple(one.leak for one in self.scores),
            utilities=tuple(one.utility for one in self.scores),
            chosen=self.chosen,
            retries=purse.retries,
            faults=tuple(purse.faults),
            prompts=digests(),
        )
        ends: Finish = "length" if cut else finish
        return Outcome(text=text, finish=ends, usage=purse.usage, verdict=verdict)
