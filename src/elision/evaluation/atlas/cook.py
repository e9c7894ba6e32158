"""A scripted cook: it knows what a kitchen is, and must be told how one works here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from elision.evaluation.atlas.skills import Skill, chance

RECIPE: Final = Skill(
    "reads_recipe", "Examine the cookbook first and take only the ingredients that it lists."
)
OPEN: Final = Skill("opens", "Open the fridge before deciding that an ingredient is not there.")
HEAT: Final = Skill(
    "cooks", "Fry with the stove and roast with the oven, and only what is not cooked yet."
)
KNIFE: Final = Skill(
    "cuts", "Take the knife and slice, chop or dice as directed, unless it is cut already."
)
SKILLS: Final = (RECIPE, OPEN, HEAT, KNIFE)
"""In the order in which a teacher misses them."""
MOST_STEPS: Final = 20

APPLIANCE: Final = {"fry": "stove", "roast": "oven", "grill": "BBQ"}
_DONE: Final = {
    "fry": "fried", "roast": "roasted", "grill": "grilled",
    "slice": "sliced", "chop": "chopped", "dice": "diced",
}  # fmt: skip
_KEPT: Final = ("cookbook", "knife")


class Stage(Protocol):
    """A game that is being played.

    Attributes:
        can: Commands that do something now.
        over: Whether it was won or lost.
    """

    can: Sequence[str]
    over: bool

    def do(self, command: str) -> str:
        """Give a command; return what is seen."""
        ...


class Cook:
    """One game's player; lives as long as the attempt.

    Args:
        stage: The game, at its beginning.
        skills: Names of the skills it has.
        seed: Of what it tries when it knows no further.
    """

    def __init__(self, stage: Stage, skills: frozenset[str], seed: str) -> None:
        self._stage = stage
        self._skills = skills
        self._seed = seed
        self.moves: list[tuple[str, str]] = []
        """Commands given, and what was seen."""

    def play(self) -> None:
        """Play to the end, or until the steps are used up."""
        listed, directions = self._recipe()
        if self._has(OPEN):
            self._do("open fridge")
        for item in self._in_reach(listed):
            self._do(next(c for c in self._stage.can if _takes(c) == item))
        self._cut(directions)
        self._heat(directions)
        self._do("prepare meal")
        self._do("eat meal")
        self._try_anything()

    def _recipe(self) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
        """Return the ingredients and (verb, ingredient) of the directions; nothing unless read."""
        if not self._has(RECIPE):
            return frozenset(), ()
        return recipe(self._do("examine cookbook"))

    def _in_reach(self, listed: frozenset[str]) -> list[str]:
        items = [item for c in self._stage.can if (item := _takes(c)) and item not in _KEPT]
        return [item for item in dict.fromkeys(items) if not listed or item in listed]

    def _cut(self, directions: Sequence[tuple[str, str]]) -> None:
        todo = [one for one in directions if one[0] in {"slice", "chop", "dice"}]
        if not todo or not self._has(KNIFE):
            return
        held = self._do("inventory")
        todo = [(verb, item) for verb, item in todo if f"{_DONE[verb]} {item}" not in held]
        if todo and (knife := next((c for c in self._stage.can if _takes(c) == "knife"), None)):
            self._do(knife)
        for verb, item in todo:
            self._do(f"{verb} {item} with knife")

    def _heat(self, directions: Sequence[tuple[str, str]]) -> None:
        """Cook what the recipe says; without the skill with whatever is first at hand."""
        todo = [(verb, item) for verb, item in directions if verb in APPLIANCE]
        held = self._do("inventory") if todo and self._has(HEAT) else ""
        for verb, item in todo:
            if self._has(HEAT):
                if not re.search(rf"{_DONE[verb]} (?:\w+ )?{re.escape(item)}", held):
                    self._do(f"cook {item} with {APPLIANCE[verb]}")
            elif any_way := [c for c in self._stage.can if c.startswith(f"cook {item} with ")]:
                self._do(any_way[0])

    def _try_anything(self) -> None:
        while not self._stage.over and len(self.moves) < MOST_STEPS and self._stage.can:
            drawn = chance(self._seed, str(len(self.moves)))
            self._do(self._stage.can[int(drawn * len(self._stage.can))])

    def _do(self, command: str) -> str:
        """Give *command* if there are steps left; a command that does nothing costs one too."""
        if self._stage.over or len(self.moves) >= MOST_STEPS:
            return ""
        seen = self._stage.do(command)
        self.moves.append((command, seen))
        return seen

    def _has(self, skill: Skill) -> bool:
        return skill.name in self._skills


def recipe(page: str) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """Return the ingredients of a page, and its directions as (verb, ingredient)."""
    _, _, rest = page.partition("Ingredients:")
    listed, _, told = rest.partition("Directions:")
    items = frozenset(line.strip() for line in listed.splitlines() if line.strip())
    steps = re.findall(r"^\s*(\w+) the (.+?)\s*$", told, re.MULTILINE)
    return items, tuple((verb, item) for verb, item in steps if verb in _DONE)


def _takes(command: str) -> str | None:
    found = re.fullmatch(r"take (.+?)(?: from .+)?", command)
    return found[1] if found else None
