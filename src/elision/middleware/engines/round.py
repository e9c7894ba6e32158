"""A round: one forward for every choice that is being decoded.

Each choice proposes a tree; the controller decides how much of each is worth scoring; one forward
scores all of them; each choice walks its own rows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from elision.middleware.engines.ragged import Segment, score_trees
from elision.middleware.engines.sequence import Sequence, Walk
from elision.middleware.engines.station import Station
from elision.middleware.speculation.base import NOTHING
from elision.middleware.speculation.controller import Ask, Controller

if TYPE_CHECKING:
    from torch import Tensor

    from elision.middleware.speculation.base import Draft

Failures: TypeAlias = list[tuple[Sequence, Exception]]


@dataclass(slots=True)
class Watch:
    """Adds up what each part of a step takes, in seconds."""

    seconds: Counter[str] = field(default_factory=Counter)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """Enter the time since the last lap under *name*."""
        now = time.perf_counter()
        self.seconds[name] += now - self._last  # type: ignore[assignment] # a counter of seconds
        self._last = now


class Round:
    """Decodes choices, a step at a time. Lives as long as the engine's thread.

    Args:
        station: The thread's belongings.
    """

    def __init__(self, station: Station) -> None:
        self._station = station
        self._controller: Controller | None = None
        self.n_forwards = 0
        self.n_tokens = 0
        self.n_proposed = 0
        self.n_accepted = 0

    @property
    def controller(self) -> Controller:
        """What decides how much to draft; measures the model when first asked for."""
        if self._controller is None:
            self._controller = Controller(self._station.curve)
        return self._controller

    def stats(self) -> Mapping[str, float]:
        """Return sums for metrics."""
        return {
            "forwards": self.n_forwards,
            "decoded_tokens": self.n_tokens,
            "proposed_tokens": self.n_proposed,
            "accepted_tokens": self.n_accepted,
            **({} if self._controller is None else self._controller.gauges()),
        }

    def step(self, sequences: Several[Sequence]) -> Failures:
        """Advance every one of *sequences* by a forward; return those that broke, and on what."""
        failures: Failures = []
        for group in self._groups(sequences):
            self._advance(group, failures)
        return failures

    def _groups(self, sequences: Several[Sequence]) -> Iterable[list[Sequence]]:
        """Yield what shares a forward."""
        shares = len(sequences) > 1 and self._station.takes_several
        together = [s for s in sequences if shares and not s.is_apart]
        yield together
        for sequence in sequences:
            if sequence not in together:
                yield [sequence]

    def _advance(self, group: list[Sequence], failures: Failures) -> None:
        ready = [s for s in group if self._prepared(s, failures)]
        if not ready:
            return
        watch = Watch()
        asks = self._asks(ready)
        sizes = self.controller.choose(asks) if asks else []
        drafts = [ask.draft.first(n) for ask, n in zip(asks, sizes, strict=True)]
        drafts = drafts or [NOTHING] * len(ready)
        watch.lap("drafting")
        rows = self._score(ready, drafts, failures)
        watch.lap("forward")
        if rows is None:
            return
        turns = list(zip(ready, rows, drafts, strict=True))
        walks = [self._walked(*turn, failures) for turn in turns]
        watch.lap("walk")
        for (sequence, logits, draft), walk in zip(turns, walks, strict=True):
            if walk is not None:
                sequence.learn(logits, draft, walk)
        watch.lap("drafting")
        n_written = [0 if walk is None else walk.n_written for walk in walks]
        if asks:
            self._settle(asks, sizes, n_written, watch)
        self.n_forwards += 1
        self.n_tokens += sum(n_written)
        self.n_proposed += sum(map(len, drafts))
        self.n_accepted += sum(len(walk.path) - 1 for walk in walks if walk is not None)

    def _settle(
        self, asks: list[Ask], sizes: list[int], n_written: list[int], watch: Watch
    ) -> None:
        self.controller.settle(
            asks,
            sizes,
            n_written,
            watch.seconds["forward"],
            drafting_s=watch.seconds["drafting"],
            walk_s=watch.seconds["walk"],
        )

    def _prepared(self, sequence: Sequence, failures: Failures) -> bool:
        try:
            return sequence.prepare(self._station.model)
        except Exception as exc:  # whatever broke, only this request ends of it
            failures.append((sequence, exc))
            return False

    def _asks(self, ready: list[Sequence]) -> list[Ask]:
        """Have every choice propose; nothing where none of them drafts."""
        if all(sequence.mode == "off" for sequence in ready):
            return []
        n_context = sum(sequence.n_past for sequence in ready) // len(ready)
        return [self._ask(sequence, len(ready), n_context) for sequence in ready]

    def _ask(self, s: Sequence, n_sequences: int, n_context: int) -> Ask:
        payer = s.ledger if s.mode == "auto" else None
        room = self.controller.room(n_sequences, n_context, payer) if s.mode != "off" else 0
        return Ask(draft=s.propose(room), ledger=s.ledger, mode=s.mode, n_context=s.n_past)

    def _score(
        self, ready: list[Sequence], drafts: list[Draft], failures: Failures
    ) -> list[Tensor] | None:
        """Return the rows of each choice; None if the forward broke, after trying one by one."""
        segments = [
            Segment((s.root, *draft.tokens), draft, s.cache, s.n_past)
            for s, draft in zip(ready, drafts, strict=True)
        ]
        try:
            return score_trees(self._station.model.model, segments)
        except Exception as exc:  # one of them may be to blame: the others go on without it
            if len(ready) == 1:
                failures.append((ready[0], exc))
            else:
                for sequence in ready:
                    self._advance([sequence], failures)
            return None

    def _walked(
        self, sequence: Sequence, logits: Tensor, draft: Draft, failures: Failures
    ) -> Walk | None:
        try:
            return sequence.walk(logits, draft)
        except Exception as exc:  # a recipe that breaks ends its request alone
            failures.append((sequence, exc))
            return None
