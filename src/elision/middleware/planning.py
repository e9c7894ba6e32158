"""From a request, a profile and what is enforced to the recipes of one reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from elision.contract import (
    Context,
    Engine,
    Here,
    Lexicon,
    Recipe,
    Request,
    Session,
    Stateless,
    in_order,
)
from elision.errors import CapabilityError, GuardError
from elision.guards.baselines.curate import CurateRefusal
from elision.guards.conversation.accumulator import Turns
from elision.guards.conversation.watch import AccumulatedWatch
from elision.guards.gate.assessment import Assessment, Level
from elision.guards.semantic.watch import SemanticWatch
from elision.middleware.carrying import can_shape
from elision.middleware.enforcement import Enforcement, Understanding
from elision.middleware.holding.holds import Hold, Holds
from elision.middleware.holding.layers import (
    Closed,
    Encodings,
    Layer,
    Layers,
    Meaning,
    Passages,
    Phrases,
    Turned,
    begun,
)
from elision.middleware.profiles import Profile, sampling_recipes

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN: Final = Assessment(level=Level.CLOSED, covered=False)
"""Stands for the gate's word where it failed and the profile goes on without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """What guards one request, decided before its first token.

    Attributes:
        profile: The request's.
        rules: What is enforced.
        understanding: Gate and semantic layer; None where none is asked for, or it failed in a
            profile that goes on without.
        assessment: What the gate says, in time; None likewise.
        is_weakened: Whether the gate failed and the request goes on with phrases alone.
        earlier: What the session's earlier replies come to; None without a session.
        guidance: The recipes that guide it.
    """

    profile: Profile
    rules: Enforcement
    understanding: Understanding | None = None
    assessment: Future[Assessment] | None = None
    is_weakened: bool = False
    earlier: Turns | None = None
    guidance: tuple[Recipe, ...] = ()

    @classmethod
    async def of(
        cls,
        profile: Profile,
        rules: Enforcement,
        request: Request,
        lexicon: Lexicon | None,
        *,
        on_failure: Callable[[], object],
    ) -> Defence:
        """Decide what guards *request*, and set the gate to work.

        Args:
            profile: The request's.
            rules: What is enforced.
            request: Final: what memory and agents add is in it.
            lexicon: The engine's, if it has one.
            on_failure: Called whenever the gate fails and the profile goes on without it.

        Raises:
            GuardError: If the gate cannot be asked, unless the profile goes on without it.
        """
        if not (profile.assesses and rules.is_understood):
            return cls(profile=profile, rules=rules)
        try:
            known = await asyncio.to_thread(rules.understanding)
            assessment = known.assess(request, lexicon)
        except GuardError:
            if profile.fail_mode == "closed":
                raise
            on_failure()
            return cls(profile=profile, rules=rules, is_weakened=True)
        if profile.fail_mode != "closed":
            assessment = _or_closed(assessment, on_failure)
        return cls(profile=profile, rules=rules, understanding=known, assessment=assessment)

    @property
    def pending(self) -> tuple[Future[Any], ...]:
        """What must be known before the first token is chosen."""
        return () if self.assessment is None else (self.assessment,)

    def recipes(self, request: Request, lexicon: Lexicon) -> tuple[Recipe, ...]:
        """Return everything that acts on an engine with logits, in order.

        The first call per lexicon takes seconds with many phrases: not for the event loop.
        """
        found = [*self.profile.recipes(), *self.guidance, *sampling_recipes(request.sampling)]
        found += self.rules.guard.recipes(lexicon)
        found += self.rules.verbatim.recipes(lexicon)
        if self.profile.encoded:
            found += self.rules.encoded.recipes()
        if (turns := self._turns(request)) is not None:
            found.append(AccumulatedWatch(accumulator=self.rules.accumulator, turns=turns))
        return in_order((*found, *self._understood()))

    def _turns(self, request: Request) -> Turns | None:
        """Return what the earlier turns come to; None if there are none, or nothing to find."""
        spoke = any(message.get("role") == "assistant" for message in request.messages)
        if not (self.profile.encoded and self.rules.accumulator) or not (spoke or self.earlier):
            return None
        turns = self.rules.accumulator.over(request)
        return turns if self.earlier is None else turns.united(self.earlier)

    def _understood(self) -> tuple[Recipe, ...]:
        if self.assessment is None or self.understanding is None:
            return ()
        curate = self._curate(self.assessment)
        found: list[Recipe] = [] if curate is None else [curate]
        if self.profile.semantic:
            semantics = self.understanding.semantics
            found.append(SemanticWatch(semantics=semantics, assessment=self.assessment))
        if self.profile.fail_mode == "closed":
            return tuple(found)
        return tuple(_UnlessUnknown(recipe, self.assessment) for recipe in found)

    async def layers(self, request: Request) -> Layers:
        """Return what guards every channel of an engine that only speaks text.

        Waits for the gate.

        Raises:
            GuardError: If the gate broke.
        """
        rules, user = self.rules, request.user_text
        found: list[Layer] = [Phrases(rules, user)]
        if rules.verbatim:
            found.append(Passages(rules, user))
        if has_encodings := self.profile.encoded and bool(rules.encoded):
            found.append(Encodings(rules, user))
        if (turns := self._turns(request)) is not None:
            found.append(Turned(rules, user, turns))
        if self.assessment is not None and self.understanding is not None:
            known = await asyncio.wrap_future(self.assessment)
            if self._is_refused(known):
                found = [Closed()]
            elif self.profile.semantic and known.suspects:
                found.append(Meaning(self.understanding.semantics, known, user))
        return Layers(
            layers=tuple(found),
            rules=rules,
            user=user,
            before=begun(request),
            has_encodings=has_encodings,
        )

    async def hold(self, request: Request) -> Hold:
        """Return what guards one choice of an engine that only speaks text."""
        layers = await self.layers(request)
        return Holds([layer.open(layers.before, json=False) for layer in layers.layers])

    def _is_refused(self, known: Assessment) -> bool:
        curate = self._curate(known)
        return curate is not None and curate.cosine(known) > curate.threshold

    def _curate(self, assessment: Assessment | Future[Assessment]) -> CurateRefusal | None:
        limit, known = self.profile.refuse_above, self.understanding
        if limit is None or known is None:
            return None
        bonus = known.gate.policy.name_bonus
        return CurateRefusal(assessment=assessment, threshold=limit, name_bonus=bonus)

    def report(self) -> dict[str, Any]:
        """Return what a report tells of it: counts and levels, no text."""
        facts: dict[str, Any] = {
            "profile": self.profile.name,
            "epoch": self.rules.epoch,
            "n_targets": self.rules.guard.n_targets,
        }
        if self.is_weakened:
            facts["gate"] = "failed"
        elif self.assessment is not None and self.assessment.done():
            known = self.assessment.result()
            facts["gate"] = "failed" if known is UNKNOWN else known.level.name.lower()
        return facts


def check_speaks_only(engine: Engine, profile: Profile, request: Request) -> None:
    """Raise if *request* needs more than *engine* has, which speaks text and shows no scores.

    The recipes of its profile may be handed to an engine that carries them.

    Raises:
        CapabilityError: If its profile, or an option of its own, does.
    """
    is_shaped = bool(profile.recipes()) and not can_shape(engine, profile)
    if is_shaped or profile.decoder == "beam":
        method, param = f"profile {profile.name}", "model"
    elif asked := [key for key in ("deterministic", "speculation", "trace") if _asks(request, key)]:
        method, param = f"elision.{asked[0]}", "elision"
    else:
        return
    raise CapabilityError(method, engine=engine.name, missing="LOGITS", param=param)


def _asks(request: Request, option: str) -> bool:
    """Return whether *option* asks for what only an engine that decodes here can promise."""
    return request.options.get(option) in {True, "force"}


@dataclass(frozen=True, slots=True)
class _Idle(Stateless):
    """A session that does nothing."""

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits


class _UnlessUnknown:
    """A recipe of the semantic layer, left out of requests whose gate failed."""

    def __init__(self, recipe: Recipe, assessment: Future[Assessment]) -> None:
        self.inner = recipe
        self._assessment = assessment
        self.stage, self.rank = recipe.stage, recipe.rank

    def begin(self, context: Context) -> Session:
        is_unknown = self._assessment.result() is UNKNOWN
        return _Idle() if is_unknown else self.inner.begin(context)


def _or_closed(asked: Future[Assessment], on_failure: Callable[[], object]) -> Future[Assessment]:
    """Return a future that says `UNKNOWN` where *asked* fails."""
    answer: Future[Assessment] = Future()

    def settle(done: Future[Assessment]) -> None:
        if done.cancelled() or done.exception() is not None:
            on_failure()
            answer.set_result(UNKNOWN)
        else:
            answer.set_result(done.result())

    asked.add_done_callback(settle)
    return answer
