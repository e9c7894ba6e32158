"""Plans for an engine that speaks text and has recipes and masks act where its scores are.

What acts there: the profile's recipes, what guides the request, its penalties and its bias, and the
masks of what is registered. Temperature, truncation and seed stay with the engine. Its text is
guarded as that of any engine without scores: what no mask can do, the layers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from elision.contract import Capability, Carrying, Engine, Plan, Recipe, Sampling, in_order
from elision.errors import CapabilityError
from elision.middleware.profiles import sampling_recipes

if TYPE_CHECKING:
    from elision.middleware.planning import Defence
    from elision.middleware.profiles import Profile

_FIELDS: Final = ("logit_bias", "frequency_penalty", "presence_penalty", "repetition_penalty")
_NEUTRAL: Final = Sampling()


def carrier(engine: Engine) -> Carrying | None:
    """Return *engine* if recipes can be handed to it, and do not act here; else None."""
    if isinstance(engine, Carrying) and Capability.LOGITS not in engine.capabilities:
        return engine
    return None


def can_shape(engine: Engine, profile: Profile) -> bool:
    """Return whether *engine* carries every recipe that *profile* adds to a request."""
    taker = carrier(engine)
    return taker is not None and all(map(taker.carries, profile.recipes()))


def carried(engine: Engine, plan: Plan, defence: Defence) -> Plan:
    """Return *plan* with everything that acts where the scores of *engine* are.

    Penalties and bias leave the request's sampling, so that they act once, and in our order.
    The masks are written down at the first call per enforcement: not for the event loop.

    Args:
        engine: Who writes.
        plan: Without recipes.
        defence: Its guidance has been found to be carried.

    Returns:
        The plan itself if the engine takes nothing of the kind, or there is nothing to take.

    Raises:
        CapabilityError: If the engine does not carry a recipe that the request's sampling asks for.
    """
    taker = carrier(engine)
    if taker is None:
        return plan
    sampling = plan.request.sampling
    own = sampling_recipes(replace(sampling, temperature=0.0))  # greedy: bias and penalties alone
    if not all(map(taker.carries, own)):
        field = next(_asked(sampling))
        raise CapabilityError(field, engine=engine.name, missing="LOGITS", param=field)
    recipes = in_order((*defence.profile.recipes(), *defence.guidance, *own))
    bare = replace(sampling, **{field: getattr(_NEUTRAL, field) for field in _FIELDS})
    request = replace(plan.request, sampling=bare) if own else plan.request
    return replace(plan, request=request, recipes=recipes, masks=defence.rules.carried)


def acts(engine: Engine, plan: Plan) -> bool:
    """Return whether something of *plan* acts where the scores of *engine* are."""
    return carrier(engine) is not None and (plan.masks is not None or bool(plan.recipes))


def lacking(engine: Engine, recipe: Recipe) -> Capability | None:
    """Return what *engine* lacks for *recipe*, which reads other scores; None if nothing."""
    if (taker := carrier(engine)) is not None:
        has_scores = taker.carries(recipe)
    else:
        has_scores = Capability.LOGITS in engine.capabilities
    if not has_scores:
        return Capability.LOGITS
    return None if Capability.BRANCH in engine.capabilities else Capability.BRANCH


def _asked(sampling: Sampling) -> Iterator[str]:
    """Yield the fields that ask for a recipe and are not neutral."""
    for field in _FIELDS:
        if getattr(sampling, field) != getattr(_NEUTRAL, field):
            yield field
