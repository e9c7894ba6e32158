"""What a question of the alert slice asks for, read off its words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from elision.evaluation.atlas.excytin_data import Case

_QUOTED: Final = re.compile(r"`([^`]+)`")
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9-]+")
_IDLE: Final = frozenset(
    "a an and are as at be by can could for from has have how identify in incident is it its of"
    " on or provide related security that the there this to was were what when where which who"
    " whose with you associated involved alert alerts during also name find observed detected"
    " suspicious activity device host account user".split()
)
_SHAPES: Final = {
    "ip": r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
    "url": r"https?://[^\s\"\\|]+",
    "sid": r"\bS-\d(?:-\d+)+\b",
    "guid": r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    "email": r"[\w.+-]+(?: [\w.+-]+)?@[\w-]+(?:\.[\w-]+)+",
    "file": r"\b[\w-]+(?:\.[\w-]+)*\.(?:exe|dll|ps1|7z|lockbit|xlsx|txt|zip|docx)\b",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A kind of value that questions ask for.

    Attributes:
        kind: Its name.
        entity: Type of the entity that has it, in AlertEvidence.
        column: Its field there.
        shape: What it looks like, for whoever searches raw text; None: like nothing in particular.
    """

    kind: str
    entity: str
    column: str
    shape: re.Pattern[str] | None = field(compare=False, default=None)


def _asked(kind: str, entity: str, named: str, shape: str | None = None) -> Asked:
    compiled = None if shape is None else re.compile(_SHAPES[shape], re.IGNORECASE)
    return Asked(kind, entity, named, compiled)


_KINDS: Final = (
    ("oauthobjectid", _asked("oauth_object", "oauth-application", "OAuthObjectId", "guid")),
    (
        "oauth app(?:lication)? ?id",
        _asked("oauth_app", "oauth-application", "OAuthAppId", "guid"),
    ),
    ("device ?id", _asked("device_id", "host", "AadDeviceId", "guid")),
    ("user ?id", _asked("user_id", "account", "AadUserId", "guid")),
    (r"\bsid\b|security identifier", _asked("sid", "account", "Sid", "sid")),
    ("command", _asked("command", "process", "CommandLine")),
    (r"\burls?\b", _asked("url", "url", "Url", "url")),
    (r"\bips?\b", _asked("ip", "ip", "Address", "ip")),
    ("email|recipient|sender|mailbox", _asked("email", "account", "UserPrincipalName", "email")),
    ("file|executable|process|tool", _asked("file", "file", "Name", "file")),
    ("host|which (?:device|machine)", _asked("host", "host", "HostName")),
    ("account|user|who", _asked("account", "account", "Name")),
)  # fmt: skip


def asked(case: Case) -> Asked:
    """Return the kind of value that *case* asks for: the one named first after what, which or who.

    Reading a question is no skill of these worlds: every student can, and every student errs alike.
    """
    clauses = re.split(r"(?<=[.?!]) ", case.question.casefold().strip())
    last = next((clause for clause in reversed(clauses) if "?" in clause), clauses[-1])
    start = re.search(r"\b(?:what|which|who|whose|identify|provide|find|determine|specify)\b", last)
    rest = last[start.start() if start else 0 :]
    found = [
        (match.start(), place, kind)
        for place, (pattern, kind) in enumerate(_KINDS)
        if (match := re.search(pattern, rest))
    ]
    return min(found, default=(0, 0, _KINDS[-1][1]), key=lambda one: one[:2])[2]


def clues(case: Case) -> tuple[str, ...]:
    """Return the values quoted in the context, longest first: where a search can begin."""
    return tuple(sorted(dict.fromkeys(_QUOTED.findall(case.context)), key=len, reverse=True))


def words(text: str) -> frozenset[str]:
    """Return the words of *text* that say what it is about."""
    return frozenset(_WORD.findall(text.casefold())) - _IDLE


def overlap(one: Iterable[str], other: Iterable[str]) -> float:
    """Return the share of *one*'s words among *other*'s."""
    ours = set(one)
    return len(ours & set(other)) / len(ours) if ours else 0.0
