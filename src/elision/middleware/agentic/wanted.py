"""What a request says of memory: the ``memory`` of its ``elision`` object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from elision.errors import RequestError
from elision.memory.records import DEEPEST, Namespace, Scope
from elision.middleware.fields import TYPE, Fields, check_text, reject

PATH: Final = "elision.memory"
"""Where it stands in a request, as errors name it."""

Learning: TypeAlias = Literal["on", "frozen", "shadow", "off"]
Lane: TypeAlias = Literal["auto", "paired", "coach", "escalate"]

MOST: Final = 64
"""Tags, subjects and facts of one request, each."""
LONGEST: Final = 256
"""Characters of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How one request wants to be remembered.

    Attributes:
        learning: Whether this episode teaches; None takes the setting.
        lane: How closely it is supervised; None lets the past decide.
        namespace: Below which it is remembered; entries of one never meet tasks of another.
        tags: What cues may ask for.
        facts: Likewise, by name.
        subjects: Ids of the persons that it is about; only keyed digests are kept.
    """

    learning: Learning | None = None
    lane: Lane | None = None
    namespace: Namespace = ()
    tags: frozenset[str] = field(default=frozenset(), repr=False)
    facts: Mapping[str, str | float | bool] = field(default_factory=dict, repr=False)
    subjects: frozenset[str] = field(default=frozenset(), repr=False)


def wanted_of(value: object) -> Wanted:
    """Return what *value* says; None says nothing.

    Raises:
        RequestError: If it is no such object; the message names the field and repeats nothing.
    """
    if value is None:
        return Wanted()
    fields = Fields(value, PATH)
    wanted = Wanted(
        learning=_one_of(fields, "learning", get_args(Learning)),
        lane=_one_of(fields, "lane", get_args(Lane)),
        namespace=_namespace(fields),
        tags=frozenset(_texts(fields, "tags", most=MOST)),
        facts=_facts(fields),
        subjects=frozenset(_texts(fields, "subjects", most=MOST)),
    )
    if fields.rest():
        known = "facts, lane, learning, namespace, subjects and tags"
        raise reject(PATH, f"may hold {known}, nothing else")
    return wanted


def _one_of(fields: Fields, key: str, known: tuple[str, ...]) -> Any:
    value = fields.take(key)
    if value is not None and value not in known:
        raise reject(fields.param(key), f"must be one of {', '.join(known)}")
    return value


def _texts(fields: Fields, key: str, *, most: int) -> tuple[str, ...]:
    value, param = fields.take(key), fields.param(key)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > most:
        raise reject(param, f"must be an array of at most {most} strings", TYPE)
    for index, text in enumerate(value):
        check_text(text, f"{param}[{index}]")
        if not 0 < len(text) <= LONGEST:
            raise reject(f"{param}[{index}]", f"must have between 1 and {LONGEST} characters")
    return tuple(value)


def _namespace(fields: Fields) -> Namespace:
    namespace = _texts(fields, "namespace", most=DEEPEST - 2)
    try:
        Scope("any", namespace)
    except RequestError as exc:
        raise reject(fields.param("namespace"), f"cannot be used: {exc}") from exc
    return namespace


def _facts(fields: Fields) -> dict[str, str | float | bool]:
    value, param = fields.take("facts"), fields.param("facts")
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MOST:
        raise reject(param, f"must be an object with at most {MOST} fields", TYPE)
    for name, fact in value.items():
        check_text(name, param)
        if isinstance(fact, str):
            check_text(fact, param)
        elif not isinstance(fact, (bool, int, float)):
            raise reject(param, "may hold strings, numbers, true and false", TYPE)
        if len(name) > LONGEST or (isinstance(fact, str) and len(fact) > LONGEST):
            raise reject(param, f"may hold names and strings of at most {LONGEST} characters")
    return dict(value)
