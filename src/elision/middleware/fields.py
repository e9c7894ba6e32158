"""Typed reads from one JSON object of a request.

Checked by hand, because this runs for every request: a field costs well under a microsecond.
Messages name the field and what was wanted; they never repeat what was found, because what was
found may be the caller's text in the wrong place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elision.errors import RequestError

TYPE = "invalid_type"
VALUE = "invalid_value"
MISSING = "missing_required_parameter"
UNSUPPORTED = "unsupported_parameter"


def reject(param: str, want: str, code: str = VALUE) -> RequestError:
    """Return the error that says what *param* must be."""
    return RequestError(f"{param!r} {want}", param=param, code=code)


def unsupported(param: str, what: str) -> RequestError:
    """Return the error for a field whose value asks for *what*, which is not served."""
    return RequestError(
        f"{what} not supported by this server yet; leave {param!r} out",
        param=param,
        code=UNSUPPORTED,
    )


class Fields:
    """Reads one JSON object field by field and remembers what was read. Lives for one parse.

    A field that is null counts as absent, as in OpenAI's own API.
    """

    def __init__(self, body: object, path: str = "") -> None:
        """Open *body*.

        Args:
            body: What the JSON parser returned.
            path: Where the object stands in the request; empty for the whole body.

        Raises:
            RequestError: If *body* is not an object.
        """
        if not isinstance(body, Mapping):
            where = repr(path) if path else "the request body"
            raise RequestError(f"{where} must be a JSON object", param=path or None, code=TYPE)
        self._body: Mapping[str, Any] = body
        self._path = path
        self._read: set[str] = set()

    def param(self, key: str) -> str:
        """Return the name of field *key* as errors spell it."""
        return f"{self._path}.{key}" if self._path else key

    def take(self, key: str) -> Any:
        """Return a field as it stands; None if it is absent."""
        self._read.add(key)
        return self._body.get(key)

    def need(self, key: str) -> Any:
        """Return a field that must be there."""
        value = self.take(key)
        if value is None:
            raise reject(self.param(key), "is required", MISSING)
        return value

    def rest(self) -> dict[str, Any]:
        """Return every field that was not read and is not null."""
        left = self._body.items()
        return {key: value for key, value in left if key not in self._read and value is not None}

    def number(
        self, key: str, low: float, high: float, *, above: bool = False
    ) -> int | float | None:
        """Return a number in [*low*, *high*], or in (*low*, *high*] with *above*."""
        value = self.take(key)
        if value is None:
            return None
        check_number(value, self.param(key), low, high)
        if above and value == low:
            raise reject(self.param(key), f"must be greater than {low:g}")
        return value  # type: ignore[no-any-return]

    def integer(self, key: str, low: int, high: int) -> int | None:
        """Return an integer in [*low*, *high*]; true and false are none."""
        value = self.take(key)
        if value is None:
            return None
        if type(value) is not int:
            raise reject(self.param(key), "must be an integer", TYPE)
        if not low <= value <= high:
            raise reject(self.param(key), f"must lie between {low} and {high}")
        return value

    def flag(self, key: str, *, absent: bool = False) -> bool:
        """Return a boolean, *absent* if it is not there."""
        value = self.take(key)
        if value is None:
            return absent
        if not isinstance(value, bool):
            raise reject(self.param(key), "must be true or false", TYPE)
        return value

    def word(self, key: str, longest: int) -> str | None:
        """Return a text of 1 to *longest* characters."""
        value = self.take(key)
        if value is None:
            return None
        check_text(value, self.param(key))
        if not 0 < len(value) <= longest:
            raise reject(self.param(key), f"must have between 1 and {longest} characters")
        return value  # type: ignore[no-any-return]


def check_number(value: object, param: str, low: float, high: float) -> None:
    """Raise unless *value* is a number in [*low*, *high*]; NaN and infinities never are."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise reject(param, "must be a number", TYPE)
    if not low <= value <= high:
        raise reject(param, f"must lie between {low:g} and {high:g}")


def check_text(value: object, param: str) -> None:
    """Raise unless *value* is a text that UTF-8 can write (a lone surrogate is none)."""
    if not isinstance(value, str):
        raise reject(param, "must be a string", TYPE)
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        # The cause would carry the text.
        raise reject(param, "must be valid Unicode, without lone surrogates") from None
