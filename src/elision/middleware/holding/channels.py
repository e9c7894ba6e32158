"""Every string of a message beside its text, each its own guard: tool calls, reasoning, refusals.

The strings leave piece by piece, as their guards let them go; what is left of them leaves when
the choice ends, or of a tool call when the next one begins. Names and ids leave whole. Lists whose
entries bear no index cannot be continued, so they leave as one, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from elision.contract import joined
from elision.middleware.holding.fields import JSON, Fields
from elision.middleware.holding.said import Said

if TYPE_CHECKING:
    from elision.middleware.holding.chain import Chain
    from elision.middleware.holding.layers import Layers

Path: TypeAlias = tuple[str | int, ...]
"""Names, and the ``index`` of entries of lists."""

_NAMES: Final = frozenset({"id", "type", "role", "name", "call_id", "tool_call_id"})
"""Strings that clients want whole and at once."""
_CALLS: Final = frozenset({"tool_calls", "function_call"})
_MOST_ENTRIES: Final = 4096
"""Past it, an entry's ``index`` is taken for something else."""
_NEAR: Final = 512
"""Characters of a list's entry that the next one is read behind."""


class Channels:
    """The message of one choice on its way out; its text aside.

    Args:
        layers: What guards the request.

    Attributes:
        is_refused: Whether something in it ends the choice.
        has_called: Whether it holds tool calls.
        has_left: Whether anything of it has left.
        n_redacted: Spans replaced so far.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._fields = Fields(layers)
        self._chains: dict[Path, Chain] = {}
        self._ended: set[Path] = set()
        self._names: dict[Path, Said] = {}
        self._blocks: dict[Path, tuple[Path, str]] = {}  # of a list: the last one, how it ends
        self._lists: dict[Path, list[Any]] = {}
        self._call: Path | None = None
        self.is_refused = self.has_called = self.has_left = False

    @property
    def n_dropped(self) -> int:
        """Values that did not leave."""
        return self._fields.n_dropped

    @property
    def n_redacted(self) -> int:
        """Spans replaced so far."""
        return sum(chain.n_redacted for chain in self._chains.values())

    def take(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Take in a piece of the message; return what of it may leave now.

        Once something is refused, what came before it is the last that leaves.
        """
        self.has_called |= any(message.get(key) for key in _CALLS)
        return self._left(self._mapping((), message))

    def finish(self) -> dict[str, Any]:
        """Return what may leave at the end of the choice, up to where it is refused."""
        out: dict[str, Any] = {}
        for path in tuple(self._chains):
            out = joined(out, self._end(path))
        for path, entries in self._lists.items():
            if self.is_refused:
                break
            if self._fields.is_clean(_under(path, entries)):
                out = joined(out, _under(path, entries))
            elif path[0] in _CALLS:
                self.is_refused = True
            else:
                self._fields.n_dropped += 1
        return self._left(out)

    def _left(self, out: dict[str, Any]) -> dict[str, Any]:
        if not _says(out):
            return {}
        self.has_left = True
        return out

    def _mapping(self, path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, inner in value.items():
            if not self._fields.is_readable(key, inner):
                self._fields.n_dropped += 1
            else:
                out |= self._value((*path, key), inner)
        return out

    def _value(self, path: Path, value: Any) -> dict[str, Any]:
        """Return what may leave of *value*, under the last name of *path*; empty if nothing may."""
        key = str(path[-1])
        if self.is_refused:
            return {}
        match value:
            case None | bool():
                return {key: value}
            case str():
                return {key: self._string(path, value)}
            case Mapping() if path[0] in _CALLS or not self._fields.only_together({key: value}):
                return {key: self._mapping(path, value)}
            case Mapping():
                pass
            case list() | tuple():
                entries = [*self._entries(path, value)]
                return {key: entries} if entries else {}
            case int() | float() if self._layers.is_clean(str(value)):
                return {key: value}
        self._fields.n_dropped += 1
        return {}

    def _entries(self, path: Path, entries: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
        for entry in entries:
            index = entry.get("index") if isinstance(entry, Mapping) else None
            if type(index) is not int or not 0 <= index < _MOST_ENTRIES:
                self._lists.setdefault(path, []).append(self._readable(entry))
                continue
            place = (*path, index)
            before = self._begin_call(place) if path[0] in _CALLS else {}
            yield from before.get(str(path[0]), ())
            kept = {key: inner for key, inner in entry.items() if key != "index"}
            piece = self._mapping(place, kept)
            if path[0] in _CALLS and _name_of(kept) and not _name_of(piece):
                continue  # a call of nothing would be left
            if _says(piece):
                yield {"index": index, **piece}

    def _readable(self, value: Any) -> Any:
        """Return *value* without what no guard can read."""
        match value:
            case Mapping():
                kept = {k: v for k, v in value.items() if self._fields.is_readable(k, v)}
                self._fields.n_dropped += len(value) - len(kept)
                return {key: self._readable(inner) for key, inner in kept.items()}
            case list() | tuple():
                return [self._readable(inner) for inner in value]
        return value

    def _begin_call(self, place: Path) -> dict[str, Any]:
        """Note which tool call goes on; return what is left of the one before it.

        A string of which nothing is held may go on: some servers mix their calls.
        """
        earlier, self._call = self._call, place
        out: dict[str, Any] = {}
        if earlier is not None and earlier != place:
            for path, chain in tuple(self._chains.items()):
                if path[: len(earlier)] == earlier and chain.held:
                    out = joined(out, self._end(path))
        return out

    def _string(self, path: Path, text: str) -> str:
        if path[-1] in _NAMES:
            return self._name(path, text)
        if path in self._ended:
            # Written on behind its end: a phrase may lie across it.
            self.is_refused |= bool(text)
            return ""
        is_json = path[-1] in JSON
        before = self._block(path, text) if len(path) > 2 and path[0] not in _CALLS else ""
        chain = self._chains.get(path)
        if chain is None:
            chain = self._layers.channel(json=is_json, before="" if is_json else before)
            self._chains[path] = chain
        left = chain.feed(text)
        self.is_refused |= chain.is_refused
        return left

    def _block(self, path: Path, text: str) -> str:
        """Note that *text* goes on at *path*; return how the block of its list before it ended."""
        names = tuple(step for step in path if isinstance(step, str))
        last, ending = self._blocks.get(names, (path, ""))
        self._blocks[names] = path, (ending + text)[-_NEAR:]
        return ending if last != path else ""

    def _name(self, path: Path, text: str) -> str:
        said = self._names.get(path)
        if said is None:
            said = self._names[path] = Said(self._layers)
        if said.allows(text):
            return text
        self.is_refused = True
        return ""

    def _end(self, path: Path) -> dict[str, Any]:
        """Return the rest of one string, in its place."""
        if self.is_refused or path in self._ended:
            return {}
        self._ended.add(path)
        rest = self._chains[path].finish()
        self.is_refused |= self._chains[path].is_refused
        return _under(path, rest) if rest else {}


def _under(path: Path, value: Any) -> dict[str, Any]:
    """Return *value* in its place in an otherwise empty message."""
    for step in reversed(path):
        value = [{"index": step, **value}] if isinstance(step, int) else {step: value}
    found: dict[str, Any] = value
    return found


def _name_of(call: Mapping[str, Any]) -> Any:
    """Return what a piece of a tool call says is called; None if it does not say."""
    function = call.get("function")
    return function.get("name") if isinstance(function, Mapping) else None


def _says(value: Any) -> bool:
    """Return whether anything is said in *value*."""
    match value:
        case Mapping():
            return any(_says(inner) for key, inner in value.items() if key != "index")
        case list() | tuple():
            return any(map(_says, value))
    return value is not None and value != ""
