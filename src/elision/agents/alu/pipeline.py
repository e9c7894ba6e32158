"""ALU: from a question to a reply that gives no target away, in four calls or fewer."""

from __future__ import annotations

import time
from typing import Final

from elision.agents.alu.case import Case, Outcome
from elision.agents.alu.config import AluConfig
from elision.agents.alu.purse import Clock, Pace, Purse
from elision.agents.alu.roles import Roles
from elision.agents.alu.running import Run
from elision.errors import ElisionError, GuardError

USUAL: Final = AluConfig()


class AluPipeline:
    """Drafts, audits, rewrites, rates and chooses.

    A conversation and draft that come near no target: 1 call. Near one, and harmless to judge and
    critic: 3. Rewritten: 4 (vanilla, judge, eraser, critic). Merged: 6. A judge that has to be
    asked twice and a fallback that a model words add 1 each.

    An instance may serve many requests at a time; all that it keeps is how long stages take.

    Args:
        roles: Who plays.
        config: See `AluConfig`.
        clock: Tells seconds; `Case.deadline` is on it.

    Source:
        Sanyal and Mandal 2025, "Agents Are All You Need for LLM Unlearning", arXiv:2502.00406.
        Ours: a shortlist instead of the whole list, a judge whose verdict the critic never hears,
        findings by rule, budgets and deadlines, the composer's second audit, what is said instead.
    """

    def __init__(self, roles: Roles, config: AluConfig = USUAL, *, clock: Clock = time.monotonic):
        self.roles = roles
        self.config = config
        self.pace = Pace()
        self._clock = clock

    async def run(self, case: Case) -> Outcome:
        """Return the reply to *case*.

        Raises:
            GuardError: If the encoder breaks, or a role by something other than our errors.
            ElisionError: If the model that drafts fails; any other role's failure counts as a leak.
            UpstreamTimeoutError: If there is no draft at the deadline.
        """
        try:
            return await Run(self.roles, self.config, case, self._purse(case)).outcome()
        except ElisionError:
            raise
        except Exception as error:
            # A role may be anybody's code; its error's words may be the draft's.
            raise GuardError(f"a role of ALU broke ({type(error).__name__})") from None

    def _purse(self, case: Case) -> Purse:
        deadline, most_s = case.deadline, self.config.deadline_s
        if deadline is None and most_s is not None:
            deadline = self._clock() + most_s
        return Purse(
            most_calls=self.config.max_calls, clock=self._clock, pace=self.pace, deadline=deadline
        )
