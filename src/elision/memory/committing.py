"""Writes that wait together share a commit: the disk is waited for once for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy.exc import SQLAlchemyError

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

    def fail(self, exc: BaseException) -> None:
        """End with *exc*, or with what it was refused for before."""
        self.error, self.done = self.error or exc, True


class _BreakError(Exception):
    """A write broke in the midst of what it does; its transaction must go."""

    def __init__(self, ticket: _Ticket) -> None:
        super().__init__()
        self.ticket = ticket


class Commits:
    """Group commit: whoever holds the lock first does the work of all who wait.

    One write's refusal is its own; if one breaks otherwise, the rest are written without it. If
    the database fails, all that shared the commit fail, and nothing of them was written.

    Args:
        writing: Opens a transaction.
    """

    def __init__(self, writing: Callable[[], AbstractContextManager[Writing]]) -> None:
        self._writing = writing
        self._waiting: deque[_Ticket] = deque()
        self._lead = Lock()

    def commit(self, act: Act) -> Stored:
        """Do *act* in a transaction and return what it returns once that is on the disk.

        *act* is done again, in another transaction, if a write beside it broke the first.
        """
        ticket = _Ticket(act)
        self._waiting.append(ticket)
        with self._lead:
            while not ticket.done:  # more may wait before it than one commit takes
                self._do([self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))])
        return ticket.answer()

    def _do(self, tickets: list[_Ticket]) -> None:
        while tickets:
            self._together(tickets)
            tickets = [ticket for ticket in tickets if not ticket.done]

    def _together(self, tickets: list[_Ticket]) -> None:
        """Commit *tickets*, or do away with the one that broke and leave the rest as they were."""
        try:
            with self._writing() as writing:
                for ticket in tickets:
                    _try(ticket, writing)
        except _BreakError as broken:
            broken.ticket.fail(broken.__cause__ or broken)
        except BaseException as exc:
            for ticket in tickets:
                ticket.fail(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            for ticket in tickets:
                ticket.done = True


def _try(ticket: _Ticket, writing: Writing) -> None:
    ticket.error = None
    try:
        ticket.stored = ticket.act(writing)
    except (StoreError, SQLAlchemyError):
        raise
    except ElisionError as exc:
        ticket.error = exc
    except Exception as exc:
        raise _BreakError(ticket) from exc
