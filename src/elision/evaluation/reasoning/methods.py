"""The methods that are compared: recipes, and how tokens are drawn. Controls are methods too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeAlias

from elision.contract import Recipe
from elision.errors import ConfigError
from elision.evaluation.reasoning.data import Item, Suite
from elision.middleware.interventions.contrast import ContextAware
from elision.middleware.interventions.entropy import (
    AdaptiveTemperature,
    EntropyMinimisation,
    TargetEntropy,
)
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.temperature import Temperature
from elision.middleware.interventions.views import System, Without

Build: TypeAlias = Callable[[Item], tuple[Recipe, ...]]

NEUTRAL: Final = "apple"
"""MTI's control, its paper's own: a word that says nothing, so a gain under it is any word's."""
NEUTRAL_PROMPT: Final = "Apples are fruit, and most of them grow on trees."
"""Guidance's control: a prompt that says nothing. Of several tokens: behind a lone one, a model
without a start token says nearly the same whatever it is, so it would be no other prompt."""
TEMPERATURES: Final = (0.1, 0.3, 0.5, 0.7, 1.0)
"""What the tuned temperature is chosen from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way of choosing tokens.

    Attributes:
        name: As the tables call it.
        summary: One line for people.
        build: Its recipes for an item, temperature left out.
        temperature: Of the draw; 0 is greedy. Where the answer is given it is that at which the
            answer's probability is told, and 0 counts as 1.
        tuned: Whether the temperature is chosen on items that are not tested.
        like: The method whose realised usage it copies: it acts as often, elsewhere.
    """

    name: str
    summary: str
    build: Build = lambda _: ()
    temperature: float = 0.0
    tuned: bool = False
    like: str | None = None

    @property
    def samples(self) -> bool:
        """Whether its tokens are drawn, so that several seeds tell more than one."""
        return self.temperature > 0

    def recipes(self, item: Item, *, share: float | None = None) -> tuple[Recipe, ...]:
        """Return the recipes for *item*, its temperature left out.

        Args:
            item: What is asked.
            share: Realised usage of `like`, in [0, 1]; where it never acted this acts nowhere. A
                method that copies none ignores it.
        """
        found = self.build(item)
        if self.like is None or share is None:
            return found
        if not share:
            return tuple(r for r in found if not isinstance(r, MinimalIntervention))
        return tuple(
            replace(recipe, share=share) if isinstance(recipe, MinimalIntervention) else recipe
            for recipe in found
        )

    def reading(self, item: Item, *, share: float | None = None) -> tuple[Recipe, ...]:
        """Return the recipes under which a given answer is read: the temperature is among them."""
        cool = () if self.temperature in (0, 1) else (Temperature(value=self.temperature),)
        return (*self.recipes(item, share=share), *cool)


def label(name: str, share: float | None) -> str:
    """Return the name under which a method's values are kept; the usage that it copies is in it."""
    return name if share is None else f"{name}@{share:.4f}"


def waves(picked: Iterable[Method]) -> tuple[tuple[Method, ...], ...]:
    """Return *picked* in the order of their running: whatever copies another comes after it."""
    picked = tuple(picked)
    first = tuple(method for method in picked if method.like is None)
    later = tuple(method for method in picked if method.like is not None)
    return (first, later) if later else (first,)


def _always(*recipes: Recipe) -> Build:
    return lambda _: recipes


def _context_aware(scale: float) -> Build:
    def build(item: Item) -> tuple[Recipe, ...]:
        passage = getattr(item, "passage", "")
        if not passage:
            raise ConfigError("context-aware decoding needs items with a passage to leave out")
        return (ContextAware(scale=scale, other=Without(passage)),)

    return build


def _warm(temperature: float) -> Method:
    told = f"{temperature:g}"
    return Method(name=f"t-{told}", summary=f"temperature {told}", temperature=temperature)


def _cfg(scale: float) -> Method:
    return Method(
        name=f"cfg-{scale:g}",
        summary=f"guidance away from the prompt's last token, gamma {scale:g}",
        build=_always(Guidance(scale=scale)),
    )


def _mti(temperature: float = 0.0) -> tuple[Method, ...]:
    """Return MTI with its controls."""
    end = f"@{temperature:g}" if temperature else ""
    mti = f"mti{end}"
    return (
        Method(
            name=mti, summary="MTI: guided where the model hesitates, away from 'OUTPUT ERROR'",
            build=_always(MinimalIntervention()), temperature=temperature,
        ),
        Method(
            name=f"mti-random{end}", summary="control: MTI as often, at random positions",
            build=_always(MinimalIntervention(gate="random")), temperature=temperature, like=mti,
        ),
        Method(
            name=f"mti-{NEUTRAL}{end}", summary=f"control: MTI with {NEUTRAL!r} for the phrase",
            build=_always(MinimalIntervention(negative=NEUTRAL)), temperature=temperature,
        ),
    )  # fmt: skip


PLAIN: Final = Method(name="plain", summary="the model alone")
GREEDY: Final = Method(name="greedy", summary="the model alone, best token")
_CLOZE: Final = (
    PLAIN,
    _cfg(1.1),
    _cfg(1.25),
    _cfg(1.5),
    Method(
        name="cfg-neutral", summary="control: guidance away from a sentence on apples, gamma 1.25",
        build=_always(Guidance(scale=1.25, other=System(NEUTRAL_PROMPT))),
    ),
    *_mti(),
    Method(
        name="mti-last-token", summary="MTI's gate, away from the prompt's last token",
        build=_always(MinimalIntervention(branch="last_token")),
    ),
    _warm(0.5),
    _warm(0.1),
    Method(
        name="em-inf", summary="EM-INF, then temperature 1",
        build=_always(EntropyMinimisation()), temperature=1.0,
    ),
    Method(
        name="em-inf-0.1", summary="EM-INF, then temperature 0.1: as its authors sample",
        build=_always(EntropyMinimisation()), temperature=0.1,
    ),
)  # fmt: skip
_TRAP: Final = (
    PLAIN,
    _cfg(1.25),
    _cfg(1.5),
    Method(
        name="cad-0.5", summary="context-aware decoding, the instruction left out, alpha 0.5",
        build=_context_aware(0.5),
    ),
    Method(
        name="cad-1", summary="context-aware decoding, the instruction left out, alpha 1",
        build=_context_aware(1.0),
    ),
    Method(
        name="cfg-neutral", summary="control: guidance away from a sentence on apples, gamma 1.5",
        build=_always(Guidance(scale=1.5, other=System(NEUTRAL_PROMPT))),
    ),
)  # fmt: skip
_PIQA: Final = (PLAIN, _cfg(1.1), _cfg(1.25), _cfg(1.5))
_WRITTEN: Final = (
    GREEDY,
    _warm(0.1),
    _warm(0.5),
    _warm(1.0),
    Method(
        name="t-tuned", summary="the temperature that does best on other items",
        temperature=1.0, tuned=True,
    ),
    Method(
        name="em-inf", summary="EM-INF, then temperature 1",
        build=_always(EntropyMinimisation()), temperature=1.0,
    ),
    Method(
        name="em-inf-0.1", summary="EM-INF, then temperature 0.1: as its authors sample",
        build=_always(EntropyMinimisation()), temperature=0.1,
    ),
    Method(
        name="target-entropy", summary="each position cooled to half its entropy, exactly",
        build=_always(TargetEntropy(ratio=0.5, floor=0.1)), temperature=1.0,
    ),
    Method(
        name="adaptive", summary="the published adaptive temperature, bisection and settings",
        build=_always(AdaptiveTemperature()), temperature=1.0,
    ),
    *_mti(),
)  # fmt: skip

_BY_SUITE: Final[Mapping[Suite, tuple[Method, ...]]] = MappingProxyType(
    {
        "lambada": _CLOZE, "memo-trap": _TRAP, "piqa": _PIQA,
        "gsm8k": _WRITTEN, "svamp": _WRITTEN, "addition": _WRITTEN,
    }
)  # fmt: skip


def methods(suite: Suite, names: Iterable[str] | None = None) -> tuple[Method, ...]:
    """Return the methods that *suite* compares, the baseline first.

    Args:
        suite: Which.
        names: Those wanted; the baseline, and whatever one of them copies, come along. None takes
            all.

    Raises:
        ConfigError: If the suite has no such method; the message lists those it has.
    """
    known = {method.name: method for method in _BY_SUITE[suite]}
    if names is None:
        return tuple(known.values())
    wanted = {next(iter(known)), *names}
    if unknown := sorted(wanted - known.keys()):
        raise ConfigError(f"{suite} has no method {', '.join(unknown)}; it has: {', '.join(known)}")
    wanted |= {like for name in wanted if (like := known[name].like)}
    return tuple(method for name, method in known.items() if name in wanted)
