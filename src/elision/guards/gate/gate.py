"""The gate: how near a prompt comes to what must not be asked for.

It decides how much the semantic layer does. It never switches a phrase off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Final, TypeAlias

from elision.errors import GuardError
from elision.guards.detection.decoders import CERTAIN, decode, readings
from elision.guards.gate.assessment import CLOSED, Assessment, Level, Suspect
from elision.guards.gate.probe_index import ProbeIndex
from elision.guards.gate.probes import asked, name_patterns, salience
from elision.guards.gate.views import Readings, Turn, ViewPolicy, Views, make_views

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from elision.encoders import Encoder
    from elision.guards.targets import ForgetTarget

    Vectors: TypeAlias = NDArray[np.float32]

_MOST_NAMED: Final = 64


def plain_readings(text: str) -> Iterator[str]:
    """Yield what *text* may mean in plain words, and whatever it spells in a code.

    A question full of names has few dictionary words, but what was in base64 was put there.
    """
    yield from readings(text)
    yield from (item.text for item in decode(text, decoders=CERTAIN).texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """When the gate opens; the defaults are for all-MiniLM-L6-v2, others by `calibrate`.

    Attributes:
        t_lo: Score from which a prompt is watched, a cosine.
        t_hi: Score from which the gate is open.
        name_bonus: Added to the score of a target whose name stands in the prompt.
        top_targets: Suspects told besides those that are named.
        timeout_s: Longest wait for the encoder in seconds; then the prompt counts as unjudged.
        views: How prompts are cut.
    """

    t_lo: float = 0.60
    t_hi: float = 0.75
    name_bonus: float = 0.15
    top_targets: int = 3
    timeout_s: float = 30.0
    views: ViewPolicy = field(default_factory=ViewPolicy)


class Gate:
    """One tenant's targets as the gate sees them. Immutable; made by `compile`.

    Attributes:
        policy: See `GatePolicy`.
        n_targets: Targets that can be suspected: those with probes, answers or names.
        n_probes: Vectors that prompts are compared with.
    """

    def __init__(
        self,
        targets: Sequence[ForgetTarget],
        index: ProbeIndex,
        encoder: Encoder,
        *,
        tenant: str,
        policy: GatePolicy,
        readings: Readings,
    ) -> None:
        self.policy = policy
        self.n_targets = len(targets)
        self.n_probes = index.n_probes
        self._targets = targets
        self._index = index
        self._encoder = encoder
        self._tenant = tenant
        self._readings = readings
        self._names = name_patterns(targets)
        _ = self._names.start, self._names.plain  # here, not on the first request
        self._salience = salience(targets)

    @classmethod
    def compile(
        cls,
        targets: Iterable[ForgetTarget],
        encoder: Encoder,
        *,
        tenant: str,
        policy: GatePolicy | None = None,
        readings: Readings = plain_readings,
        previous: Gate | None = None,
    ) -> Gate:
        """Embed the probes of the active ones of *targets*; blocks until they are there.

        Args:
            targets: Those whose scope covers the request.
            encoder: Stays in use for prompts.
            tenant: Whose cache of vectors is used.
            policy: Thresholds and views.
            readings: Gives the plain readings of an obfuscated text.
            previous: A gate of the same tenant and encoder: what both compare with is not
                embedded again.

        Raises:
            GuardError: If the encoder breaks.
            MissingExtraError: If faiss is not installed.
        """
        kept = [t for t in targets if t.state == "active" and (t.names or t.probes or t.answers)]
        known = previous._index.known if previous else {}
        index = ProbeIndex.build([asked(t) for t in kept], encoder, tenant=tenant, known=known)
        return cls(
            kept, index, encoder, tenant=tenant, policy=policy or GatePolicy(), readings=readings
        )

    def __repr__(self) -> str:
        return f"Gate({self.n_targets} targets, {self.n_probes} probes)"

    def under(self, policy: GatePolicy) -> Gate:
        """Return this gate with other thresholds."""
        return Gate(
            self._targets, self._index, self._encoder, tenant=self._tenant, policy=policy,
            readings=self._readings,
        )  # fmt: skip

    def assess(self, turns: Sequence[Turn]) -> Future[Assessment]:
        """Return, in time, how near the prompt made up of *turns* comes to the targets.

        Views are cut and compared on a thread of this call's own, so that nobody else waits.
        The level never falls from one turn of a conversation to the next: the earlier turns are
        part of the prompt, and so are their views (`make_views`).

        Args:
            turns: All messages of the final prompt, recalled memory and tool results included.

        Raises:
            GuardError: In the future, if the encoder breaks or hangs.
        """
        future: Future[Assessment] = Future()
        if not self._targets:
            future.set_result(CLOSED)
            return future
        turns = tuple(turns)
        Thread(target=self._settle, args=(future, turns), name="gate", daemon=True).start()
        return future

    def _settle(self, future: Future[Assessment], turns: Sequence[Turn]) -> None:
        try:
            found = self._judge(turns)
        except Exception as exc:
            # Whatever it was: what is not judged does not pass. The cause may quote the prompt.
            future.set_exception(
                GuardError(f"the gate could not judge the prompt ({type(exc).__name__})")
            )
        else:
            future.set_result(found)

    def n_views(self, turns: Sequence[Turn]) -> int:
        """Return how many views `assess` would compare."""
        return len(self._views(turns).texts)

    def _views(self, turns: Sequence[Turn]) -> Views:
        return make_views(
            turns, policy=self.policy.views, readings=self._readings, salience=self._salience
        )

    def _judge(self, turns: Sequence[Turn]) -> Assessment:
        views = self._views(turns)
        if not views.texts:
            return CLOSED
        waiting = self._encoder.embed(views.texts, tenant=self._tenant)
        named = {n for text in views.documents for n in self._named(text)}
        vectors = waiting.result(timeout=self.policy.timeout_s)
        return self._assessment(views, vectors, named)

    def _named(self, text: str) -> set[int]:
        """Return the indices of the targets whose name stands in *text*."""
        owners = self._names.owners
        return {owners[pattern.owner].phrase for pattern, _, _ in self._names.find(text)}

    def _assessment(self, views: Views, vectors: Vectors, named: set[int]) -> Assessment:
        policy = self.policy
        cosines = self._index.nearest(vectors, among=named, floor=policy.t_lo, n=policy.top_targets)
        named = {n for n in named if not self._is_excused(n, views, vectors)}
        ranked = sorted(
            (
                (cosine + policy.name_bonus * (n in named), n)
                for n, cosine in cosines.items()
                if cosine > -1 or n in named
            ),
            key=lambda pair: (-pair[0], pair[1]),
        )
        best = ranked[0][0] if ranked else 0.0
        if best >= policy.t_hi:
            level = Level.OPEN
        elif best >= policy.t_lo or named or not views.covered:
            level = Level.WATCH
        else:
            level = Level.CLOSED
        return Assessment(
            level=level,
            suspects=self._suspects(ranked, named) if level else (),
            score=best,
            n_views=len(views.texts),
            covered=views.covered,
        )

    def _suspects(self, ranked: list[tuple[float, int]], named: set[int]) -> tuple[Suspect, ...]:
        """Return the nearest targets and every one that is named; the nearest if none is near."""
        near = [
            pair
            for place, pair in enumerate(ranked)
            if pair[1] in named or (place < self.policy.top_targets and pair[0] >= self.policy.t_lo)
        ]
        chosen = (near or ranked[: self.policy.top_targets])[:_MOST_NAMED]
        return tuple(Suspect(self._targets[n].id, score, n in named) for score, n in chosen)

    def _is_excused(self, target: int, views: Views, vectors: Vectors) -> bool:
        """Return whether every view that names *target* is nearer to one of its exceptions."""
        if not self._targets[target].exceptions:
            return False
        naming = [n for n, text in enumerate(views.texts) if target in self._named(text)]
        return bool(naming) and not self._index.counts(target, vectors[naming]).any()
