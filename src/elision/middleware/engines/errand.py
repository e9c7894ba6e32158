"""A piece of work on the engine's thread that is no request: one turn among the others'."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from elision.middleware.engines.causal import CausalModel
    from elision.middleware.engines.job import Item
    from elision.middleware.engines.station import Station

T = TypeVar("T")


class Errand(Generic[T]):
    """Calls *work* with the model, once. Looks like a `Job` to the worker.

    Attributes:
        result: What *work* returns or raises; an error if the engine is closed before.
        cancelled: Set by any thread; then nothing is called.
    """

    n_choices = 1
    cached_tokens = 0

    def __init__(self, work: Callable[[CausalModel], T]) -> None:
        self.result: Future[T] = Future()
        self.cancelled = False
        self._work = work

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.cancelled or self.result.done()

    def step(self, station: Station) -> None:
        """Do the work."""
        try:
            self.result.set_result(self._work(station.model))
        except Exception as exc:  # whoever asked is told; the thread goes on
            self.result.set_exception(exc)

    def deliver(self, item: Item) -> None:
        """Take what the worker says when it ends a job."""
        if isinstance(item, Exception) and not self.result.done():
            self.result.set_exception(item)
