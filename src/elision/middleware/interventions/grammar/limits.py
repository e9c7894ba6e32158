"""What a JSON schema may cost to compile, told before anything compiles it.

llguidance bounds its automata, not its stack: it follows references as deep as they lead. Nor
does it bound the time in which patterns that all must hold are made into one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from math import prod
from typing import Any, Final

from elision.errors import RequestError
from elision.middleware.interventions.grammar.parts import Schema, listed, over_parts, resolved

DEEPEST: Final = 100
"""Levels of a schema; llguidance reads little more."""
LONGEST: Final = 200
"""Levels over references; at some 1,700 the stack of a thread (8 MB) is full."""
N_PATTERNS: Final = 3
"""Patterns and formats that one string must satisfy; from 16 on they took more than 18 s."""
N_STEPS: Final = 100_000
"""Product of what a number must be a multiple of: the states it is counted in."""
FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
"""Formats that are kept to; others are annotations, as JSON Schema 2020-12 has them by default."""
_MOST_VISITS: Final = 100_000


def check_limits(schema: Schema) -> None:
    """Raise unless *schema* can be compiled without filling the stack, and soon.

    Raises:
        RequestError: If it leads too deep, has its values satisfy too much at once, or refers to
            what is not named by its place in it.
    """
    references = References(schema)
    references.check_depth()
    patterns = _Together(references, _n_patterns, sum)
    steps = _Together(references, _n_steps, prod)
    if patterns.of(schema) > N_PATTERNS or steps.of(schema) > N_STEPS:
        raise _too_much()


class References:
    """What the references of a schema lead to; literal nesting is bounded by whoever parsed it.

    Args:
        root: The schema; not to be changed while this lives.

    Raises:
        RequestError: If a reference is none to a place in *root*, or there are too many.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._heights: dict[int, int] = {}
        self._led: dict[int, dict[int, Schema]] = {}
        self._n_visits = 0
        if any(_renames(value, root) for value in _objects(root) if value is not root):
            raise _not_a_place()
        waiting = [root]
        while waiting:
            if id(place := waiting.pop()) not in self._heights:
                self._walk(place)
                waiting += self._led[id(place)].values()

    def _walk(self, place: Schema) -> None:
        """Note how high *place* is by itself, and where its references lead."""
        led: dict[int, Schema] = {}
        height, row = 0, [place]
        while row:
            height += 1
            below: list[Schema] = []
            for part in row:
                if isinstance(part, Mapping):
                    self._look(part, led)
                    over_parts(part, below.append)
            row = below
        self._heights[id(place)], self._led[id(place)] = height, led

    def _look(self, part: Mapping[str, Any], led: dict[int, Schema]) -> None:
        self._n_visits += 1
        if self._n_visits > _MOST_VISITS:
            raise _too_much()
        if (place := self.of(part)) is not None:
            led[id(place)] = place

    def of(self, part: Mapping[str, Any]) -> Schema | None:
        """Return what *part* refers to; None if that is nothing, or not a schema."""
        pointer = part.get("$ref")
        if not isinstance(pointer, str):
            return None
        if pointer != "#" and not pointer.startswith("#/"):
            raise _not_a_place()
        return resolved(self._root, pointer)

    def check_depth(self) -> None:
        """Raise if some way over the references is longer than `LONGEST` levels."""
        _Ways(self._heights, self._led).visit(id(self._root))


class _Ways:
    """The longest ways over references, by Tarjan's components.

    Whoever follows references goes round no circle twice, in which order ever: within a component
    no way is longer than all its places together.
    """

    def __init__(self, heights: Mapping[int, int], led: Mapping[int, Mapping[int, Any]]) -> None:
        self._heights = heights
        self._led = led
        self._order: dict[int, int] = {}
        self._low: dict[int, int] = {}
        self._open: list[int] = []
        self._depths: dict[int, int] = {}

    def visit(self, place: int, level: int = 1) -> None:
        """Find how deep it goes from *place*; raise if that is too deep."""
        if level > LONGEST // 2:
            raise too_deep()
        self._order[place] = self._low[place] = len(self._order)
        self._open.append(place)
        for after in self._led[place]:
            if after not in self._order:
                self.visit(after, level + 1)
            if after not in self._depths:
                self._low[place] = min(self._low[place], self._low[after])
        if self._low[place] == self._order[place]:
            self._close(place)

    def _close(self, place: int) -> None:
        start = self._open.index(place)
        members, self._open = self._open[start:], self._open[:start]
        after = {a for member in members for a in self._led[member]} - {*members}
        depth = sum(map(self._heights.__getitem__, members))
        depth += max((self._depths[a] for a in after), default=0)
        if depth > LONGEST:
            raise too_deep()
        self._depths.update(dict.fromkeys(members, depth))


class _Together:
    """How much a value must satisfy at once; the most over all parts of a schema.

    Args:
        references: Of the schema.
        own: What a part asks for by itself.
        joined: What several parts ask for that must all hold.
    """

    def __init__(
        self,
        references: References,
        own: Callable[[Mapping[str, Any]], int],
        joined: Callable[[list[int]], int],
    ) -> None:
        self._references = references
        self._own = own
        self._joined = joined
        self._known: dict[int, int] = {}

    def of(self, part: Schema) -> int:
        """Return what *part* asks for; a circle of references asks for nothing more."""
        if not isinstance(part, Mapping):
            return self._joined([])
        if id(part) not in self._known:
            self._known[id(part)] = self._joined([])
            both = [self.of(other) for other in self._all_of(part)]
            alone = max(map(self.of, self._others(part)), default=self._joined([]))
            self._known[id(part)] = self._joined([self._own(part), alone, *both])
        return self._known[id(part)]

    def _all_of(self, part: Mapping[str, Any]) -> Iterator[Schema]:
        yield from listed(part, "allOf")
        yield self._references.of(part)

    def _others(self, part: Mapping[str, Any]) -> list[Schema]:
        found: list[Schema] = []
        over_parts({key: value for key, value in part.items() if key != "allOf"}, found.append)
        return found


def _objects(root: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object in *root*, schema or not: a reference may lead anywhere."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield value
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _renames(value: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Return whether references in *value* would start from it, not from *root*."""
    is_old = any(draft in str(root.get("$schema")) for draft in ("draft-03", "draft-04"))
    return isinstance(value.get("$id"), str) or (is_old and isinstance(value.get("id"), str))


def _n_patterns(part: Mapping[str, Any]) -> int:
    said = part.get("format")
    return ("pattern" in part) + (isinstance(said, str) and said in FORMATS)


def _n_steps(part: Mapping[str, Any]) -> int:
    number = part.get("multipleOf")
    if isinstance(number, bool) or not isinstance(number, int | float) or not number:
        return 1
    if isinstance(number, int):
        return min(abs(number), N_STEPS + 1)
    found = Decimal(repr(number)).as_tuple()
    digits = "".join(map(str, found.digits)).rstrip("0")
    return int(digits or "1") if len(digits) < len(str(N_STEPS)) + 1 else N_STEPS + 1


def too_deep() -> RequestError:
    """Return the error for a schema of too many levels."""
    return RequestError(
        f"the schema is nested deeper than {DEEPEST} levels, or {LONGEST} over its references; "
        "flatten it",
        code="schema_too_complex",
    )


def _too_much() -> RequestError:
    return RequestError(
        "the schema is too complex to write by: it has too many references, or its values must "
        f"satisfy too much at once; use at most {N_PATTERNS} patterns for one string, and small "
        "numbers in 'multipleOf'",
        code="schema_too_complex",
    )


def _not_a_place() -> RequestError:
    return RequestError(
        "the schema has a '$ref' that names no part of it by its place, such as '#/$defs/name', "
        "or an '$id' or 'id' within",
        code="unsupported_schema",
    )
