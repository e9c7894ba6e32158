"""Who plays which role: a model becomes a student, and its own teacher where there is no other."""

from __future__ import annotations

from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.student import SpeakerStudent, Student
from elision.agents.atlas.teacher import SpeakerTeacher, Teacher
from elision.agents.speaking import EngineSpeaker, Speaker
from elision.contract import Engine


def roles(
    student: Student | Engine | Speaker, teacher: Teacher | None, config: AtlasConfig, tenant: str
) -> tuple[Student, Teacher | None]:
    """Return the two that work together.

    Args:
        student: One, or the model that is to be one; then it teaches too, unless somebody else
            does.
        teacher: Who looks on, if anybody is named.
        config: How they speak.
        tenant: Whose caches an engine may use.
    """
    speaker = EngineSpeaker(student, tenant=tenant) if isinstance(student, Engine) else student
    if not isinstance(speaker, Speaker):
        return speaker, teacher
    own = SpeakerStudent(
        speaker,
        most_steps=config.student.most_steps,
        max_tokens=config.student.max_tokens,
        temperature=config.student.temperature,
        advice_role=config.advice.role,
    )
    if teacher is not None:
        return own, teacher
    return own, SpeakerTeacher(
        speaker,
        max_tokens=config.teacher.max_tokens,
        temperature=config.teacher.temperature,
        sentences=config.teacher.sentences,
    )
