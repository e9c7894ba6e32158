"""Forms compiled in threads of their own, and only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Final

from elision.errors import RequestError

if TYPE_CHECKING:
    from elision.contract import Lexicon
    from elision.middleware.forms.formed import Formation
    from elision.middleware.interventions.grammar.pruning import Hides

N_AT_ONCE: Final = 2
"""Forms compiled at once."""
DEADLINE_S: Final = 5.0
"""Longest wait for a form, its turn included; ordinary ones take milliseconds."""


class Compiling:
    """Threads that compile forms, so that one that takes long holds up nothing else.

    Nothing stops a compiler once it runs: past the deadline the caller is told, and the thread
    goes on, though it does not keep the process from ending. `N_AT_ONCE` run at once; while all
    are busy, other forms wait and are refused in turn.

    Args:
        deadline_s: Longest wait for one, in seconds.
    """

    def __init__(self, *, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._free = Semaphore(N_AT_ONCE)

    async def held(self, formation: Formation, lexicon: Lexicon, hides: Hides) -> Formation:
        """Return *formation* with its grammar; see `Formation.held`.

        Raises:
            RequestError: If a schema cannot be used, or takes too long.
        """
        asked: Future[Formation] = Future()
        act = partial(formation.held, lexicon, hides)
        Thread(target=self._compile, args=(asked, act), name="elision-form", daemon=True).start()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), self._deadline_s)
        except TimeoutError:
            raise RequestError(
                "the schema takes too long to compile; shorten its lists, patterns and bounds",
                param="tools" if formation.form.tools else "response_format",
                code="schema_too_complex",
            ) from None

    def _compile(self, asked: Future[Formation], act: Callable[[], Formation]) -> None:
        if not self._free.acquire(timeout=self._deadline_s):
            return  # nobody waits any more
        try:
            if asked.set_running_or_notify_cancel():
                _settle(asked, act)
        finally:
            self._free.release()


def _settle(asked: Future[Formation], act: Callable[[], Formation]) -> None:
    try:
        made = act()
    except BaseException as exc:
        asked.set_exception(exc)
    else:
        asked.set_result(made)
