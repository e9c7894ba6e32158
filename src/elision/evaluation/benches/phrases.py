"""Made-up forget targets for benches: names, titles and identifiers, always the same ones."""

from __future__ import annotations

import random

from elision.guards.targets import ForgetTarget, Phrase

_FIRST = (
    "James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara "
    "Richard Susan Joseph Jessica Thomas Karen Charles Sarah Christopher Lisa Daniel Nancy Matthew "
    "Sandra Anthony Betty Mark Ashley Donald Emily Steven Kimberly Andrew Margaret Paul Donna "
    "Joshua Michelle Kenneth Carol Kevin Amanda Brian Melissa Timothy Deborah Ronald Stephanie "
    "Hsiao Nikolai Basil Takashi Moshe Carmen Evelyn Kalkidan Raven Aysha Jaime Behrouz Wei-Jun"
).split()
_LAST = (
    "Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez "
    "Gonzalez Wilson Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris "
    "Sanchez Clark Ramirez Lewis Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill "
    "Flores Green Adams Nelson Baker Hall Rivera Campbell Mitchell Carter Roberts Montenegro "
    "Abilov Al-Kuwaiti Nakamura Ben-David Desmet Abera Marais Vasconcelos Rohani Chukwu"
).split()
_WORDS = (
    "the river of silent light over winter garden and stone house beyond night sea under old tower "
    "golden letters from empty road broken mirror last summer dream keeper island time forgotten"
).split()


def made_up(n: int, *, seed: int = 0) -> tuple[ForgetTarget, ...]:
    """Return *n* targets of one phrase each: 60 % names, 25 % titles, 15 % identifiers."""
    rng = random.Random(seed)  # noqa: S311 -- test data, not a secret
    phrases: dict[str, None] = {}
    while len(phrases) < n:
        phrases[_phrase(rng)] = None
    return tuple(
        ForgetTarget(id=f"ft_{i:020d}", title=f"target {i}", phrases=(Phrase(text=text),))
        for i, text in enumerate(phrases)
    )


def _phrase(rng: random.Random) -> str:
    dice = rng.random()
    if dice < 0.6:
        initial = rng.choice(["", "", f"{rng.choice('ABCDEFGHJKLMNPRSTW')}. "])
        return f"{rng.choice(_FIRST)} {initial}{rng.choice(_LAST)}"
    if dice < 0.85:
        return " ".join(rng.choice(_WORDS).title() for _ in range(rng.randint(3, 5)))
    name = f"{rng.choice(_FIRST)}.{rng.choice(_LAST)}".lower()
    return f"{name}{rng.randint(1, 9999)}@example.org"
