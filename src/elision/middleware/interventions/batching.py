"""Many rows at once: the chains of a whole batch, run over its matrix of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite
from typing import TYPE_CHECKING, Final

from elision.contract import Here, Session, Stage
from elision.guards.phrases.mask import MaskSession
from elision.guards.phrases.product import Blocked
from elision.guards.phrases.rows import best_scores, forbid_rows_
from elision.guards.verbatim.mask import VerbatimSession
from elision.middleware.interventions.entropy import (
    AdaptiveTemperature,
    EntropyMinimisation,
    SteppedTemperature,
    TargetEntropy,
)
from elision.middleware.interventions.entropy.rows import minimise_entropies_

if TYPE_CHECKING:
    from torch import Tensor

_SHARPENS: Final = (EntropyMinimisation, TargetEntropy, AdaptiveTemperature, SteppedTemperature)


@dataclass(frozen=True, slots=True)
class Place:
    """One row of a batch and what acts on it.

    Attributes:
        index: The row.
        sessions: What acts, in order.
        here: Its position, or what makes it when somebody asks; called at most once, before the
            row is changed. Its raw row must not share the batch's memory. What is done to many
            rows at once is noted where it is given, not where it would have to be made.
        best_only: Whether nothing of the row counts but its best token: it is taken without
            drawing, and no token's probability is told. What leaves it the best is left out then.
        temperature: What the row is divided by before a token is drawn, where nothing else is made
            of it: no score is changed before that, no probability told. Scores that come to
            nothing then need not be exact. None: every score counts.
    """

    index: int
    sessions: tuple[Session, ...]
    here: Here | Callable[[], Here]
    best_only: bool = False
    temperature: float | None = None


def adjust_rows(logits: Tensor, places: Sequence[Place]) -> tuple[int, ...]:
    """Run each place's sessions on its row, in place.

    Every row becomes what its sessions make of it one by one: masks exactly, `EntropyMinimisation`
    as `minimise_entropies_` says. Phrase masks of all rows act together, and so does an equal
    `EntropyMinimisation`, wherever the chains differ otherwise.

    Args:
        logits: Scores, float32, shape ``(R, V)``, any device; overwritten. Rows without a place
            stay as they are.
        places: At most one per row.

    Returns:
        The rows of which nothing can come, ascending: no score is left, or one is no number; or a
        session failed, which leaves ``-inf`` all over.
    """
    walks = [_Walk(logits, place) for place in places]
    while waiting := [walk for walk in walks if walk.waits()]:
        masked = [walk for walk in waiting if isinstance(walk.next, MaskSession)]
        if masked:
            _forbid(logits, masked)
        else:
            _sharpen(logits, waiting)
    dead = {walk.place.index for walk in walks if walk.failed}
    unknown = [walk.place.index for walk in walks if not (walk.failed or walk.is_sound)]
    if unknown:
        bests = best_scores(logits, unknown).tolist()
        dead.update(row for row, best in zip(unknown, bests, strict=True) if not isfinite(best))
    return tuple(sorted(dead))


class _Walk:
    """One row's way through its sessions. Lives for one call.

    Attributes:
        failed: Whether a session has failed; the row is ``-inf`` then, and nothing acts on it.
        is_sound: Whether what acted last has seen to it that something can come of the row.
    """

    def __init__(self, logits: Tensor, place: Place) -> None:
        self.place = place
        self.failed = self.is_sound = False
        self._logits = logits
        self._left = [s for s in reversed(place.sessions) if not _is_idle(s, place)]
        self._here = place.here if isinstance(place.here, Here) else None
        if self._here is None and not all(map(_is_batched, self._left)):
            self._attempt(self._make_here)

    @property
    def next(self) -> Session:
        """The session that acts next."""
        return self._left[-1]

    def waits(self) -> bool:
        """Run what acts on this row alone; return whether something is left that acts on many."""
        if not self.failed and self._left and not _is_batched(self.next):
            self._attempt(self._run)
        return bool(self._left) and not self.failed

    @property
    def warmth(self) -> float | None:
        """The place's temperature, if nothing acts behind the next session; else None."""
        return self.place.temperature if len(self._left) == 1 else None

    def blocked(self, mask: MaskSession) -> Blocked | None:
        """Return what *mask* forbids; None, and the row is dead, if it fails."""
        found: list[Blocked] = []
        self._attempt(lambda: found.append(mask.blocked()))
        return found[0] if found else None

    def went_on(self, key: str, value: float, *, is_sound: bool = False) -> None:
        """Take the next session as done; note *value*, if there is any."""
        self._left.pop()
        self.is_sound = is_sound
        if value and self._here is not None:
            self._here.note(key, value)

    def fail(self) -> None:
        """Leave nothing to be chosen in this row."""
        self.failed = True
        self._logits[self.place.index].fill_(-inf)

    def _make_here(self) -> None:
        if not isinstance(self.place.here, Here):
            self._here = self.place.here()

    def _run(self) -> None:
        assert self._here is not None
        self.is_sound = False
        given = row = self._logits[self.place.index]
        while self._left and not _is_batched(self.next):
            row = self._left.pop().adjust(row, self._here)
        if row is not given:
            given.copy_(row)

    def _attempt(self, act: Callable[[], object]) -> None:
        # Whatever it is that fails, this row must not go on unguarded, and the others must.
        try:
            act()
        except Exception:
            self.fail()


def _is_batched(session: Session) -> bool:
    return isinstance(session, MaskSession | EntropyMinimisation)


def _is_idle(session: Session, place: Place) -> bool:
    """Return whether *session* makes no difference in this row, whatever its scores."""
    if isinstance(session, VerbatimSession):
        return session.is_idle
    is_shaping = isinstance(session, _SHARPENS) and session.stage is Stage.ENTROPY
    return is_shaping and place.best_only


def _forbid(logits: Tensor, walks: Iterable[_Walk]) -> None:
    """Run the phrase masks that *walks* wait at, together where they ask for the same."""
    groups: dict[float, list[tuple[_Walk, Blocked]]] = {}
    for walk in walks:
        mask = walk.next
        if isinstance(mask, MaskSession) and (blocked := walk.blocked(mask)) is not None:
            groups.setdefault(mask.recipe.min_mass, []).append((walk, blocked))
    for min_mass, group in groups.items():
        rows = [walk.place.index for walk, _ in group]
        shares = forbid_rows_(logits, rows, [b for _, b in group], min_mass=min_mass)
        for (walk, _), share in zip(group, shares, strict=True):
            walk.went_on("guard.masked", share)


def _sharpen(logits: Tensor, walks: Iterable[_Walk]) -> None:
    """Run the entropy minimisations that *walks* wait at, equal ones of like warmth together."""
    groups: dict[tuple[EntropyMinimisation, int | None], list[_Walk]] = {}
    for walk in walks:
        if isinstance(walk.next, EntropyMinimisation):
            # A row that is warm costs all of its group more: up to 0.1, up to 0.2 and so on.
            tenths = None if walk.warmth is None else max(1, ceil(walk.warmth * 10))
            groups.setdefault((walk.next, tenths), []).append(walk)
    for (recipe, tenths), group in groups.items():
        rows = [walk.place.index for walk in group]
        warmest = None if tenths is None else max(walk.warmth or 0.0 for walk in group)
        found = minimise_entropies_(logits, rows, recipe, temperature=warmest)
        for walk in group:
            acted = found[walk.place.index]
            walk.went_on("entropy_minimised", bool(acted), is_sound=acted is not None)
