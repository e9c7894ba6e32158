"""Regular expressions that somebody else wrote, matched in linear time."""

from __future__ import annotations

import re
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any, Final, TypeAlias, TypeVar

from elision.errors import ConfigError

Node: TypeAlias = Any
"""One ``(opcode, argument)`` pair of `re`'s own parser."""

Key = TypeVar("Key")

MOST_STEPS: Final = 256
"""Most single-character steps that a pattern may unfold to."""
_MOST_KNOWN: Final = 2048
_BEGIN: Final = -1
_REPEATS: Final = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)
_CHARS: Final = (_constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY, _constants.IN)
_REFUSED: Final = {
    "ASSERT": "lookaround",
    "ASSERT_NOT": "lookaround",
    "FAILURE": "lookaround",
    "GROUPREF": "a backreference",
    "GROUPREF_EXISTS": "a conditional group",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive quantifier",
}


class Regex:
    """A pattern of a safe subset of `re`, for asking only whether it occurs in a text.

    Parsed by `re`'s own parser; each character class and each anchor is judged by `re` itself, so
    they mean what they mean there. Matching runs all alternatives side by side (Thompson 1968) and
    remembers its steps, so it takes time in proportion to the text: ``(a|aa)+$``, on which `re` is
    exponential, is as quick as any other. Shareable between threads.

    Args:
        pattern: What to look for, of a length that the caller bounds. No lookaround,
            backreference, conditional or atomic group, possessive quantifier, nor a quantifier
            inside a quantified group.

    Raises:
        ConfigError: If the pattern cannot be parsed, leaves the subset, unfolds to more than
            `MOST_STEPS` steps, or matches an empty text. The message holds no part of it.
    """

    def __init__(self, pattern: str) -> None:
        parsed = _parse(pattern)
        _check(parsed, repeated=False)
        if (size := _size(parsed)) > MOST_STEPS:
            raise ConfigError(f"the regex unfolds to {size} steps, more than {MOST_STEPS}")
        self._chars: list[re.Pattern[str]] = []
        self._char_masks: list[int] = []
        self._anchors: list[re.Pattern[str]] = []
        self._numbers: dict[tuple[str, int], int] = {}
        self._kinds: list[tuple[str, int]] = []
        self._next: list[tuple[int, ...]] = []
        self._accept = self._add("accept", 0)
        self._start = self._chain(parsed, self._accept, parsed.state.flags)
        self._readers: dict[str, int] = {}
        self._moves: dict[tuple[int, str, int], int] = {}
        self._fours: dict[tuple[int, str, int], int] = {}
        self._required = ""
        if self.search(""):
            raise ConfigError("the regex matches an empty text, so it tells no task from another")
        self._required = _longest_literal(parsed)

    def search(self, text: str) -> bool:
        """Return whether the pattern occurs anywhere in *text*."""
        if self._required not in text:
            return False
        accepted = 1 << self._accept
        here = self._leads(_BEGIN, "0", self._hold(text, 0))
        for position, char in enumerate(text, start=1):
            if here & accepted:
                return True
            here = self._move(here, char, self._hold(text, position))
        return bool(here & accepted)

    def _hold(self, text: str, position: int) -> int:
        """Return which anchors hold at *position*, as bits."""
        bits = 0
        for number, anchor in enumerate(self._anchors):
            bits |= (anchor.match(text, position) is not None) << number
        return bits

    def _move(self, here: int, char: str, anchors: int) -> int:
        key = (here, char, anchors)
        found = self._moves.get(key)
        if found is None:
            read = f"{here & self._reading(char):x}"
            found = self._leads(_BEGIN, "0", anchors)
            for place, digit in enumerate(reversed(read)):
                if digit != "0":
                    found |= self._leads(place, digit, anchors)
            _remember(self._moves, key, found)
        return found

    def _leads(self, place: int, digit: str, anchors: int) -> int:
        """Return where four states at once go on: the bits of one hexadecimal digit.

        A step leads from a union of states to the union of where each leads, so that a set never
        seen before is put together from fours that were.
        """
        key = (place, digit, anchors)
        found = self._fours.get(key)
        if found is None:
            after = [self._start]
            if place != _BEGIN:
                bits = int(digit, 16)
                after = [self._next[4 * place + bit][0] for bit in range(4) if bits >> bit & 1]
            found = self._settle(after, anchors)
            _remember(self._fours, key, found)
        return found

    def _reading(self, char: str) -> int:
        """Return the states that read *char*."""
        found = self._readers.get(char)
        if found is None:
            tests = zip(self._chars, self._char_masks, strict=True)
            found = sum(mask for test, mask in tests if test.match(char))
            _remember(self._readers, char, found)
        return found

    def _settle(self, waiting: list[int], anchors: int) -> int:
        """Return the states that read, or accept, and are reached without reading a character."""
        seen, settled = set[int](), 0
        while waiting:
            state = waiting.pop()
            if state in seen:
                continue
            seen.add(state)
            kind, number = self._kinds[state]
            if kind in {"char", "accept"}:
                settled |= 1 << state
            elif kind == "split" or anchors >> number & 1:
                waiting.extend(self._next[state])
        return settled

    def _add(self, kind: str, number: int, *following: int) -> int:
        self._kinds.append((kind, number))
        self._next.append(following)
        return len(self._kinds) - 1

    def _chain(self, nodes: Node, following: int, flags: int) -> int:
        """Return the state that begins *nodes* and goes on at *following*."""
        for node in reversed(list(nodes)):
            following = self._state(node, following, flags)
        return following

    def _state(self, node: Node, following: int, flags: int) -> int:
        opcode, argument = node
        if opcode in _REPEATS:
            least, most, nodes = argument
            return self._repeat(least, most, nodes, following, flags)
        if opcode is _constants.BRANCH:
            ways = (self._chain(way, following, flags) for way in argument[1])
            return self._add("split", 0, *ways)
        if opcode is _constants.SUBPATTERN:
            _, added, dropped, nodes = argument
            return self._chain(nodes, following, (flags | added) & ~dropped)
        if opcode is _constants.AT:
            return self._add("anchor", self._number(self._anchors, node, flags), following)
        number = self._number(self._chars, node, flags)
        state = self._add("char", number, following)
        if number == len(self._char_masks):
            self._char_masks.append(0)
        self._char_masks[number] |= 1 << state
        return state

    def _repeat(self, least: int, most: int, nodes: Node, following: int, flags: int) -> int:
        if most is _constants.MAXREPEAT:
            loop = self._add("split", 0)
            self._next[loop] = (self._chain(nodes, loop, flags), following)
            begin = loop
        else:
            begin = following
            for _ in range(most - least):
                begin = self._add("split", 0, self._chain(nodes, begin, flags), following)
        for _ in range(least):
            begin = self._chain(nodes, begin, flags)
        return begin

    def _number(self, known: list[re.Pattern[str]], node: Node, flags: int) -> int:
        """Return the number of *node* among *known*; unfolded copies share one."""
        key = (repr(node), flags)
        if key not in self._numbers:
            state = _parser.State()
            state.flags = flags
            self._numbers[key] = len(known)
            known.append(_compiler.compile(_parser.SubPattern(state, [node])))
        return self._numbers[key]


def _parse(pattern: str) -> Node:
    try:
        return _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError, FutureWarning) as exc:
        where = getattr(exc, "pos", None)
        # The cause would quote the pattern, and with it what a task said.
        raise ConfigError(f"the regex cannot be parsed, at character {where}") from None


def _check(nodes: Node, *, repeated: bool) -> None:
    for opcode, argument in nodes:
        if opcode in _REPEATS:
            if repeated:
                raise ConfigError("the regex has a quantifier inside a quantified group")
            _check(argument[2], repeated=True)
        elif opcode is _constants.BRANCH:
            for way in argument[1]:
                _check(way, repeated=repeated)
        elif opcode is _constants.SUBPATTERN:
            _check(argument[3], repeated=repeated)
        elif opcode not in (*_CHARS, _constants.AT):
            what = _REFUSED.get(str(opcode), "a construct outside the subset")
            raise ConfigError(f"the regex has {what}; matching it may take forever")


def _size(nodes: Node) -> int:
    return sum(_node_size(opcode, argument) for opcode, argument in nodes)


def _node_size(opcode: Any, argument: Any) -> int:
    if opcode in _REPEATS:
        least, most, body = argument
        copies = least + 1 if most is _constants.MAXREPEAT else most
        return int(copies) * max(1, _size(body))
    if opcode is _constants.BRANCH:
        return sum(_size(way) for way in argument[1]) + 1
    return _size(argument[3]) if opcode is _constants.SUBPATTERN else 1


def _longest_literal(nodes: Node) -> str:
    """Return the longest run of characters without which nothing matches, or ``""``."""
    if nodes.state.flags & re.IGNORECASE:
        return ""
    runs = [""]
    for opcode, argument in nodes:
        if opcode is _constants.LITERAL:
            runs[-1] += chr(argument)
        else:
            runs.append("")
    return max(runs, key=len)


def _remember(known: dict[Key, int], key: Key, found: int) -> None:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known[key] = found
