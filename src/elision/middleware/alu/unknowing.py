"""What is said where nothing may be told: what the model says about somebody who never existed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elision.agents.alu.roles import Draft

if TYPE_CHECKING:
    from elision.agents.alu.case import Case
    from elision.agents.alu.purse import Purse
    from elision.agents.alu.roles import Vanilla
    from elision.agents.alu.substitution import Substituter


@dataclass(frozen=True, slots=True)
class Unknowing:
    """Answers as if a registered name belonged to nobody; see `Roles.unknown`.

    Attributes:
        vanilla: Writes; the same that answers questions about people who do not exist.
        otherwise: Writes where the conversation names nobody registered.
        names: Hides registered names, and puts them back.
    """

    vanilla: Vanilla
    otherwise: Vanilla
    names: Substituter

    async def generate(self, case: Case, purse: Purse) -> Draft | None:
        """See `Vanilla.generate`."""
        hidden = await asyncio.to_thread(self.names.hide, case.messages)
        if not hidden.n_names:
            return await self.otherwise.generate(case, purse)
        draft = await self.vanilla.generate(replace(case, messages=hidden.messages), purse)
        if draft is None:
            return None
        return Draft(await asyncio.to_thread(hidden.reveal, draft.text), cut=draft.cut)
