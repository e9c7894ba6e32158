"""A round: one forward for every choice that is being decoded.

Each choice proposes a tree; the controller decides how much of each is worth scoring; one forward
scores all of them, and the same nodes in the other contexts that a recipe reads at every position;
each choice walks its own rows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from elision.middleware.engines.attention import MAX_ROWS, is_independent
from elision.middleware.engines.branches import Host, ahead, score_elsewhere
from elision.middleware.engines.decoded import Decoded
from elision.middleware.engines.ragged import Segment, score_trees
from elision.middleware.engines.walking import Turn, run
from elision.middleware.speculation.base import NOTHING
from elision.middleware.speculation.controller import Ask, Controller

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from elision.middleware.speculation.base import Draft
    from elision.middleware.speculation.walk import Walk


SPARING: Final = 4
"""Where no draft can be paid for, every so manieth step is learned from."""

Failures: TypeAlias = list[tuple[Decoded, Exception]]


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
        model: The model.
        controller: Gives what decides how much to draft; asked for when a choice wants to.
        takes_several: Says whether sequences may share a forward; asked when there are several.
        home: What the model belongs to, where recipes may read branches.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        controller: Callable[[], Controller],
        takes_several: Callable[[], bool],
        home: Host | None = None,
    ) -> None:
        self._model = model
        self._most = MAX_ROWS - 1 if is_independent(model) else 80  # as many keep their bits
        self._give = controller
        self._home = home
        self._takes_several = takes_several
        self._controller: Controller | None = None
        self._resting: set[int] = set()
        self.n_forwards = 0
        self.n_tokens = 0
        self.n_proposed = 0
        self.n_accepted = 0

    @property
    def controller(self) -> Controller:
        """What decides how much to draft."""
        if self._controller is None:
            self._controller = self._give()
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

    def step(self, sequences: Sequence[Decoded]) -> Failures:
        """Advance every one of *sequences* by a forward; return those that broke, and on what."""
        failures: Failures = []
        for group in self._groups([s for s in sequences if not s.tokens and not s.is_over]):
            self._begin(group, failures)
        broken = [sequence for sequence, _ in failures]
        going = [s for s in sequences if s.tokens and not s.is_over and s not in broken]
        for group in self._groups(going):
            self._advance(group, failures)
        return failures

    def _begin(self, group: list[Decoded], failures: Failures) -> None:
        """Choose first tokens: of replies that begin, and of those that went back so far."""
        ready = [s for s in group if self._prepared(s, failures)]
        self._run([Turn(s, NOTHING, s.begin()) for s in ready], ready, failures)

    def _groups(self, sequences: Sequence[Decoded]) -> Iterable[list[Decoded]]:
        """Yield what shares a forward."""
        shares = len(sequences) > 1 and self._takes_several()
        together = [s for s in sequences if shares and not s.is_apart]
        yield together
        for sequence in sequences:
            if sequence not in together:
                yield [sequence]

    def _advance(self, group: list[Decoded], failures: Failures) -> None:
        ready = [s for s in group if self._prepared(s, failures)]
        if not ready:
            return
        watch = Watch()
        asks = self._asks(ready)
        sizes = self.controller.choose(asks) if asks else []
        drafts = [ask.draft.first(n) for ask, n in zip(asks, sizes, strict=True)]
        drafts = drafts or [NOTHING] * len(ready)
        watch.lap("drafting")
        rows = self._score(ready, drafts, failures, watch)
        if rows is None:
            return
        taken = list(zip(ready, rows, drafts, strict=True))
        turns = [Turn(s, draft, s.walk(logits, draft)) for s, logits, draft in taken]
        walks = self._run(turns, ready, failures)
        watch.lap("walk")
        for (sequence, logits, draft), walk in zip(taken, walks, strict=True):
            if walk is not None and (draft or self._learns(sequence)):
                self._learn(sequence, logits, draft, walk, failures)
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

    def _learn(
        self, sequence: Decoded, logits: Tensor, draft: Draft, walk: Walk, failures: Failures
    ) -> None:
        try:
            sequence.learn(logits, draft, walk)
        except Exception as exc:  # its cache may hold what was not accepted: it cannot go on
            failures.append((sequence, exc))

    def _learns(self, sequence: Decoded) -> bool:
        """Return whether to learn from a step without a draft; where none can be paid, from some.

        Learning takes about a hundredth of a step, which is all that a ledger earns by it: none
        would ever save up for another draft.
        """
        return id(sequence) not in self._resting or self.n_forwards % SPARING == 0

    def _prepared(self, sequence: Decoded, failures: Failures) -> bool:
        try:
            sequence.prepare()
        except Exception as exc:  # whatever broke, only this request ends of it
            failures.append((sequence, exc))
            return False
        return True

    def _asks(self, ready: list[Decoded]) -> list[Ask]:
        """Have every choice propose; nothing where none of them drafts."""
        if all(sequence.mode == "off" for sequence in ready):
            return []
        self._resting.clear()
        n_context = sum(sequence.n_past for sequence in ready) // len(ready)
        return [self._ask(sequence, len(ready), n_context) for sequence in ready]

    def _ask(self, s: Decoded, n_sequences: int, n_context: int) -> Ask:
        payer = s.ledger if s.mode == "auto" else None
        width = 1 + sum(aside.always and aside.host is self._home for aside in s.asides.values())
        most = self.controller.room(n_sequences, n_context, payer, width) if s.mode != "off" else 0
        if s.mode == "auto" and not most:
            self._resting.add(id(s))
        draft = s.propose(min(most, self._most))
        return Ask(draft, s.ledger, s.mode, n_context=s.n_past, width=width)

    def _score(
        self, ready: list[Decoded], drafts: list[Draft], failures: Failures, watch: Watch
    ) -> list[Tensor] | None:
        """Return the rows of each choice; None if the forward broke, after trying one by one."""
        segments = [
            Segment((s.root, *draft.tokens), draft, s.cache, s.n_past)
            for s, draft in zip(ready, drafts, strict=True)
        ]
        try:
            found = ahead(ready, drafts)
            along = [one for one in found if one[0].host is self._home]
            rows = score_trees(self._model, [*segments, *(segment for _, segment in along)])
            for (aside, _), row in zip(along, rows[len(ready) :], strict=True):
                aside.rows = row
            watch.lap("forward")
            score_elsewhere(found, self._home)
            watch.lap("elsewhere")
            return rows[: len(ready)]
        except Exception as exc:  # one of them may be to blame: the others go on without it
            if len(ready) == 1:
                failures.append((ready[0], exc))
            else:
                for sequence in ready:
                    self._advance([sequence], failures)
            return None

    def _run(
        self, turns: list[Turn], sequences: list[Decoded], failures: Failures
    ) -> list[Walk | None]:
        """Run the walks; return what each came to, None where it broke."""
        walks: list[Walk | None] = []
        for turn, sequence, done in zip(turns, sequences, run(turns, self._home), strict=True):
            if isinstance(done, Exception):
                failures.append((sequence, done))
                walks.append(None)
                continue
            for aside in sequence.asides.values():
                aside.settle(done, turn.draft)
            walks.append(done)
        return walks
