"""Orders: what one request has done to its scores in another process, as a text on the wire.

The gateway writes an order, the plug-in in vLLM reads it. Both sides import this file, so it
imports nothing heavy and nothing of the gateway.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from math import isnan
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeAlias, cast, get_args

from elision.contract import Recipe
from elision.errors import ConfigError, RequestError
from elision.guards.carried import object_of
from elision.middleware.interventions.bias import LogitBias
from elision.middleware.interventions.entropy import (
    AdaptiveTemperature,
    EntropyMinimisation,
    SteppedTemperature,
    TargetEntropy,
)
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.penalties import FrequencyPresence, Repetition

KEY: Final = "elision"
"""Under which an order stands in ``vllm_xargs``."""
SEAL: Final = "elision_seal"
"""Under which its seal stands there."""
FORMAT: Final = 1
"""Rises when an order of an older version would be misread."""

_MOST_RECIPES: Final = 32
_LONGEST_LABEL: Final = 256

Drafts: TypeAlias = Literal["none", "recycle"]

_MAKERS: Final[Mapping[str, Callable[..., Recipe]]] = MappingProxyType(
    {
        "em-inf": EntropyMinimisation,
        "target-entropy": TargetEntropy,
        "adaptive-temperature": AdaptiveTemperature,
        "stepped-temperature": SteppedTemperature,
        "logit-bias": LogitBias,
        "frequency-presence": FrequencyPresence,
        "repetition-penalty": Repetition,
        "mti": MinimalIntervention,
    }
)
"""Recipes that an order can name: those that act on one row, or read a suffix of it."""
_NAMES: Final = MappingProxyType({maker: name for name, maker in _MAKERS.items()})


def carries(recipe: Recipe) -> bool:
    """Return whether an order can name *recipe*."""
    if isinstance(recipe, MinimalIntervention):
        return recipe.branch == "suffix" and recipe.gate != "random"
    return type(recipe) in _NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one request has done to its scores.

    Attributes:
        recipes: In any order: stages and ranks put them right.
        guard: Digest of the masks that hold; empty: none.
        learn: The body of those masks, where the receiver is to learn them; see `Carried`.
        before: The text that the reply continues; None: the prompt itself, which is raw.
        user_text: The caller's own words.
        stop: The token that is forced where nothing acceptable is left, or the masks are not
            known. It writes no text, and is in the request's ``stop_token_ids``. Nothing else may
            choose it. None: the end token.
        bans: Tokens that must not be chosen at a position of the reply.
        seed: Keys what recipes draw for themselves.
        choice: Index of the choice.
        drafts: Whether tokens are drafted, where the server can.
        pool: By which what is recycled is kept apart: a digest of tenant and profile.
        until: Seconds since 1970 up to which it may come in; whoever saw it cannot send it later.
            None: at any time, which a server that has a secret does not take.
    """

    recipes: tuple[Recipe, ...] = ()
    guard: str = ""
    learn: str | None = field(default=None, repr=False)
    before: str | None = field(default="", repr=False)
    user_text: str = field(default="", repr=False)
    stop: int | None = None
    bans: Mapping[int, tuple[int, ...]] = field(default_factory=dict, repr=False)
    seed: int | None = None
    choice: int = 0
    drafts: Drafts = "none"
    pool: str = ""
    until: float | None = None

    def dumps(self) -> str:
        """Return the order as a text.

        Raises:
            ConfigError: If a recipe has no name on the wire; see `carries`.
        """
        body: dict[str, Any] = {"format": FORMAT}
        for one in fields(self):
            value = getattr(self, one.name)
            if value != _NEUTRAL[one.name]:
                body[one.name] = value
        if self.recipes:
            body["recipes"] = [_described(recipe) for recipe in self.recipes]
        if self.bans:
            body["bans"] = {str(position): [*ids] for position, ids in self.bans.items()}
        return json.dumps(body, separators=(",", ":"))

    @classmethod
    def loads(cls, text: object) -> Self:
        """Read an order.

        Raises:
            RequestError: If it is none, or of another version. Nothing of it is repeated.
        """
        try:
            body = object_of(text)
        except ValueError:
            raise RequestError("the order is not a JSON object in a string") from None
        if repr(body.pop("format", None)) != repr(FORMAT):  # True and 1.0 are no format
            raise RequestError("the order is of another version; use one version on both sides")
        if unknown := {*body} - {*_NEUTRAL}:
            raise RequestError(f"the order has {len(unknown)} fields that are not known")
        try:
            return cls(**{name: _READS[name](value) for name, value in body.items()})
        except ConfigError as exc:
            raise RequestError(f"the order cannot be carried out: {exc}") from None
        except (TypeError, ValueError, ArithmeticError, LookupError):
            raise RequestError("the order is malformed") from None


_NEUTRAL: Final = {one.name: getattr(Order(), one.name) for one in fields(Order)}


def sealed(text: str, secret: str) -> str:
    """Return the seal of an order: HMAC-SHA256 under *secret*, in hexadecimal digits."""
    key = secret.encode("utf-8", "surrogatepass")
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def is_sealed(text: str, seal: object, secret: str) -> bool:
    """Return whether *seal* is that of *text*; the time it takes tells nothing."""
    given = seal.encode("utf-8", "surrogatepass") if isinstance(seal, str) else b""
    return hmac.compare_digest(sealed(text, secret).encode(), given)


def _described(recipe: Recipe) -> list[Any]:
    name = _NAMES.get(type(recipe)) if carries(recipe) else None
    if name is None:
        raise ConfigError(f"{type(recipe).__name__} cannot be carried to another process")
    given = {one.name: getattr(recipe, one.name) for one in fields(recipe) if one.init}  # type: ignore[arg-type]
    return [name, given]


def _recipe(described: object) -> Recipe:
    if not isinstance(described, list) or len(described) != 2 or not isinstance(described[1], dict):
        raise TypeError
    name, given = described
    if name not in _MAKERS:
        raise ConfigError("it names a recipe that this version does not have")
    maker: Any = _MAKERS[name]
    kinds = {one.name: str(one.type) for one in fields(maker) if one.init}
    settings = {key: _SETTINGS.get(kinds[key], _text)(value) for key, value in given.items()}
    try:
        return cast("Recipe", maker(**settings))
    except ConfigError:
        # Its message repeats the setting, which may be a text of any length.
        raise ConfigError(f"a setting of {name} is out of its range") from None


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _token(value: object) -> int:
    """Read a token, a position or an index: a whole number that 31 bits hold."""
    if not 0 <= _whole(value) < 2**31:
        raise ValueError
    return _whole(value)


def _key(text: str) -> int:
    """Read such a number where it is an object's key, written as Python writes it."""
    if str(number := int(text)) != text:
        raise ValueError
    return _token(number)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if isnan(value):
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _label(value: object) -> str:
    if len(_text(value)) > _LONGEST_LABEL:
        raise ValueError
    return _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _maybe(read: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else read(value)


def _tokens(value: object) -> tuple[int, ...]:
    return tuple(map(_token, _list(value)))


def _words(value: object) -> str | tuple[int, ...]:
    return value if isinstance(value, str) else _tokens(value)


def _table(read: Callable[[object], Any]) -> Callable[[object], dict[int, Any]]:
    def read_table(value: object) -> dict[int, Any]:
        if not isinstance(value, dict):
            raise TypeError
        return {_key(key): read(item) for key, item in value.items()}

    return read_table


def _drafts(value: object) -> Drafts:
    if value not in get_args(Drafts):
        raise ValueError
    return cast("Drafts", value)


def _recipes(value: object) -> tuple[Recipe, ...]:
    if len(_list(value)) > _MOST_RECIPES:
        raise ValueError
    return tuple(map(_recipe, _list(value)))


_SETTINGS: Final[Mapping[str, Callable[[object], Any]]] = MappingProxyType(
    {
        "bool": _flag,
        "int": _whole,
        "float": _number,
        "float | None": _maybe(_number),
        "Mapping[int, float]": _table(_number),
        "str | tuple[int, ...]": _words,
    }
)
"""How a recipe's setting is read, by its type; what is not listed is one of a few words."""
_READS: Final[Mapping[str, Callable[[object], Any]]] = MappingProxyType(
    {
        "recipes": _recipes,
        "guard": _label,
        "learn": _maybe(_text),
        "before": _maybe(_text),
        "user_text": _text,
        "stop": _maybe(_token),
        "bans": _table(_tokens),
        "seed": _maybe(_whole),
        "choice": _token,
        "drafts": _drafts,
        "pool": _label,
        "until": _maybe(_number),
    }
)
"""How each field of an order is read."""
