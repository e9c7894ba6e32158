"""What is kept, read through the guard again: the register may have changed since it left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from elision.guards.phrases.holdback import REDACTED
from elision.middleware.buffering import judge_of
from elision.middleware.gateway.body import DEEPEST
from elision.middleware.holding.layers import Layers, Passages

if TYPE_CHECKING:
    from elision.middleware.enforcement import Enforcement
    from elision.middleware.gateway.responses.items import Item

Verdict: TypeAlias = bytes
"""Of every string of an item, in order, whether it may be told; empty: all of it may."""
CLEAN: Final[Verdict] = b""
_OURS: Final = frozenset({"id", "type", "role", "status"})
"""Strings of an item that are ids or come from closed sets."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A key of an object: a text that is never JSON."""

    text: str


class Cleanser:
    """Withholds of kept items what must not be said now. Calls take time: not for the event loop.

    It reads as one who has the whole before him: every string, what stands
    in one that is JSON, and all of them in a row, with their names and without. No phrase is
    excepted because its caller once wrote it: who reads now may be somebody else.

    Args:
        rules: What is enforced.
    """

    def __init__(self, rules: Enforcement) -> None:
        self._rules = rules
        self._judge = judge_of(rules)
        passages = (Passages(rules, ""),) if rules.verbatim else ()
        self._layers = Layers(layers=passages, rules=rules, user="")

    def allows(self, value: Any) -> bool:
        """Return whether everything in *value* may leave."""
        if not self._rules.targets:
            return True
        return all(map(self._lets, {" ".join(_strings(value, named=n)) for n in (True, False)}))

    def _lets(self, text: str) -> bool:
        if [*self._judge(text)]:
            return False
        return not self._rules.verbatim or self._layers.is_clean(text)

    def cleansed(self, item: Item) -> Item:
        """Return *item*; texts in it that must not be said are ``[redacted]``, each as a whole."""
        return applied(self.verdict(item), item)

    def verdict(self, item: Item) -> Verdict:
        """Return what of *item* may be told. It holds none of its text, so it may be kept."""
        if self.allows(item):
            return CLEAN
        lets: list[bool] = []

        def change(text: str) -> str:
            lets.append(self.allows(text))
            return text if lets[-1] else REDACTED

        once = _each(item, change)
        # Where strings say it only together, none of them is told.
        return bytes(lets) if self.allows(once) else bytes(len(lets))


def applied(verdict: Verdict, item: Item) -> Item:
    """Return *item* as *verdict*, which is of an equal item, says that it may be told."""
    if verdict == CLEAN:
        return item
    lets = iter(verdict)
    found: Item = _each(item, lambda text: text if next(lets) else REDACTED)
    return found


def _each(value: Any, change: Callable[[str], str], depth: int = 0) -> Any:
    """Return *value* with every string changed that is none of ours; an unsaid name is left out.

    What is nested deeper than a body may be is not told at all.
    """
    if depth > DEEPEST:
        return REDACTED
    match value:
        case str():
            return change(value)
        case Mapping():
            return {
                key: inner
                if key in _OURS and isinstance(inner, str)
                else _each(inner, change, depth + 1)
                for key, inner in value.items()
                if change(key) != REDACTED or key in _NAMES
            }
        case list():
            return [_each(inner, change, depth + 1) for inner in value]
    return value


_NAMES: Final = _OURS | {
    "content", "text", "refusal", "arguments", "output", "name", "call_id", "summary",
    "annotations", "logprobs", "image_url", "detail", "file_data", "file_id", "filename",
}  # fmt: skip
"""Names of an item's own fields."""


def _strings(value: Any, *, named: bool) -> Iterator[str]:
    """Yield every string in *value*, those in a string that is JSON too, and the names if wanted.

    Without names, what comes from closed sets is left out too: nothing stands between the texts.
    However deep it is nested: a model may write JSON that is deeper than calls may be.
    """
    left = [value]  # the next one last
    while left:
        match left.pop():
            case str(text):
                yield text
                if text.lstrip()[:1] in {"{", "[", '"'}:
                    with suppress(orjson.JSONDecodeError):
                        left.append(orjson.loads(text))
            case Mapping() as pairs:
                for key, inner in reversed([*pairs.items()]):
                    if named or key not in _OURS:
                        left.append(inner)
                    if named:
                        left.append(_Name(key))
            case _Name(name):
                yield name
            case list(inners):
                left += reversed(inners)
            case (int() | float()) as number if not isinstance(number, bool):
                yield str(number)
