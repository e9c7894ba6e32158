"""When an entry applies to a task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal, TypeAlias, get_args
from unicodedata import category

from elision.errors import ConfigError
from elision.memory.learning.predicates import Facts, Tree, n_unknown, parse
from elision.memory.learning.regex import Regex

CueType: TypeAlias = Literal["keyword", "regex", "predicate", "semantic"]

LONGEST_PATTERN: Final = 150
"""Characters of a pattern."""
LONGEST_READ: Final = 20_000
"""Characters of a text that a regex reads."""
LEAST_SIMILAR: Final = 0.35
"""Cosine from which a semantic cue fires, for encoders of the MiniLM class."""
_BETWEEN: Final = "\n"  # a token holds no white space
_ASCII_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
_JOINERS: Final = "\u200c\u200d\u00ad"


@dataclass(frozen=True, slots=True)
class Reading:
    """A text made ready to be compared with many cues; made by `read`.

    Attributes:
        text: What a regex reads: the first `LONGEST_READ` characters.
        tokens: What a keyword reads: all case-folded words and marks, one a line.
    """

    text: str = field(repr=False)
    tokens: str = field(repr=False)


def read(text: str) -> Reading:
    """Return *text* made ready: task, step and observations; never a prompt, never memory.

    Read once and compare with every cue of a scope: it costs more than the comparison.
    """
    return Reading(text[:LONGEST_READ], _framed(_tokens(text.casefold())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """What must be seen in a task for an entry to apply. Checked and compiled when made.

    Attributes:
        type: What *pattern* is. ``keyword``: words to be found in this order side by side, case
            folded, never inside a word. ``regex``: a pattern of the subset of `Regex`.
            ``predicate``: a condition over the facts, see `predicates.parse`. ``semantic``: a
            description; the cosine is handed in.
        pattern: At most `LONGEST_PATTERN` characters.
        min_sim: Cosine from which a semantic cue fires, in [-1, 1].

    Raises:
        ConfigError: If the type is unknown, the pattern is empty, too long, or not of its type, or
            ``min_sim`` is no cosine. The message holds no part of the pattern.
    """

    type: CueType
    pattern: str = field(repr=False)  # written from what a task said
    min_sim: float = LEAST_SIMILAR
    _regex: Regex | None = field(init=False, repr=False, compare=False, default=None)
    _tree: Tree | None = field(init=False, repr=False, compare=False, default=None)
    _phrase: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        self._check()
        if self.type == "regex":
            object.__setattr__(self, "_regex", Regex(self.pattern))
        elif self.type == "predicate":
            object.__setattr__(self, "_tree", parse(self.pattern))
        elif self.type == "keyword":
            object.__setattr__(self, "_phrase", _framed(_tokens(self.pattern.casefold())))

    def _check(self) -> None:
        if self.type not in get_args(CueType):
            raise ConfigError(f"a cue is one of {', '.join(get_args(CueType))}")
        if not self.pattern.strip():
            raise ConfigError(f"the {self.type} cue has an empty pattern")
        if (n := len(self.pattern)) > LONGEST_PATTERN:
            raise ConfigError(f"the cue has {n} characters, more than {LONGEST_PATTERN}")
        if not -1 <= self.min_sim <= 1:
            raise ConfigError(f"min_sim is {self.min_sim}, not a cosine in [-1, 1]")

    def matches(self, text: str | Reading, facts: Facts, similarity: float | None = None) -> bool:
        """Return whether the cue fires.

        Args:
            text: Task text, step text and tool observations so far; a `Reading` of them saves time.
                Never the system prompt, never injected memory: an entry would call itself.
            facts: What triage found; a tag is a fact that is True.
            similarity: Cosine of task and entry; a semantic cue never fires without it.
        """
        if self.type == "semantic":
            return similarity is not None and similarity >= self.min_sim
        if self._tree is not None:
            return self._tree.holds(facts)
        reading = read(text) if isinstance(text, str) else text
        if self._regex is not None:
            return self._regex.search(reading.text)
        return self._phrase in reading.tokens

    def n_unknown(self, facts: Facts) -> int:
        """Return how many names of a predicate *facts* lacks; 0 for every other cue."""
        return 0 if self._tree is None else n_unknown(self._tree, facts)


def _framed(tokens: Iterator[str]) -> str:
    return _BETWEEN + "".join(token + _BETWEEN for token in tokens)


def _tokens(text: str) -> Iterator[str]:
    """Yield words whole and every other mark by itself."""
    if text.isascii():
        yield from _ASCII_TOKEN.findall(text)
        return
    for kind, run in groupby(text, _kind):
        if kind == "word":
            yield "".join(run)
        elif kind == "mark":
            yield from run


def _kind(char: str) -> Literal["word", "space", "mark"]:
    # A vowel sign or an accent is no letter to `re`, yet it ends no word.
    if char.isalnum() or char == "_" or category(char)[0] == "M" or char in _JOINERS:
        return "word"
    return "space" if char.isspace() else "mark"
