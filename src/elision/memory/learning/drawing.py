"""What one task is shown: eligible entries, packed, then drawn for, then rendered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import rfc8785

from elision.memory.learning.evidence import draw
from elision.memory.learning.exposures import Exposure
from elision.memory.learning.likeness import parties
from elision.memory.learning.packing import RENDERER, Advice, pack, render

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors
    from elision.memory.learning.entries import Audience, Entry
    from elision.memory.learning.lifecycle import Policy
    from elision.memory.learning.playbook import Playbook
    from elision.memory.learning.predicates import Facts
    from elision.memory.records import Scope

Mode: TypeAlias = Literal["on", "frozen", "shadow", "off"]
"""``on`` draws and learns; ``frozen`` shows all that is packed and learns nothing; ``shadow``
shows nothing and writes down what would have been drawn for; ``off`` does not look."""

Party: TypeAlias = tuple["Entry", ...]
"""Entries of which at most one may be shown; mostly one alone."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What one task is shown, and what it might have been.

    Attributes:
        block: The text for the prompt; ``""`` if nothing is shown, so that the prompt is that of a
            run without memory, byte for byte.
        exposures: One for each entry that was packed, shown or not, in the order of packing; for
            `Episodes.begin`.
        entries: Those shown, by id.
        digest: Of their ids and versions and the renderer's, in hex: equal means the same block.
    """

    block: str = field(repr=False)
    exposures: tuple[Exposure, ...]
    entries: tuple[Entry, ...]
    digest: str


def selection(
    playbook: Playbook,
    scope: Scope,
    task_text: str,
    facts: Facts,
    *,
    n_tokens: int,
    mode: Mode,
    seed: int,
    episode: str,
    count: Callable[[str], int],
    audience: Audience = "student",
    secret: bytes | None = None,
    vector: Vectors | None = None,
) -> Selection:
    """Choose what *audience* is shown of what was learned in *scope*.

    Packing comes before the draw, and what withholding frees is not filled again: either would
    make the arms of an entry differ in more than the entry.

    Args:
        playbook: Where the entries lie.
        scope: Exact.
        task_text: Task, step and observations; never a prompt, never an earlier block.
        facts: What triage found.
        n_tokens: Budget for the lines.
        mode: See `Mode`; ``off`` asks the playbook nothing.
        seed: With the same one, an episode's draws come out the same.
        episode: Its id, from `episodes.new_id`.
        count: Tokens of a text, for the model that is to read the block.
        audience: Who is to see it.
        secret: What signs the block; None: the tenant's own.
        vector: Of the task, length 1; None: encoded if a cue needs it.

    Raises:
        StoreError: If the database fails.
    """
    if mode == "off":
        return _shown((), (), b"-")
    eligible = playbook.eligible(scope, task_text, facts, audience=audience, vector=vector)
    values = playbook.values(eligible)
    packed = packed_parties(eligible, values, n_tokens, count)
    policy = playbook.policy
    if mode == "on":
        drawn = draw_all(packed, policy, seed=seed, episode=episode)
    else:
        drawn = show_all(packed, values) if mode == "frozen" else show_none(packed)
    return _shown(packed, drawn, secret or playbook.secret(scope.tenant))


def packed_parties(
    entries: Iterable[Entry],
    values: Mapping[str, float],
    n_tokens: int,
    count: Callable[[str], int],
) -> tuple[Party, ...]:
    """Choose whole entries as `pack` does, a party of contradicting ones in one place.

    A party takes the room of its longest line, for one line at most is shown of it.

    Args:
        entries: All that apply, each id once.
        values: By id; see `packing.value`.
        n_tokens: Budget for the lines.
        count: Tokens of a text.
    """
    found = {party[0].id: party for party in parties(entries)}
    places = [_place(party, values, count) for party in found.values()]
    return tuple(found[place.id] for place in pack(places, n_tokens))


def _place(party: Party, values: Mapping[str, float], count: Callable[[str], int]) -> Advice:
    longest = max(max(1, count(entry.line)) for entry in party)
    return party[0].advice(value=max(values[one.id] for one in party), token_len=longest)


def draw_all(
    packed: Sequence[Party], policy: Policy, *, seed: int, episode: str
) -> tuple[Exposure, ...]:
    """Draw for each entry by the propensity of its state; of a party, show one, each as likely."""
    coins = (coin for party in packed for coin in _coins(party, policy, seed, episode))
    return tuple(
        _met(entry, n, applied=applied, propensity=propensity)
        for n, (entry, applied, propensity) in enumerate(coins)
    )


def _coins(
    party: Party, policy: Policy, seed: int, episode: str
) -> Iterator[tuple[Entry, bool, float]]:
    if len(party) == 1:
        propensity = policy.propensity(party[0].state)
        yield party[0], draw(seed, episode, party[0].id, propensity), propensity
        return
    chosen = _one_of([entry.id for entry in party], seed, episode)
    for entry in party:
        yield entry, entry.id == chosen, 1 / len(party)


def _one_of(ids: Sequence[str], seed: int, episode: str) -> str:
    """Return one of *ids*, each as likely, by the coins of `draw`."""
    for n, name in enumerate(ids[:-1]):
        if draw(seed, episode, "\n".join(ids[n:]), 1 / (len(ids) - n)):
            return name
    return ids[-1]


def show_all(packed: Sequence[Party], values: Mapping[str, float]) -> tuple[Exposure, ...]:
    """Show every entry; of a party the one worth most, ties by id. Nothing can be learned of it."""
    met: list[Exposure] = []
    for party in packed:
        best = min(party, key=lambda entry: (-values[entry.id], entry.id))
        for entry in party:
            applied = entry is best
            met.append(_met(entry, len(met), applied=applied, propensity=float(applied)))
    return tuple(met)


def show_none(packed: Sequence[Party]) -> tuple[Exposure, ...]:
    """Withhold every entry, for certain."""
    entries = [entry for party in packed for entry in party]
    return tuple(_met(e, n, applied=False, propensity=0.0) for n, e in enumerate(entries))


def _met(entry: Entry, position: int, *, applied: bool, propensity: float) -> Exposure:
    return Exposure(
        entry=entry.id,
        version=entry.version,
        applied=applied,
        propensity=propensity,
        position=position,
    )


def _shown(packed: Sequence[Party], drawn: tuple[Exposure, ...], secret: bytes) -> Selection:
    applied = {exposure.entry for exposure in drawn if exposure.applied}
    entries = [entry for party in packed for entry in party if entry.id in applied]
    entries.sort(key=lambda entry: entry.id)
    block = render([entry.advice(value=0.0, token_len=1) for entry in entries], secret)
    return Selection(block, drawn, tuple(entries), _digest(entries))


_NAMED: Final = "elision advice"


def _digest(entries: Iterable[Entry]) -> str:
    """Digest ids and versions; a digest of the block would tell who guesses its words."""
    versions = [[entry.id, str(entry.version)] for entry in entries]
    return sha256(rfc8785.dumps([_NAMED, RENDERER, versions])).hexdigest()
