"""What a server said when it was tried: its words, and the tokens that they were made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

from elision.errors import UpstreamError

_WORD: Final = re.compile(r"(?<![^\W_])[^\W\d_]{3,24}(?![^\W_])(?=.)", re.DOTALL)
"""A whole word, something behind it: what comes last may have been cut off."""
_SAID: Final = ("reasoning", "reasoning_content", "content")
"""What a chat says: with a reasoning parser all of it may be thoughts, under one name or other."""
_NOWHERE: Final = -9000.0
"""vLLM writes -9999 where JSON has no minus infinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came back.

    Attributes:
        texts: Of each choice, its thoughts among them.
        finishes: Why each ended.
        stop_reasons: The token that ended each, as vLLM tells it; None where none did.
        n_tokens: Of all choices, the ends among them; 0 where they are not counted.
        tokens: Of the first choice, by name; none where they are not told.
        tops: The likeliest tokens of their places, with log-probabilities.
    """

    texts: tuple[str, ...] = field(default=(), repr=False)
    finishes: tuple[object, ...] = ()
    stop_reasons: tuple[object, ...] = ()
    n_tokens: int = 0
    tokens: tuple[str, ...] = field(default=(), repr=False)
    tops: tuple[Mapping[str, float], ...] = field(default=(), repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether some choice ended before it said anything."""
        pairs = zip_longest(self.texts, self.finishes[: len(self.texts)])
        return any(not text and finish != "length" for text, finish in pairs)

    @property
    def stop_reason(self) -> object:
        """Of the first choice."""
        return self.stop_reasons[0] if self.stop_reasons else None

    def is_cut_short(self, stop: int | None) -> bool:
        """Return whether some choice ended by itself, and all had one token and an end on average.

        Args:
            stop: What ends choices at which nothing is left; None: an end token.
        """
        is_ended = "stop" in self.finishes if stop is None else stop in self.stop_reasons
        return is_ended and 0 < self.n_tokens <= 2 * len(self.texts)

    def tells(self, before: Tried) -> bool:
        """Return whether the alternatives hold the token that was forbidden.

        It is the one of *before* at the first place at which the two differ.
        """
        places = zip(before.tokens, self.tokens, self.tops, strict=False)
        for old, new, top in places:
            if old != new:
                return top.get(old, _NOWHERE) > _NOWHERE
        return True


def tried_of(reply: Any) -> Tried:
    """Return what a completion or a chat says.

    Raises:
        UpstreamError: If it is neither.
    """
    try:
        choices = reply["choices"]
        texts = tuple(map(_text, choices))
        finishes = tuple(one.get("finish_reason") for one in choices)
        stop_reasons = tuple(one.get("stop_reason") for one in choices)
        n_tokens = _count((reply.get("usage") or {}).get("completion_tokens"))
        rows = choices[0].get("logprobs") or {}
        tops = tuple(top or {} for top in rows.get("top_logprobs") or ())
        tokens = tuple(map(str, rows.get("tokens") or ()))
    except (KeyError, IndexError, TypeError, AttributeError):
        fault = UpstreamError("the upstream's answer to a proof is no reply")
    else:
        return Tried(
            texts=texts, finishes=finishes, stop_reasons=stop_reasons, n_tokens=n_tokens,
            tokens=tokens, tops=tops,
        )  # fmt: skip
    raise fault


def word_in(tried: Tried) -> str:
    """Return a word that it says: the longest, of several the first; empty if it says none."""
    text = tried.texts[0] if tried.texts else ""
    return max(_WORD.findall(text), key=len, default="")


def is_word_in(word: str, tried: Tried) -> bool:
    """Return whether some choice says *word*, whole, in whatever case."""
    return any(word.casefold() == found.casefold()
               for text in tried.texts for found in _WORD.findall(text))  # fmt: skip


def _text(choice: Mapping[str, Any]) -> str:
    if "message" not in choice:
        return _written(choice["text"])
    message = choice["message"]
    return "\n".join(filter(None, (_written(message.get(name)) for name in _SAID)))


def _written(said: object) -> str:
    return said if isinstance(said, str) else ""


def _count(told: object) -> int:
    return told if type(told) is int else 0
