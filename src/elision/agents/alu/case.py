"""What ALU is asked to reply to, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elision.contract import Finish, Message, Usage, text_of

if TYPE_CHECKING:
    from elision.agents.alu.disclosure import Disclosure
    from elision.agents.alu.shortlist import TargetIndex
    from elision.agents.alu.verdict import AluVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One reply that is wanted; its ``repr`` shows nothing of the conversation.

    Attributes:
        messages: The conversation, the last turn included.
        targets: What must not be given away, ready to be looked up.
        tenant: Whose request.
        deadline: When the reply must be there, on the pipeline's clock; None: whenever.
        seed: Makes it repeatable, as far as the models are.
        max_tokens: Most tokens of the reply; None takes the setting's.
        temperature: Of the draft.
        disclosure: What this session has heard so far; None for one that is not followed.
    """

    messages: tuple[Message, ...] = field(repr=False)
    targets: TargetIndex = field(repr=False)
    tenant: str = "default"
    deadline: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    disclosure: Disclosure | None = field(default=None, repr=False)

    @property
    def question(self) -> str:
        """The last user's turn."""
        turns = (m for m in reversed(self.messages) if m.get("role") == "user")
        return text_of(next(turns, {}))

    def recent(self, n_turns: int) -> tuple[Message, ...]:
        """Return the last *n_turns* messages that have a text."""
        return tuple(m for m in self.messages if text_of(m).strip())[-n_turns:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A reply that may go on to the guards.

    Attributes:
        text: The reply.
        finish: ``content_filter`` where it is a refusal.
        usage: Over all roles.
        verdict: What happened.
    """

    text: str = field(repr=False)
    finish: Finish
    usage: Usage
    verdict: AluVerdict
