"""A transform: one way to write a text that a reader, or a decoder, takes for the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

Enforced: TypeAlias = Literal["output", "detection", "unclaimed"]
"""``output``: cannot be streamed out. ``detection``: `check` and the gate see through it, a
stream does not. ``unclaimed``: nobody promises anything."""

Place: TypeAlias = Literal["prompt", "instruction", "dialogue", "decoding"]
"""Where it acts: on the target's name in a question; on the answer, by demand; over several turns;
on how the answer is sampled, cut or sent."""

Writing: TypeAlias = Callable[[str, Random], str]

ANYWHERE: frozenset[Place] = frozenset({"prompt", "instruction"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """A named way of writing; pure but for the dice it is handed.

    Attributes:
        name: Unique, as reports and demands write it.
        family: What it belongs to: ``character``, ``encoding``, ``cipher``, ``smuggling``,
            ``concealment``.
        write: The function itself.
        enforced: What the guard promises about it.
        places: Where it applies.
        source: Whose idea it is.
    """

    name: str
    family: str
    write: Writing
    enforced: Enforced
    places: frozenset[Place] = ANYWHERE
    source: str = ""

    def apply(self, text: str, rng: Random) -> str:
        """Return *text* written this way; the same dice give the same writing."""
        return self.write(text, rng)

    @property
    def demand(self) -> str:
        """What a caller appends to a question to have the answer written this way."""
        return f"Write your whole answer as [{self.name}]."


def plain(write: Callable[[str], str]) -> Writing:
    """Return *write* as a writing that needs no dice."""
    return lambda text, _: write(text)


def each(change: Callable[[str], str]) -> Writing:
    """Return the writing that changes every character by itself."""
    return lambda text, _: "".join(map(change, text))
