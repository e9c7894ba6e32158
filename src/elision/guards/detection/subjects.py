"""What a check looks for, by reference: a phrase or a name of a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

from elision.guards.phrases.normal import N
from elision.guards.targets import Action, ForgetTarget, Phrase

What: TypeAlias = Literal["phrase", "name"]


class Subject(NamedTuple):
    """A phrase or a name, without the text itself.

    Attributes:
        target_id: Whose it is.
        what: Which of the two.
        number: Its place among that target's phrases or names.
        action: What the target does about its phrases.
        enforced: Whether that is done about this one: it is a hard phrase, and more than observed.
        n_letters: Letters and digits it has in N.
        is_person: Whether the target is a person.
    """

    target_id: str
    what: What
    number: int
    action: Action
    enforced: bool
    n_letters: int
    is_person: bool


def subjects(targets: Iterable[ForgetTarget]) -> Iterator[tuple[Subject, Phrase]]:
    """Yield the phrases and names of those of *targets* that are active.

    A name without any letter or digit, which a register may hold, is left out.
    """
    for target in targets:
        if target.state == "active":
            for index, phrase in enumerate(target.phrases):
                hard = phrase.mode == "hard" and target.action != "observe"
                yield _subject(target, "phrase", index, phrase.text, enforced=hard), phrase
            for index, name in enumerate(target.names):
                if N(name):
                    subject = _subject(target, "name", index, name, enforced=False)
                    yield subject, Phrase(text=name)


def _subject(target: ForgetTarget, what: What, index: int, text: str, *, enforced: bool) -> Subject:
    person = target.kind == "person"
    return Subject(target.id, what, index, target.action, enforced, len(N(text)), person)
