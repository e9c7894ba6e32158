"""Writes that wait together share a commit: the disk is waited for once for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias

from elision.errors import ElisionError, StoreError
from elision.memory.records import Stored

if TYPE_CHECKING:
    from elision.memory.writing import Writing

Act: TypeAlias = "Callable[[Writing], Stored]"

MOST: Final = 256
"""Writes of one commit."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """A write on its way; what came of it once it is done."""

    act: Act
    stored: Stored | None = None
    error: BaseException | None = field(default=None, repr=False)
    done: bool = False

    def answer(self) -> Stored:
        if self.error is not None:
            raise self.error
        assert self.stored is not None
        return self.stored


class Commits:
    """Group commit: whoever holds the lock first does the work of all who wait.

    One write's refusal is its own; if the database fails, all that shared the commit fail, and
    nothing of them was written.

    Args:
        writing: Opens a transaction.
    """

    def __init__(self, writing: Callable[[], AbstractContextManager[Writing]]) -> None:
        self._writing = writing
        self._waiting: deque[_Ticket] = deque()
        self._lead = Lock()

    def commit(self, act: Act) -> Stored:
        """Do *act* in a transaction and return what it returns once that is on the disk."""
        ticket = _Ticket(act)
        self._waiting.append(ticket)
        with self._lead:
            if not ticket.done:
                self._do([self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))])
        return ticket.answer()

    def _do(self, tickets: list[_Ticket]) -> None:
        try:
            with self._writing() as writing:
                for ticket in tickets:
                    _try(ticket, writing)
        except BaseException as exc:
            for ticket in tickets:
                ticket.error = ticket.error or exc
            if not isinstance(exc, Exception):
                raise
        finally:
            for ticket in tickets:
                ticket.done = True


def _try(ticket: _Ticket, writing: Writing) -> None:
    try:
        ticket.stored = ticket.act(writing)
    except StoreError:
        raise
    except ElisionError as exc:
        ticket.error = exc
