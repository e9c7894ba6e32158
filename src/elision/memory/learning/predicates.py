"""Conditions over the facts of a task, parsed once to a small tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from operator import ge, gt, le, lt
from typing import Final, NamedTuple, TypeAlias

from elision.errors import ConfigError

Value: TypeAlias = str | float | bool
Facts: TypeAlias = Mapping[str, Value]
"""What triage found out about a task; a tag is a fact whose value is True."""

_ORDERS: Final = {"<": lt, "<=": le, ">": gt, ">=": ge}
_RESERVED: Final = frozenset({"and", "or", "not", "in", "true", "false"})
_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<op>==|!=|<=|>=|<|>)
    | (?P<mark>[()\[\],])
    | (?P<text>"(?:[^"\\]|\\["\\])*"|'(?:[^'\\]|\\['\\])*')
    | (?P<number>[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
    | (?P<name>[A-Za-z_][A-Za-z0-9_.:-]*)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Name:
    """A fact on its own: holds if known and neither False, 0 nor empty."""

    name: str = field(repr=False)

    def holds(self, facts: Facts) -> bool:
        """Return whether the fact is there and true."""
        return bool(facts.get(self.name, False))

    def names(self) -> Iterator[str]:
        """Yield the name."""
        yield self.name


@dataclass(frozen=True, slots=True)
class Compare:
    """A fact against a literal: false if the fact is unknown, whatever the operator.

    Texts, numbers and truth values are three kinds: ``==`` between two kinds is false, ``!=`` true,
    an order false.
    """

    name: str = field(repr=False)
    op: str
    literal: Value | tuple[Value, ...] = field(repr=False)

    def holds(self, facts: Facts) -> bool:
        """Return whether the fact is known and compares so."""
        if self.name not in facts:
            return False
        fact, literal = facts[self.name], self.literal
        if isinstance(literal, tuple):
            return any(_equal(fact, one) for one in literal)
        if self.op in _ORDERS:
            return _kind(fact) is _kind(literal) and bool(_ORDERS[self.op](fact, literal))
        return _equal(fact, literal) is (self.op == "==")

    def names(self) -> Iterator[str]:
        """Yield the name."""
        yield self.name


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary of a term; so NOT of an unknown name holds."""

    term: Tree

    def holds(self, facts: Facts) -> bool:
        """Return whether the term does not hold."""
        return not self.term.holds(facts)

    def names(self) -> Iterator[str]:
        """Yield the names in the term."""
        yield from self.term.names()


@dataclass(frozen=True, slots=True)
class Both:
    """Terms joined by AND."""

    terms: tuple[Tree, ...]

    def holds(self, facts: Facts) -> bool:
        """Return whether every term holds."""
        return all(term.holds(facts) for term in self.terms)

    def names(self) -> Iterator[str]:
        """Yield the names in the terms."""
        for term in self.terms:
            yield from term.names()


@dataclass(frozen=True, slots=True)
class Either:
    """Terms joined by OR."""

    terms: tuple[Tree, ...]

    def holds(self, facts: Facts) -> bool:
        """Return whether some term holds."""
        return any(term.holds(facts) for term in self.terms)

    def names(self) -> Iterator[str]:
        """Yield the names in the terms."""
        for term in self.terms:
            yield from term.names()


Tree: TypeAlias = Name | Compare | Not | Both | Either


def parse(pattern: str) -> Tree:
    r"""Return the tree of a predicate.

    ::

        expr := term ((AND | OR) term)*          AND binds more tightly than OR
        term := NOT? (name | name op literal | "(" expr ")")
        op   := == | != | < | <= | > | >= | in   "in" takes a list: name in ["a", 2]

    A literal is a text in single or double quotes (``\\`` before a quote or a backslash), a number,
    ``true`` or ``false``. Reserved words are read in either case.

    Raises:
        ConfigError: If *pattern* is no predicate; says where and what was wanted, never what was
            found there.
    """
    parser = _Parser(pattern)
    tree = parser.expr()
    parser.expect("end")
    return tree


def n_unknown(tree: Tree, facts: Facts) -> int:
    """Return how many different names of *tree* are not among *facts*: each of them is False."""
    return len(set(tree.names()) - facts.keys())


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class _Parser:
    """Recursive descent over the tokens of one predicate."""

    def __init__(self, pattern: str) -> None:
        self._tokens = list(_tokens(pattern))
        self._at = 0

    def expr(self) -> Tree:
        terms = [self._conjunction()]
        while self._take("or"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else Either(tuple(terms))

    def expect(self, kind: str) -> _Token:
        token = self._take(kind)
        if token is None:
            at = self._tokens[self._at].at
            raise ConfigError(f"the predicate wants {kind!r} at character {at}")
        return token

    def _conjunction(self) -> Tree:
        terms = [self._term()]
        while self._take("and"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else Both(tuple(terms))

    def _term(self) -> Tree:
        if self._take("not"):
            return Not(self._plain())
        return self._plain()

    def _plain(self) -> Tree:
        if self._take("("):
            tree = self.expr()
            self.expect(")")
            return tree
        name = self.expect("name").text
        if op := self._take("op"):
            return Compare(name, op.text, self._literal())
        return Compare(name, "in", self._list()) if self._take("in") else Name(name)

    def _list(self) -> tuple[Value, ...]:
        self.expect("[")
        found = [self._literal()]
        while self._take(","):
            found.append(self._literal())
        self.expect("]")
        return tuple(found)

    def _literal(self) -> Value:
        if token := self._take("text"):
            return re.sub(r"\\(.)", r"\1", token.text[1:-1])
        if token := self._take("true") or self._take("false"):
            return token.kind == "true"
        token = self.expect("number")
        if not isfinite(number := float(token.text)):
            raise ConfigError(f"the predicate's number at character {token.at} is too large")
        return number

    def _take(self, kind: str) -> _Token | None:
        token = self._tokens[self._at]
        if token.kind != kind:
            return None
        self._at += kind != "end"
        return token


def _tokens(pattern: str) -> Iterator[_Token]:
    at, end = 0, len(pattern.rstrip())
    while at < end:
        found = _TOKEN.match(pattern, at)
        if found is None:
            raise ConfigError(f"the predicate cannot be read at character {at}")
        kind = found.lastgroup or ""
        text = found[kind]
        if kind == "mark" or (kind == "name" and text.lower() in _RESERVED):
            kind = text.lower()
        yield _Token(kind, text, found.start(found.lastgroup or 0))
        at = found.end()
    yield _Token("end", "", end)


def _equal(fact: Value, literal: Value) -> bool:
    return _kind(fact) is _kind(literal) and fact == literal


def _kind(value: Value) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
