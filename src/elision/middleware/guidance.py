"""Guidance as callers ask for it: ``elision: {"guidance": {...}}``, read into recipes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from elision.contract import Recipe, Request
from elision.errors import ConfigError, RequestError
from elision.middleware.fields import (
    MISSING,
    TYPE,
    VALUE,
    Fields,
    check_number,
    check_text,
    reject,
)
from elision.middleware.interventions.contrast import ContextAware, ContextualContrast
from elision.middleware.interventions.difference import (
    ContrastiveDecoding,
    DeltaUnlearning,
    LogitDifference,
)
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.views import After, LastToken, System, Tokens, View, Without
from elision.middleware.prompts import TOKEN_ID_MAX

PATH: Final = "elision.guidance"
SUFFIX_CHARS: Final = 1_000
SUFFIX_TOKENS: Final = 64
"""Longest words of MTI that are read behind the text: they cost their length wherever it acts."""
PROMPTS: Final = ("avoid", "away", "negative", "towards")
"""Keys whose value is read as a prompt, or as part of one, that the request does not have."""

_QUANTILE = re.compile(r"q(0?\.[0-9]{1,6}|0)")
_RANGES: Final = MappingProxyType(
    {
        "scale": (-100, 100),
        "weight": (-100, 100),
        "plausibility": (0, 1),
        "keep": (0, 1),
        "temperature": (0.01, 100),
    }
)
_OTHER: Final = ("avoid", "context", "last_token", "negative")
"""Keys that name the other prompt of a contrast; one of them at a time."""


def guidance_recipes(options: object) -> tuple[Recipe, ...]:
    """Return the recipes that *options*, a request's ``guidance``, asks for.

    Raises:
        RequestError: As in `guidance_of`.
    """
    return tuple(guidance_of(options).values())


def guidance_of(given: object, under: Mapping[str, Any] | None = None) -> dict[str, Recipe]:
    """Return the recipes that are asked for, by method.

    Args:
        given: A request's ``guidance``: of each method of `METHODS` its settings, true for its
            defaults, null for none. None is no guidance.
        under: What holds where *given* does not name a method: a profile's, in the same form.

    Raises:
        RequestError: If a field is not known, malformed or out of range; ``param`` names it, and
            the message repeats nothing of it.
    """
    own = {} if given is None else given
    if not isinstance(own, Mapping):
        raise reject(PATH, "must be a JSON object", TYPE)
    asked = {**(under or {}), **own}
    if any(method not in METHODS for method in asked):
        raise reject(PATH, f"may hold {', '.join(METHODS)}, nothing else")
    wanted = {method: asked.get(method) for method in METHODS}
    return {
        method: _recipe(method, value)
        for method, value in wanted.items()
        if value is not None and value is not False
    }


def words_of(request: Request) -> Iterator[str | tuple[int, ...]]:
    """Yield every text, and every list of tokens, that *request* itself would be guided by."""
    own = request.options.get("guidance")
    for settings in own.values() if isinstance(own, Mapping) else ():
        for key in PROMPTS if isinstance(settings, Mapping) else ():
            words = settings.get(key)
            if isinstance(words, str):
                yield words
            elif isinstance(words, Sequence):
                yield tuple(token for token in words if isinstance(token, int))


# --- one method ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """How one method is asked for.

    Attributes:
        keys: Of its object.
        read: Makes a recipe of the object.
    """

    keys: tuple[str, ...]
    read: Callable[[Fields], Recipe]


def _recipe(name: str, value: object) -> Recipe:
    param, method = f"{PATH}.{name}", METHODS[name]
    given = {} if value is True else value
    if not isinstance(given, Mapping):
        raise reject(param, "must be a JSON object, true for its defaults or null for none", TYPE)
    if any(key not in method.keys for key in given):
        raise reject(param, f"may hold {', '.join(sorted(method.keys))}, nothing else")
    try:
        return method.read(Fields(given, param))
    except ConfigError as exc:
        raise RequestError(f"{param!r}: {exc}", param=param, code=VALUE) from exc


def _mti(fields: Fields) -> Recipe:
    words = {
        **_word(fields, "branch", ("suffix", "last_token", "prompt")),
        **_word(fields, "gate", ("entropy", "random", "always")),
    }
    if (negative := _negative(fields)) is not None:
        most = SUFFIX_CHARS if isinstance(negative, str) else SUFFIX_TOKENS
        if words.get("branch", "suffix") == "suffix" and len(negative) > most:
            raise reject(fields.param("negative"), f"must be no longer than {most:,}")
        words["negative"] = negative
    return MinimalIntervention(**words, **_numbers(fields, "scale"), **_threshold(fields))


def _cfg(fields: Fields) -> Recipe:
    other = _other(fields) or LastToken()
    return Guidance(other=other, **_numbers(fields, "scale", "plausibility"))


def _cad(fields: Fields) -> Recipe:
    if (other := _other(fields)) is None:
        raise reject(fields.param("context"), "is required", MISSING)
    return ContextAware(other=other, **_numbers(fields, "scale", "plausibility"))


def _contrast(fields: Fields) -> Recipe:
    towards, away = (_prompt(fields, key, fields.need(key)) for key in ("towards", "away"))
    numbers = _numbers(fields, "scale", "plausibility")
    return ContextualContrast(towards=towards, away=away, **numbers)


def _cd(fields: Fields) -> Recipe:
    numbers = _numbers(fields, "scale", "plausibility", "temperature")
    return ContrastiveDecoding(assistant=_name(fields, "assistant"), **numbers)


def _uld(fields: Fields) -> Recipe:
    numbers = _numbers(fields, "weight", "keep")
    return LogitDifference(assistant=_name(fields, "assistant"), **numbers)


def _delta(fields: Fields) -> Recipe:
    before, after = _name(fields, "before"), _name(fields, "after")
    return DeltaUnlearning(before=before, after=after, **_numbers(fields, "weight"))


METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "mti": Method(("branch", "gate", "negative", "scale", "share", "tau"), _mti),
        "cfg": Method((*_OTHER, "plausibility", "scale"), _cfg),
        "cad": Method((*_OTHER, "plausibility", "scale"), _cad),
        "contrast": Method(("away", "plausibility", "scale", "towards"), _contrast),
        "cd": Method(("assistant", "plausibility", "scale", "temperature"), _cd),
        "uld": Method(("assistant", "keep", "weight"), _uld),
        "delta": Method(("after", "before", "weight"), _delta),
    }
)
"""What a request may ask for, by name, in the order in which it acts."""


# --- fields --------------------------------------------------------------------------------------


def _numbers(fields: Fields, *keys: str) -> dict[str, Any]:
    """Return the numbers at *keys* that are there."""
    found = {key: fields.number(key, *_RANGES[key]) for key in keys}
    return {key: float(value) for key, value in found.items() if value is not None}


def _word(fields: Fields, key: str, known: tuple[str, ...]) -> dict[str, Any]:
    value = fields.take(key)
    if value is None:
        return {}
    if value not in known:
        raise reject(fields.param(key), f"must be one of {', '.join(known)}")
    return {key: value}


def _name(fields: Fields, key: str) -> str:
    fields.need(key)
    name = fields.word(key, 64)
    assert name is not None
    return name


def _threshold(fields: Fields) -> dict[str, Any]:
    """Return where MTI acts: ``tau`` in nats, or a share of the positions."""
    tau, share = fields.take("tau"), fields.number("share", 0, 1, above=True)
    if tau is None:
        return {} if share is None else {"share": float(share)}
    if share is not None:
        raise reject(fields.param("tau"), "contradicts 'share'; send one of the two")
    if not isinstance(tau, str):
        check_number(tau, fields.param("tau"), -100, 100)
        return {"tau": float(tau)}
    if (quantile := _QUANTILE.fullmatch(tau)) is None:
        raise reject(fields.param("tau"), "must be nats, or a quantile such as 'q0.92'")
    return {"share": round(1 - float(quantile[1]), 6)}


def _negative(fields: Fields) -> str | tuple[int, ...] | None:
    value = fields.take("negative")
    return None if value is None else _text_or_tokens(value, fields.param("negative"))


def _other(fields: Fields) -> View | None:
    """Return the other prompt; None if none is named."""
    found = {key: view for key in _OTHER if (view := _view(fields, key)) is not None}
    if len(found) > 1:
        first, second = [*found][:2]
        raise reject(fields.param(second), f"contradicts {first!r}; send one of the two")
    return next(iter(found.values()), None)


def _view(fields: Fields, key: str) -> View | None:
    if key == "last_token":
        return LastToken() if fields.flag(key) else None
    value = fields.take(key)
    if value is None:
        return None
    if key == "negative":
        return _prompt(fields, key, value)
    check_text(value, fields.param(key))
    if not value:
        raise reject(fields.param(key), "must not be empty")
    return Without(value) if key == "context" else After(value)


def _prompt(fields: Fields, key: str, value: object) -> System | Tokens:
    found = _text_or_tokens(value, fields.param(key))
    return System(found) if isinstance(found, str) else Tokens(found)


def _text_or_tokens(value: object, param: str) -> str | tuple[int, ...]:
    if not isinstance(value, list):
        check_text(value, param)
        return str(value)
    if not value or not all(type(v) is int and 0 <= v <= TOKEN_ID_MAX for v in value):
        raise reject(param, "must be a text, or a list of token ids")
    return tuple(value)
