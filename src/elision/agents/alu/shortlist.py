"""The register as ALU reads it: at most eight targets a request, in time that does not grow."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from elision.agents.alu.facets import Facets
from elision.agents.alu.naming import Names
from elision.agents.alu.roles import Candidate, Channel, Evidence, Place
from elision.agents.alu.words import words_of
from elision.contract import Message, text_of
from elision.errors import GuardError
from elision.guards.detection.check import Checker, CheckHit
from elision.guards.gate.probe_index import ProbeIndex
from elision.guards.gate.probes import asked
from elision.guards.gate.views import Turn, ViewPolicy, make_views
from elision.guards.targets import ForgetTarget

if TYPE_CHECKING:
    from elision.encoders import Encoder

MOST: Final = 8
"""Targets that ever stand in a prompt (1.5 of the design: lists of names make prompts grow)."""
_ALIAS: Final = 0.8
_RELATION: Final = 0.5
_DESCRIBED: Final = 480
_NAMES, _FACTS, _PROBES = 6, 8, 3
"""What agents are told of one target: characters of each part, and how many of each."""
_VIEWS: Final = ViewPolicy(max_views=24)


class TargetIndex:
    """One tenant's active targets, to be looked up by what a text says. Immutable.

    Attributes:
        targets: The active ones that do more than observe.
        checker: Finds their phrases and names in every form.
    """

    def __init__(
        self,
        targets: Sequence[ForgetTarget],
        checker: Checker,
        encoder: Encoder | None,
        index: ProbeIndex | None,
        tenant: str,
    ) -> None:
        self.targets = tuple(targets)
        self.checker = checker
        self._at = {target.id: at for at, target in enumerate(targets)}
        self._names = Names(targets)
        self._facets = Facets(targets)
        self._encoder = encoder
        self._index = index
        self._tenant = tenant

    @classmethod
    def compile(
        cls,
        targets: Iterable[ForgetTarget],
        checker: Checker | None = None,
        encoder: Encoder | None = None,
        *,
        tenant: str = "default",
    ) -> TargetIndex:
        """Compile the active ones of *targets* that do more than observe; blocks meanwhile.

        Args:
            targets: Those whose scope covers the request.
            checker: Compiled of the same targets; None compiles one.
            encoder: Finds questions by their meaning; None: by their words alone.
            tenant: Whose cache of vectors is used.

        Raises:
            GuardError: If the encoder breaks.
            MissingExtraError: If faiss is not installed and there is an encoder.
        """
        active = [t for t in targets if t.state == "active" and t.action != "observe"]
        index = None
        if encoder is not None and active:
            probes = [asked(target) for target in active]
            index = ProbeIndex.build(probes, encoder, tenant=tenant, known={})
        found = Checker.compile(active) if checker is None else checker
        return cls(active, found, encoder, index, tenant)

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"TargetIndex({len(self)} targets)"

    def target(self, target_id: str) -> ForgetTarget:
        """Return a target by its id."""
        return self.targets[self._at[target_id]]

    def shortlist(self, text: str, where: Place = "draft") -> tuple[Candidate, ...]:
        """Return what *text* comes near to by names, their parts, and what is said of targets.

        Takes as long for ten targets as for ten thousand.
        """
        words = words_of(text)
        found = [
            self._candidate(at, channel, 1.0 if channel == "literal" else _ALIAS, where, start, end)
            for at, channel, start, end in self._names.find(text, words)
        ]
        for met in self._facets.met(words):
            score = _RELATION + _RELATION * met.share * 0.5
            near = self._candidate(
                met.facet.target, "relation", score, where, met.start, met.end, met.facet.number
            )
            found.append(near)
        return merged(found)

    def screen(self, messages: Sequence[Message]) -> tuple[Candidate, ...]:
        """Return what a conversation comes near to, in every canonical form and decoded as well.

        Takes longer than `shortlist`, and longer the longer the conversation is.
        """
        hits = self.checker.check_messages(messages).hits
        last = max((n for n, m in enumerate(messages) if m.get("role") == "user"), default=-1)
        found = [_of_hit(hit, "question" if hit.message == last else "history") for hit in hits]
        for n, message in enumerate(messages):
            found += self.shortlist(text_of(message), "question" if n == last else "history")
        return merged(found)

    async def near(self, turns: Sequence[Message], floor: float) -> tuple[Candidate, ...]:
        """Return what the last of *turns* ask for by meaning; nothing without an encoder.

        Args:
            turns: Messages, the last of them the one that matters; those before it give it context.
            floor: Least cosine that counts.

        Raises:
            GuardError: If the encoder breaks.
        """
        if self._encoder is None or self._index is None or not turns:
            return ()
        views = make_views([Turn(str(m.get("role")), text_of(m)) for m in turns], policy=_VIEWS)
        if not views.texts:
            return ()
        try:
            vectors = await asyncio.wrap_future(
                self._encoder.embed(views.texts, tenant=self._tenant)
            )
        except Exception as error:
            # Whatever an encoder raises, a question that nobody compared is not answered.
            raise GuardError(f"the shortlist's encoder broke ({type(error).__name__})") from None
        near = await asyncio.to_thread(self._index.nearest, vectors, among=(), floor=floor, n=MOST)
        found = [
            self._candidate(at, "embedding", min(cosine, 1.0), "question")
            for at, cosine in near.items()
            if cosine >= floor
        ]
        return merged(found)

    def given_away(self, text: str, allowed: Collection[str] = ()) -> frozenset[str]:
        """Return the ids of the targets that *text* gives away literally, in any form.

        A phrase does, and a name that is not *allowed*: the ids of targets whose names the caller
        himself used.
        """
        hits = self.checker.check_text(text).hits
        return frozenset(
            hit.target_id
            for hit in hits
            if hit.action != "observe" and (hit.what == "phrase" or hit.target_id not in allowed)
        )

    def described(self, target_id: str) -> str:
        """Return what agents are told of a target: its kind, names and what is said of it."""
        target = self.target(target_id)
        facts = dict.fromkeys((*target.answers, *(phrase.text for phrase in target.phrases)))
        parts = {
            "names": "; ".join(target.names[:_NAMES]),
            "facts": " | ".join([*facts][:_FACTS]),
            "asked for by": " | ".join(target.probes[:_PROBES]),
        }
        told = (f"{k}: {' '.join(text.split())[:_DESCRIBED]}" for k, text in parts.items() if text)
        return f"a {target.kind}; " + "; ".join(told)

    def _candidate(
        self,
        at: int,
        channel: Channel,
        score: float,
        where: Place,
        start: int = 0,
        end: int = 0,
        facet: int | None = None,
    ) -> Candidate:
        facets = frozenset(() if facet is None else (facet,))
        evidence = (Evidence(where, start, end),)
        return Candidate(self.targets[at].id, channel, score, evidence, facets)


def merged(candidates: Iterable[Candidate], most: int | None = None) -> tuple[Candidate, ...]:
    """Return one candidate a target, with all its evidence, the nearest first.

    Args:
        candidates: Of any targets and channels.
        most: How many are kept; None keeps all.
    """
    found: dict[str, Candidate] = {}
    for new in candidates:
        old = found.get(new.target_id)
        found[new.target_id] = new if old is None else _together(old, new)
    ordered = sorted(found.values(), key=lambda one: (-one.score, one.channel, one.target_id))
    return tuple(ordered[:most])


def _together(one: Candidate, other: Candidate) -> Candidate:
    best = max(one, other, key=lambda it: it.score)
    evidence = tuple(dict.fromkeys((*one.evidence, *other.evidence)))
    return Candidate(best.target_id, best.channel, best.score, evidence, one.facets | other.facets)


def _of_hit(hit: CheckHit, where: Place) -> Candidate:
    alias = hit.level == "alias"
    channel: Channel = "alias" if alias else "literal"
    score = _ALIAS if alias else 1.0
    return Candidate(hit.target_id, channel, score, (Evidence(where, hit.start, hit.end),))
