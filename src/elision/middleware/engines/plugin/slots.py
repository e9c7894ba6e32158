"""Slots: the rows of vLLM's second runner, which tells tokens by tensors that it reads in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elision.errors import EngineError
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.engines.plugin.rows import Row
from elision.middleware.engines.plugin.visits import Visit

if TYPE_CHECKING:
    from torch import Tensor

    from elision.middleware.engines.plugin.worker import Worker


@dataclass(slots=True)
class _Slot:
    """A request that has an order; its row is opened once its prompt can be read.

    Attributes:
        order: None where it could not be read.
        taking: How tokens are taken: see `Row.open`.
        output: What of its reply was read so far.
    """

    order: Order | None
    taking: Mapping[str, Any]
    row: Row | None = None
    output: list[int] = field(default_factory=list)


class Slots:
    """Requests with orders by the slot that they hold, as long as nobody else gets it.

    Args:
        worker: Where this is.
        states: vLLM's ``LogitsProcRequestState``.
    """

    def __init__(self, worker: Worker, states: Any) -> None:
        self._worker = worker
        self._states = states
        self._slots: dict[int, _Slot] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def clear(self, slot: int) -> None:
        """Forget who held *slot*: whoever holds it now has no order."""
        self._slots.pop(slot, None)

    def hold(self, slot: int, order: Order | None, **taking: Any) -> None:
        """Enter a request; without an order that could be read, nothing may come of it.

        Args:
            slot: Which it holds.
            order: What it asks for.
            taking: Further arguments for `Row.open`.
        """
        self._slots[slot] = _Slot(order, taking)

    def visits(self, n_rows: int, ctx: Any) -> list[Visit]:
        """Return what is to be done to the rows of a step.

        The first row of a request stands behind what is committed, the next ones behind the drafts
        that were fed to it. A prompt that is read in parts has a row for each of them, from which
        nothing is kept: it is dead.

        Args:
            n_rows: Rows of the scores.
            ctx: vLLM's ``LogitsContext``.

        Raises:
            EngineError: If the step's layout is not that of its scores.
        """
        if not any(slot in self._slots for slot in ctx.idx_mapping_np.tolist()):
            return []
        import torch

        columns = (ctx.expanded_idx_mapping, ctx.expanded_local_pos, ctx.input_ids, ctx.pos)
        layout = torch.stack([column.long() for column in columns], dim=-1).tolist()
        if len(layout) != n_rows:
            raise EngineError(f"a step of {n_rows} rows was told to have {len(layout)}")
        return list(self._visits(layout, _listed(self._states.total_len.gpu)))

    def stops(self, n_rows: int, ctx: Any) -> list[Visit]:
        """Let nothing more come of a step's requests, whatever went wrong; return their rows.

        Where nobody can tell whose rows they are, it is all of them.
        """
        try:
            owners = _listed(ctx.expanded_idx_mapping)
        except Exception:  # see above
            owners = []
        if len(owners) != n_rows:
            self._slots = {slot: _Slot(None, {}) for slot in self._slots}
            return [Visit.void(index, Order()) for index in range(n_rows)]
        mine = [(index, slot) for index, slot in enumerate(owners) if slot in self._slots]
        return [self._stopped(index, self._slots[slot]) for index, slot in mine]

    def _stopped(self, index: int, held: _Slot) -> Visit:
        held.row = Row.dead(self._worker, held.order)
        return Visit.void(index, held.row.order)

    def _visits(self, layout: Sequence[Sequence[int]], totals: Sequence[int]) -> Iterator[Visit]:
        drafts: dict[int, list[int]] = {}
        outputs: dict[int, list[int] | None] = {}
        for index, (slot, local, token, position) in enumerate(layout):
            held = self._slots.get(slot)
            if held is None:
                continue
            if local == 0:
                drafts[slot] = []
                outputs[slot] = self._output(slot, held, position + 1, totals[slot])
            else:
                drafts[slot].append(token)
            if held.row is None:
                held.row = self._open(slot, held)
            output = outputs[slot]
            yield (
                Visit.void(index, held.row.order)
                if output is None
                else held.row.visit(index, output, drafts[slot])
            )

    def _open(self, slot: int, held: _Slot) -> Row:
        if held.order is None:
            return Row.dead(self._worker)
        prompt = self._tokens(slot, 0, self._n_prompt(slot))
        return Row.open(held.order, prompt, self._worker, **held.taking)

    def _output(self, slot: int, held: _Slot, n_fed: int, n_tokens: int) -> list[int] | None:
        """Return what is committed of a reply; None while a prompt is read in parts.

        Of tokens that were fed before they could be read there are some that are none.

        Args:
            slot: Of the request.
            held: Likewise.
            n_fed: Its tokens up to the row.
            n_tokens: Its tokens that are committed, the prompt included.
        """
        if n_fed < n_tokens:
            return None
        start = self._n_prompt(slot)
        if start + len(held.output) > n_tokens:
            held.output = []
        held.output.extend(self._tokens(slot, start + len(held.output), n_tokens))
        return held.output if n_fed == n_tokens else [*held.output, *[-1] * (n_fed - n_tokens)]

    def _n_prompt(self, slot: int) -> int:
        return int(self._states.prompt_len.np[slot])

    def _tokens(self, slot: int, start: int, end: int) -> list[int]:
        return _listed(self._states.all_token_ids.gpu[slot, start:end]) if start < end else []


def _listed(column: Tensor) -> list[int]:
    return [int(value) for value in column.tolist()]
