"""Filters over the JSON beside a record's text: which fields must be what.

::

    {"colour": "red"}                          equal
    {"size": {"$gte": 2, "$lt": 9}}            all of them
    {"maker.country": {"$in": ["DE", "FR"]}}   a dotted path, where no field has that very name
    {"maker": {"country": "DE"}}               the same, and more fields may stand beside it

Where LangGraph's stores agree, so does this. Where they do not: a missing field is null, numbers
equal numbers only and neither a truth value nor a text, and what cannot be ordered is neither more
nor less.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from elision.errors import RequestError

Path: TypeAlias = tuple[str, ...]
"""Fields to follow, each a name or, where there is none of that name, a dotted path."""

MOST_CONDITIONS: Final = 64
MOST_CHOICES: Final = 1000
"""Members of an ``$in`` or ``$nin``."""
DEEPEST: Final = 16
"""Mappings and lists inside one another."""


class Missing:
    """What a field that is not there holds; there is one, `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True)
class Condition:
    """What one field must be.

    Attributes:
        path: Where the field is.
        operator: ``$eq`` and its like; ``$object``: a mapping, whatever it holds.
        operand: What the field is compared with.
    """

    path: Path = field(repr=False)
    operator: str
    operand: Any = field(repr=False)

    def admits(self, found: Any) -> bool:
        """Return whether a field that is *found*, or `MISSING`, meets it."""
        return _OPERATORS[self.operator](found, self.operand)


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that must all be met; none of them lets everything through."""

    conditions: tuple[Condition, ...]

    def holds(self, value: Mapping[str, Any]) -> bool:
        """Return whether *value* meets every condition."""
        return all(one.admits(reached(value, one.path)) for one in self.conditions)


def parse(where: Mapping[str, Any]) -> Filter:
    """Return the filter that *where* describes; see the module.

    Raises:
        RequestError: If it holds an operator that is none, or mixes operators and fields, or is
            no JSON, or is longer or deeper than `MOST_CONDITIONS`, `MOST_CHOICES` and `DEEPEST`.
    """
    if not isinstance(where, Mapping):
        raise _refused("a filter is a mapping of fields to what they must be")
    conditions = tuple(_conditions((), where))
    if len(conditions) > MOST_CONDITIONS:
        raise _refused(f"a filter has {len(conditions)} conditions; the most are {MOST_CONDITIONS}")
    return Filter(conditions)


def reached(value: Any, path: Path) -> Any:
    """Return what lies at *path* in *value*, or `MISSING`."""
    for name in path:
        value = _field(value, name)
    return value


def token(value: Any) -> Hashable:
    """Return what two JSON values share if, and only if, they are equal.

    A missing value is null; 1 is 1.0; true is not 1.
    """
    match value:
        case None | Missing():
            return None
        case bool():
            return (bool, value)  # ("truth", 1) could be a list, and 1 is equal to True here
        case Mapping():
            return frozenset((key, token(one)) for key, one in value.items())
        case list() | tuple():
            return tuple(token(one) for one in value)
        case _:
            plain: Hashable = value
            return plain


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        return MISSING
    if name in value:
        return value[name]
    if "." not in name:
        return MISSING
    for part in name.split("."):
        value = value.get(part, MISSING) if isinstance(value, Mapping) else MISSING
    return value


def _conditions(path: Path, where: Mapping[str, Any]) -> Iterator[Condition]:
    if len(path) > DEEPEST:
        raise _refused(f"a filter is deeper than {DEEPEST}")
    for name, wanted in where.items():
        if not isinstance(name, str) or name.startswith("$"):
            raise _refused("a filter names fields first, and operators within a field")
        yield from _field_conditions((*path, name), wanted)


def _field_conditions(path: Path, wanted: Any) -> Iterator[Condition]:
    if not isinstance(wanted, Mapping):
        yield Condition(path, "$eq", _json(wanted))
        return
    operators = [name for name in wanted if isinstance(name, str) and name.startswith("$")]
    if not operators:
        yield Condition(path, "$object", True)
        yield from _conditions(path, wanted)
        return
    if len(operators) < len(wanted):
        raise _refused("a field of a filter has operators or fields within, not both")
    for name, operand in wanted.items():
        yield Condition(path, name, _operand(name, operand))


def _operand(name: str, operand: Any) -> Any:
    if name not in _OPERATORS or name == "$object":
        known = ", ".join(one for one in _OPERATORS if one != "$object")
        raise _refused(f"a filter has an unknown operator; there are {known}")
    if name == "$exists" and not isinstance(operand, bool):
        raise _refused("$exists is true or false")
    if name not in ("$in", "$nin"):
        return _json(operand)
    if isinstance(operand, str) or not isinstance(operand, Sequence):
        raise _refused(f"{name} is a list")
    if len(operand) > MOST_CHOICES:
        raise _refused(f"{name} has {len(operand)} members; the most are {MOST_CHOICES}")
    return frozenset(token(_json(one)) for one in operand)


def _json(value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise _refused(f"a filter is deeper than {DEEPEST}")
    match value:
        case None | str() | bool() | int():
            return value
        case float() if value == value:  # NaN equals nothing, not even itself
            return value
        case list() | tuple():
            return [_json(one, depth + 1) for one in value]
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: _json(one, depth + 1) for key, one in value.items()}
        case _:
            raise _refused("a filter compares with JSON only")


def _refused(message: str) -> RequestError:
    return RequestError(message, param="where", code="invalid_filter")


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def within(found: Any, operand: Any) -> bool:
        for kind in (str, (int, float)):
            if isinstance(found, kind) and isinstance(operand, kind):
                truths = isinstance(found, bool) or isinstance(operand, bool)
                return not truths and compare(found, operand)
        return False

    return within


def _exists(found: Any, operand: bool) -> bool:
    return (found is not MISSING) == operand


_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$eq": lambda found, operand: token(found) == token(operand),
    "$ne": lambda found, operand: token(found) != token(operand),
    "$gt": _ordered(lambda found, operand: found > operand),
    "$gte": _ordered(lambda found, operand: found >= operand),
    "$lt": _ordered(lambda found, operand: found < operand),
    "$lte": _ordered(lambda found, operand: found <= operand),
    "$in": lambda found, operand: token(found) in operand,
    "$nin": lambda found, operand: token(found) not in operand,
    "$exists": _exists,
    "$object": lambda found, _: isinstance(found, Mapping),
}
