"""Checks on one field of a body: each message names the place and never the value.

A value that fails may be a phrase in the wrong place, and messages reach logs and other people.
Every check raises a `TargetError` whose ``param`` is the place and which says what to write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from elision.errors import TargetError

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_YEAR_9999 = 253_370_764_800
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def check_tenant(tenant: object) -> None:
    """Raise unless *tenant* is 1 to 64 of the characters ``A-Z a-z 0-9 . _ -``."""
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise TargetError(
            "tenant is not a tenant's name; write 1 to 64 of the characters A-Z a-z 0-9 . _ -",
            param="tenant",
        )


def check_text(value: object, where: str, *, most: int) -> None:
    """Raise unless *value* is a text of 1 to *most* characters, not all of them blank."""
    if not isinstance(value, str):
        raise TargetError(f"{where} is {kind_of(value)}; write a string", param=where)
    if not value.strip():
        raise TargetError(f"{where} is empty; write at least one character", param=where)
    if len(value) > most:
        raise TargetError(
            f"{where} has {len(value)} characters, at most {most} are possible; shorten it",
            param=where,
        )
    if _SURROGATE.search(value):
        raise TargetError(
            f"{where} holds half of a surrogate pair; write whole characters", param=where
        )


def check_line(value: object, where: str, *, most: int) -> None:
    """Raise unless *value* is one line of text without control characters."""
    check_text(value, where, most=most)
    if _CONTROL.search(str(value)):
        raise TargetError(
            f"{where} holds line breaks or control characters; write one line of plain text",
            param=where,
        )


def check_choice(value: object, known: Sequence[str], where: str) -> None:
    """Raise unless *value* is one of *known*."""
    if value not in known:
        raise TargetError(f"{where} is not known; write one of {', '.join(known)}", param=where)


def check_flag(value: object, where: str) -> None:
    """Raise unless *value* is a boolean."""
    if not isinstance(value, bool):
        raise TargetError(f"{where} is {kind_of(value)}; write true or false", param=where)


def check_share(value: object, where: str) -> None:
    """Raise unless *value* is a number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TargetError(f"{where} is {kind_of(value)}; write a number", param=where)
    if not 0 < value <= 1:  # of a NaN, neither holds
        raise TargetError(
            f"{where} lies outside (0, 1]; write 1 to forbid only the whole phrase", param=where
        )


def check_count(items: Sequence[object], where: str, *, most: int) -> None:
    """Raise unless there are at most *most* items."""
    if len(items) > most:
        raise TargetError(
            f"{where} has {len(items)} entries, at most {most} are possible; split the target",
            param=where,
        )


def check_keys(body: Mapping[Any, Any], known: Sequence[str], where: str | None = None) -> None:
    """Raise unless every key of *body* is one of *known*; *where* is None for the whole body."""
    for n, key in enumerate(body, start=1):
        if key not in known:
            raise TargetError(
                f"key {n} of {where or 'the body'} is not known; write only {', '.join(known)}",
                param=where,
            )


def items_of(body: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """Return the list at *key*, empty if there is none; raise if something else stands there."""
    items = body.get(key, ())
    if not isinstance(items, list | tuple):
        raise TargetError(f"{key} is {kind_of(items)}; write a list", param=key)
    return tuple(items)


def moment_of(body: Mapping[str, Any], key: str) -> float | None:
    """Return the time at *key* in seconds since 1970, None if there is none; raise if unclear."""
    value = body.get(key)
    if value is None:
        return None
    wanted = f"{key} is no time; write ISO 8601 with a zone, such as 2030-01-31T12:00:00Z"
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as exc:
            raise TargetError(wanted, param=key) from exc
        if moment.tzinfo is None:
            raise TargetError(wanted, param=key)
        value = moment.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TargetError(wanted, param=key)
    if not 0 <= value < _YEAR_9999:
        raise TargetError(f"{key} lies outside the years 1970 to 9998", param=key)
    return round(float(value), 3)


def kind_of(value: object) -> str:
    """Say what sort of thing *value* is, without saying what it is."""
    return "null" if value is None else f"of type {type(value).__name__}"
