"""Recipes and masks as a logits processor of vLLM's: one class for both of its interfaces.

vLLM loads it by the entry point ``vllm.logits_processors`` wherever Elision is installed, in the
process that takes requests and in those that hold the model. Nothing else imports it.

Where vLLM schedules ahead, as on a GPU by default, its first runner tells tokens to those
processors alone that the command line names: add ``--no-async-scheduling``, or
``--logits-processors elision.middleware.engines.vllm_plugin:ElisionProcessor``; what is then loaded
twice acts once. Without either every request with an order comes to a stop at its second token.
"""

from __future__ import annotations

import logging
import os
from math import inf
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from elision.errors import ElisionError
from elision.middleware.engines.plugin.admission import (
    TESTED,
    UNTESTED,
    admit,
    is_set,
    order_of,
    taking,
)
from elision.middleware.engines.plugin.rows import Row
from elision.middleware.engines.plugin.slots import Slots
from elision.middleware.engines.plugin.visits import Visit, adjust, stop_
from elision.middleware.engines.plugin.worker import Worker

try:
    from vllm.v1.sample import logits_processor as first_runner  # type: ignore[import-not-found]
    from vllm.version import __version__ as vllm_version  # type: ignore[import-not-found]
except ModuleNotFoundError as exc:
    # Without vLLM this can be read, and no more; in one that has moved its parts it must not load.
    if exc.name != "vllm":
        raise
    first_runner, vllm_version = None, "(none)"
try:
    from vllm.v1.worker.gpu.sample import (  # type: ignore[import-not-found]
        logits_processor as second_runner,
    )
except ImportError:  # a vLLM that has one runner
    second_runner = None

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_log = logging.getLogger(__name__)
_ACTING: Final[WeakValueDictionary[int, ElisionProcessor]] = WeakValueDictionary()
"""Which processor acts, by the identity of the configuration that it keeps alive."""


_INTERFACES: Any = tuple(m.LogitsProcessor for m in (first_runner, second_runner) if m)


class ElisionProcessor(*_INTERFACES):  # type: ignore[misc]
    """Carries out orders on the rows of a batch. Lives as long as the engine.

    Rows without an order are not touched; where no row has one, nothing is done.

    Args:
        vllm_config: The server's configuration.
        rest: Of the first runner, device and whether memory is pinned; of the second, the state
            of its requests.
    """

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        self._config = vllm_config
        self._acts = _ACTING.setdefault(id(vllm_config), self) is self
        is_second = len(rest) == 1
        self._worker = Worker.of(vllm_config, unfit=unfit(is_second_runner=is_second))
        self._rows: dict[int, tuple[Row, Sequence[int]]] = {}
        self._slots = Slots(self._worker, rest[0]) if is_second else None
        if self._acts:
            self._get_ready()

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise `RequestError`, which is a ``ValueError``, for what may not come in: HTTP 400."""
        admit(sampling_params, os.environ)

    def is_argmax_invariant(self) -> bool:
        """Return False: it acts on greedy requests, too, and before the temperature."""
        return False

    # --- The first runner ------------------------------------------------------------------------

    def update_state(self, batch_update: Any) -> None:
        """Follow who comes, goes and changes rows; in this order: removed, added, moved."""
        if batch_update is None or not self._acts:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, prompt_ids, output_ids in batch_update.added:
            # A row may be taken over without a word about who held it.
            self._rows.pop(index, None)
            row = self._opened(params, prompt_ids)
            if row is not None:
                self._rows[index] = (row, output_ids)
        for source, target, direction in batch_update.moved:
            self._move(source, target, is_swap=direction.name == "SWAP")

    def _move(self, source: int, target: int, *, is_swap: bool) -> None:
        moved, other = self._rows.pop(source, None), self._rows.pop(target, None)
        if moved is not None:
            self._rows[target] = moved
        if other is not None and is_swap:
            self._rows[source] = other

    def _opened(self, params: Any, prompt_ids: Sequence[int] | None) -> Row | None:
        try:
            order = order_of(params.extra_args, self._worker.secret)
            how = {} if order is None else taking(params)
        except Exception:  # it was read when the request came in: this is another one
            return Row.dead(self._worker)
        return None if order is None else Row.open(order, prompt_ids, self._worker, **how)

    # --- The second runner -----------------------------------------------------------------------

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Enter who takes slot *req_idx*; return whether its rows are changed."""
        if self._slots is None or not self._acts:
            return False
        self._slots.clear(req_idx)
        try:
            order = order_of(sampling_params.extra_args, self._worker.secret)
            how = {} if order is None else taking(sampling_params)
        except Exception:  # see `_opened`
            self._slots.hold(req_idx, None)
            return True
        if order is not None:
            self._slots.hold(req_idx, order, **how)
        return order is not None

    # --- Both ------------------------------------------------------------------------------------

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Carry out the orders of a step, in place.

        Args:
            logits: Scores, float32, shape ``(R, V)``.
            ctx: The second runner's layout of them.
        """
        try:
            visits = self._visits(len(logits), ctx)
            return adjust(logits, visits, self._worker) if visits else logits
        except Exception as exc:  # the engine goes on, and nothing gets past a guard
            # Of the reason its kind alone: a message may quote a text.
            _log.warning("a step was not adjusted and its replies end: %s", type(exc).__name__)
            return self._stopped(logits, ctx)

    def _stopped(self, logits: Tensor, ctx: Any) -> Tensor:
        """Let nothing more come of any request that has an order."""
        try:
            stop_(logits, self._stops(len(logits), ctx), self._worker)
        except Exception:  # not even that can be told: nothing may come of anything
            logits.fill_(-inf)
        return logits

    def _stops(self, n_rows: int, ctx: Any) -> list[Visit]:
        if self._slots is not None:
            return self._slots.stops(n_rows, ctx)
        for row, _ in self._rows.values():
            row.is_dead = True
        rows = [(index, row) for index, (row, _) in self._rows.items() if index < n_rows]
        return [Visit.void(index, row.order) for index, row in rows]

    def _visits(self, n_rows: int, ctx: Any) -> list[Visit]:
        if self._slots is not None:
            return self._slots.visits(n_rows, ctx)
        # Read here and not before: what was drawn last is entered between the two.
        return [row.visit(index, output) for index, (row, output) in self._rows.items()]

    def _get_ready(self) -> None:
        """Do what takes time while nobody waits; say why orders will not be carried out."""
        worker = self._worker
        try:
            worker.get_ready()
        except ElisionError as exc:
            worker.unfit = worker.unfit or str(exc)
        if worker.unfit:
            _log.error("no order will be carried out here: %s", worker.unfit)


def unfit(*, is_second_runner: bool) -> str:
    """Return why orders are not carried out by this vLLM, in one sentence; empty: they are."""
    if is_set(UNTESTED, os.environ):
        return ""
    if not str(vllm_version).startswith(TESTED):
        return f"vLLM {vllm_version} was not tested; take {TESTED}x or set {UNTESTED}=1"
    if is_second_runner:
        return (
            f"vLLM's second runner was not tested; set VLLM_USE_V2_MODEL_RUNNER=0 or {UNTESTED}=1"
        )
    return ""
