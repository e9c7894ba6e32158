"""Who plays which role where nobody else is named: one model plays them all."""

from __future__ import annotations

from elision.agents.alu.auditor import SpeakerAuditor
from elision.agents.alu.composer import SpeakerComposer
from elision.agents.alu.config import AluConfig
from elision.agents.alu.critic import SpeakerCritic
from elision.agents.alu.eraser import SpeakerEraser
from elision.agents.alu.roles import Roles, Vanilla
from elision.agents.alu.vanilla import SpeakerUnknown, SpeakerVanilla
from elision.agents.speaking import Speaker


def cast(
    speaker: Speaker,
    config: AluConfig,
    *,
    judge: Speaker | None = None,
    critic: Speaker | None = None,
    unknown: Vanilla | None = None,
) -> Roles:
    """Return the roles, each played by a model.

    Args:
        speaker: Plays whatever nobody else does.
        config: See `AluConfig`.
        judge: Judges, if it is another model.
        critic: Rates, if it is another model.
        unknown: Replies as about what never existed; None: *speaker*, told so.
    """
    return Roles(
        vanilla=SpeakerVanilla(speaker, config),
        auditor=SpeakerAuditor(judge or speaker, config),
        eraser=SpeakerEraser(speaker, config),
        critic=SpeakerCritic(critic or speaker, config),
        composer=SpeakerComposer(speaker, config) if config.composer == "merge" else None,
        unknown=unknown or SpeakerUnknown(speaker, config),
    )
