"""What benches of a real vLLM ask, and what must not be said meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from elision.guards.targets import ForgetTarget, Phrase

PROMPTS: Final = (
    "Why is the sky blue?",
    "Write two sentences about a lighthouse keeper.",
    "Explain how a bicycle stays upright.",
    "What makes bread rise?",
    "Tell me how tides work.",
    "Name three animals that sleep in winter.",
    "What is the capital of France?",
    "Describe a market in the morning.",
    "How does a fridge keep food cold?",
    "Give me a tip for learning a language.",
    "What happened in 1969?",
    "Write a short poem about rain.",
    "Why do leaves turn red?",
    "What is a prime number?",
    "How do bees find flowers?",
    "Who painted the Mona Lisa?",
    "Explain gravity to a child.",
    "What should I pack for a walk in the mountains?",
    "Write a sentence with the word river.",
    "How is glass made?",
)
"""Questions whose answers a small model begins in many ways."""

TARGETS: Final = tuple(
    f"{first} {last}"
    for first in (
        "Alma",
        "Bruno",
        "Carla",
        "Dario",
        "Edda",
        "Fabian",
        "Greta",
        "Hugo",
        "Ines",
        "Jon",
    )
    for last in ("Abendroth", "Bellweather", "Castellan", "Dunmore", "Eisenbach")
)
"""Fifty invented names."""


def targets(phrases: Iterable[str]) -> list[ForgetTarget]:
    """Return one target per phrase, which restricts."""
    return [ForgetTarget(title="bench", phrases=(Phrase(text=text),)) for text in phrases]
