"""Requests that have an order, where tokens are drafted: their rows and their drafts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from elision.contract import BranchKey, Capability, Suffix
from elision.errors import CapabilityError
from elision.middleware.engines.plugin.admission import order_of, taking
from elision.middleware.engines.plugin.layout import Runner, Slot, State
from elision.middleware.engines.plugin.recycling import PoolKey
from elision.middleware.engines.plugin.restricting import restrict_
from elision.middleware.engines.plugin.rows import Row
from elision.middleware.engines.plugin.visits import Visit
from elision.middleware.interventions.base import Chain

if TYPE_CHECKING:
    from torch import Tensor

    from elision.middleware.engines.plugin.worker import Worker

OFFERED: Final = Capability.LOGITS | Capability.BRANCH
"""What recipes may ask for where drafts are scored: a branch is a suffix that is drafted."""


@dataclass(slots=True, repr=False)
class Seat:
    """One request that has an order, from its first row to its end.

    Attributes:
        state: What the runner knows of it; another one under the same name is another request.
        row: Its sessions.
        suffix: What is drafted so that the scores behind it can be read; none: no recipe reads any.
        is_dead: Whether it asks for what cannot be had here.
    """

    state: State
    row: Row
    suffix: tuple[int, ...] = ()
    is_dead: bool = False

    @classmethod
    def open(cls, state: State, row: Row, most: int) -> Seat:
        """Return the seat of a new request, dead where its recipes need what is not here.

        Args:
            state: What the runner knows of it.
            row: Its sessions.
            most: Tokens that can be drafted.
        """
        try:
            chain = row.visit(0, state.output_token_ids).chain
            return cls(state, row, suffix_of(chain, most))
        except Exception:  # nobody may lose the guard because a recipe broke: the row is dead
            return cls(state, row, is_dead=True)

    @property
    def recycles(self) -> bool:
        """Whether what its rows show is drafted from; a suffix needs the drafts for itself."""
        return self.row.order.drafts == "recycle" and not self.suffix

    @property
    def pool(self) -> PoolKey:
        """Whose matrix its drafts come from."""
        return self.row.order.pool, self.row.order.guard

    def tokens(self, slot: Slot) -> tuple[int, ...]:
        """Return the token before each of its rows."""
        output, prompt = self.state.output_token_ids, self.state.prompt_token_ids
        return ((output or prompt or (0,))[-1], *slot.drafts)

    def visits(self, slot: Slot, scores: Tensor) -> list[Visit]:
        """Return what is to be done to each of its rows; never raises.

        Args:
            slot: The rows, and the drafts behind the committed tokens.
            scores: The model's own in all rows of the batch, shape ``(R, V)``; of its own what vLLM
                will forbid is taken out.
        """
        padding = [self._dead(index) for index in range(slot.end - slot.n_padding, slot.end)]
        try:
            found = [self._visit(slot, n) for n in range(len(slot.drafts) + 1)]
            last = scores[slot.end - 1].clone() if self.reads(slot) else None
            params, output = self.state.sampling_params, self.state.output_token_ids
            restrict_(scores[slot.first : slot.end], params, output, slot.drafts)
        except Exception:  # see `open`
            return [self._dead(index) for index in range(slot.first, slot.end)]
        if last is not None:
            found[0] = replace(found[0], branch=_Last(self.suffix, last))
        return found + padding

    def reads(self, slot: Slot) -> bool:
        """Return whether the scores behind the suffix are there: it was drafted, and kept whole."""
        return bool(self.suffix) and slot.drafts == self.suffix and not slot.n_padding

    def _visit(self, slot: Slot, n: int) -> Visit:
        """Return what is to be done to the row behind its first *n* drafts."""
        output = self.state.output_token_ids
        visit = self.row.visit(slot.first + n, output, slot.drafts[:n])
        return replace(visit, is_dead=True) if self.is_dead else visit

    def _dead(self, index: int) -> Visit:
        return Visit.void(index, self.row.order)


class Seats:
    """The seats of one worker, by the request's name."""

    def __init__(self, worker: Worker, most: int) -> None:
        self._worker = worker
        self._most = most
        self._kept: dict[str, Seat] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, runner: Runner) -> dict[str, Seat]:
        """Return the seats of the requests in the batch, new ones opened, ended ones given up."""
        requests = runner.requests
        gone = [name for name, seat in self._kept.items() if requests.get(name) is not seat.state]
        for name in gone:
            del self._kept[name]
        for name in runner.input_batch.req_ids:
            if name not in self._kept:
                self._open(name, requests[name])
        return {name: self._kept[name] for name in runner.input_batch.req_ids if name in self._kept}

    def give_up(self) -> frozenset[int]:
        """Let nothing more come of any request; return the tokens by which they are stopped."""
        for seat in self._kept.values():
            seat.row.is_dead = True
        orders = (seat.row.order for seat in self._kept.values())
        return frozenset(token for order in orders for token in self._worker.reserved(order))

    def find(self, name: str) -> Seat | None:
        """Return the seat of a request; None if it has no order."""
        return self._kept.get(name)

    def _open(self, name: str, state: State) -> None:
        row = self._row(state)
        if row is not None:
            self._kept[name] = Seat.open(state, row, self._most)

    def _row(self, state: State) -> Row | None:
        try:
            order = order_of(state.sampling_params.extra_args, self._worker.secret)
        except Exception:  # it was read when the request came in: this is another one
            return Row.dead(self._worker)
        if order is None:
            return None
        return Row.open(
            order,
            state.prompt_token_ids,
            self._worker,
            capabilities=OFFERED,
            **taking(state.sampling_params),
        )


def suffix_of(chain: Chain, most: int) -> tuple[int, ...]:
    """Return the one suffix that *chain* reads; nothing if it reads no other scores.

    Raises:
        CapabilityError: If it reads others than one suffix of at most *most* tokens.
    """
    keys: list[BranchKey] = [*chain.branches]
    if not keys:
        return ()
    key = keys[0]
    if len(keys) > 1 or not isinstance(key, Suffix) or len(key.ids) > most:
        raise CapabilityError("mti", engine="this server", missing="BRANCH")
    return key.ids


@dataclass(frozen=True, slots=True, repr=False)
class _Last:
    """The branch that was scored in the last row of a draft."""

    suffix: tuple[int, ...]
    row: Tensor

    def __call__(self, key: BranchKey) -> Tensor:
        if not isinstance(key, Suffix) or key.ids != self.suffix:
            raise CapabilityError("branch", engine="this server", missing="BRANCH")
        return self.row
