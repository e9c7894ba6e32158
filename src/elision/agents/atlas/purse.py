"""What an episode may spend and has spent, and turns that may break without ending it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from elision.agents.atlas.ledger import Allowance, Spent

_T = TypeVar("_T")


@dataclass(slots=True)
class Purse:
    """What an episode may spend and has spent; filled by every role.

    Attributes:
        allowance: At the beginning.
        rows: Everything spent since.
        faults: Roles that broke without ending the episode, with the error's class.
    """

    allowance: Allowance
    rows: list[Spent] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def left(self) -> Allowance:
        """What may still be spent."""
        return self.allowance.after(self.rows)

    async def spared(
        self, role: str, turn: Awaitable[_T], timeout_s: float | None
    ) -> tuple[_T | None, str | None]:
        """Await a turn that may break without ending the episode; a cancellation still does.

        Args:
            role: Whose turn.
            turn: What is awaited.
            timeout_s: Its deadline in seconds; None: none.

        Returns:
            What came of it, and why nothing did: ``timeout`` or the class of the error.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await turn, None
        except TimeoutError:
            fault = "timeout"
        # A role is its owner's code: whatever it raises, the student's answer stands.
        except Exception as error:
            fault = type(error).__name__
        self.faults.append(f"{role}:{fault}")
        return None, fault


@dataclass(slots=True)
class Tab:
    """What one turn spends, told call by call, at its end, or both; each row counts once.

    What was told by the call is spent even if the turn is cut short.

    Attributes:
        purse: Where it is taken from.
        told: Rows told by the call that the turn has not brought at its end.
    """

    purse: Purse
    told: Counter[Spent] = field(default_factory=Counter)

    def spend(self, row: Spent) -> None:
        """Take in a call, as it is made."""
        self.told[row] += 1
        self.purse.rows.append(row)

    def settle(self, spent: Iterable[Spent]) -> None:
        """Take in what a turn brings at its end, except what was told already."""
        for row in spent:
            if self.told[row]:
                self.told[row] -= 1
            else:
                self.purse.rows.append(row)
