"""What an upstream tells beside a reply's text: checked whole, dropped where it is not clean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from elision.middleware.holding.said import Said

if TYPE_CHECKING:
    from elision.middleware.holding.layers import Layers

UNREADABLE: Final = frozenset({
    "token_ids", "prompt_token_ids", "prompt_logprobs", "logprobs", "top_logprobs",
    "audio", "image", "images", "image_url", "b64_json", "video",
})  # fmt: skip
"""Fields that may say anything in a form that no guard reads: token ids, sounds, pictures."""
JSON: Final = frozenset({"arguments", "partial_json", "input_json"})
"""Strings that are JSON source."""

Path = tuple[str, ...]


class Dropped(Exception):  # noqa: N818 - says what becomes of a value, no error leaves
    """A value may not leave."""


class Fields:
    """Checks values that are said whole. One serves a choice, or the reply itself.

    A string that comes again under the same name is also read behind what came before.

    Args:
        layers: What guards the request.

    Attributes:
        n_dropped: Values that did not leave.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._said: dict[Path, Said] = {}
        self._joined = Said(layers), Said(layers)
        self._names: set[str] = set()  # of fields, found clean
        self.n_dropped = 0

    def clean(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of *fields* may leave; the rest is dropped and counted.

        Where neighbours only together say what must not be said, none of them leaves.
        """
        found = self._each(fields, ())
        both = zip(self._joined, _spelled(found), strict=True)
        if found and not all(said.allows(text) for said, text in both):
            self.n_dropped += len(found)
            return {}
        return found

    def _each(self, fields: Mapping[str, Any], path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in fields.items():
            try:
                found[key] = self._cleaned((*path, key), value)
            except Dropped:
                self.n_dropped += 1
        return found

    def is_clean(self, value: Any) -> bool:
        """Return whether all strings and numbers in *value* may leave, also joined by name."""
        said: dict[Path, list[str]] = {}
        for path, text in _leaves((), value):
            said.setdefault(path, []).append(text)
        return self._is_clean_in_a_row(value) and all(
            self._layers.is_clean("".join(texts), json=path[-1:] != () and path[-1] in JSON)
            for path, texts in said.items()
        )

    def only_together(self, value: Any) -> bool:
        """Return whether *value* says what must not be said, and no name or string of it alone."""
        return not self._is_clean_in_a_row(value) and all(
            map(self._layers.is_clean, set(_words(value, is_named=True)))
        )

    def _is_clean_in_a_row(self, value: Any) -> bool:
        return all(map(self._layers.is_clean, set(_spelled(value))))

    def is_readable(self, key: str, value: Any) -> bool:
        """Return whether a guard can read what stands under *key*, and may be named by it."""
        is_ids = isinstance(value, list | tuple) and bool(value)
        is_ids = is_ids and all(isinstance(one, int | float) for one in value)
        if key in UNREADABLE or is_ids:
            return False
        if key not in self._names and self._layers.is_clean(key):
            self._names.add(key)
        return key in self._names

    def _cleaned(self, path: Path, value: Any) -> Any:
        if not self.is_readable(path[-1], value):
            raise Dropped
        match value:
            case None | bool():
                return value
            case Mapping():
                return self._each(value, path)
            case list() | tuple():
                return [self._entry(path, entry) for entry in value]
            case str():
                return self._string(path, value)
            case int() | float() if self._layers.is_clean(str(value)):
                return value
        raise Dropped

    def _entry(self, path: Path, entry: Any) -> Any:
        if isinstance(entry, Mapping):
            return self._each(entry, (*path, "[]"))
        return self._cleaned((*path, "[]"), entry)

    def _string(self, path: Path, text: str) -> str:
        said = self._said.get(path)
        if said is None:
            said = self._said[path] = Said(self._layers, json=path[-1] in JSON)
        if not said.allows(text):
            raise Dropped
        return text


def _spelled(value: Any) -> tuple[str, str]:
    """Return the strings and numbers in *value* in a row, with the names and without."""
    named, bare = _words(value, is_named=True), _words(value, is_named=False)
    return " ".join(named), " ".join(bare)


def _words(value: Any, *, is_named: bool) -> Iterator[str]:
    match value:
        case None | bool():
            return
        case Mapping():
            for key, inner in value.items():
                if is_named:
                    yield str(key)
                yield from _words(inner, is_named=is_named)
        case list() | tuple():
            for inner in value:
                yield from _words(inner, is_named=is_named)
        case _:
            yield str(value)


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, str]]:
    """Yield the strings and numbers in *value* as text, by the names that lead to them."""
    match value:
        case None | bool():
            return
        case Mapping():
            for key, inner in value.items():
                yield from _leaves((*path, str(key)), inner)
        case list() | tuple():
            for inner in value:
                yield from _leaves(path, inner)
        case _:
            yield path, str(value)
