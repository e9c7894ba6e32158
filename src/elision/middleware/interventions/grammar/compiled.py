"""Grammars compiled for a vocabulary, kept for the next request."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakKeyDictionary

from elision.errors import MissingExtraError
from elision.middleware.interventions.grammar.source import unforced

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    from elision.contract import Lexicon

N_KEPT: Final = 64
"""Compiled grammars kept per lexicon."""


class Compiler:
    """Compiles grammars for one lexicon. Safe to share between threads; made by `of`.

    Args:
        lexicon: What the tokens write. Those that write nothing can only be named by a grammar
            (``<[id]>`` in Lark).
    """

    _made: ClassVar[WeakKeyDictionary[Lexicon, Compiler]] = WeakKeyDictionary()
    _making: ClassVar[Lock] = Lock()

    def __init__(self, lexicon: Lexicon) -> None:
        self._tokenizer = _tokenizer(lexicon)
        self._n_tokens = len(lexicon)
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def of(cls, lexicon: Lexicon) -> Compiler:
        """Return the compiler for *lexicon*, made at the first call and kept as long as that is.

        The first call takes a tenth of a second for 50,000 tokens.

        Raises:
            MissingExtraError: If llguidance is not installed.
        """
        with cls._making:
            if (known := cls._made.get(lexicon)) is None:
                known = cls._made[lexicon] = cls(lexicon)
            return known

    def knows(self, source: str) -> bool:
        """Return whether *source* is kept: its next matcher takes no compiling."""
        with self._lock:
            return source in self._kept

    def matcher(self, source: str, *, keeps: bool = True) -> LLMatcher:
        """Return a matcher of *source* at its beginning; it is the caller's own.

        One that could not be compiled is in its error state, and is not kept.

        Args:
            source: See `Grammar`.
            keeps: Whether it is kept for the next who asks.
        """
        with self._lock:
            if (known := self._kept.get(source)) is not None:
                self._kept.move_to_end(source)
                return known.deep_copy()
        made = self._compile(source)
        if keeps and not made.is_error():
            with self._lock:
                self._kept[source] = made.deep_copy()
                if len(self._kept) > N_KEPT:
                    self._kept.popitem(last=False)
        return made

    def read(self, matcher: LLMatcher, text: str) -> bool:
        """Have *matcher* read *text*, in place; return whether the grammar has such a beginning."""
        tokens = self._tokenizer.greedy_tokenize(text)
        whole = self._tokenizer.decode_bytes(tokens) == text.encode()
        return whole and matcher.try_consume_tokens(tokens) == len(tokens)

    def _compile(self, source: str) -> LLMatcher:
        from llguidance import LLMatcher

        return LLMatcher(self._tokenizer, unforced(source), log_level=0, limits=_limits())


def _limits() -> LLParserLimits:
    """Return what compiling and every step may cost; what gets round them `check` refuses."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        max_grammar_size=200_000,
        max_lexer_states=50_000,
        max_items_in_row=8_000,
        verbose_errors=False,
    )


def _tokenizer(lexicon: Lexicon) -> LLTokenizer:
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError as exc:
        raise MissingExtraError("llguidance", extra="local") from exc
    # One token more than there are stands for the end, whatever ends replies here.
    wrapper = TokenizerWrapper(_Vocabulary(lexicon))
    return LLTokenizer(wrapper, n_vocab=len(lexicon) + 1, eos_token=len(lexicon))


class _Vocabulary:
    """A lexicon as llguidance asks for one."""

    bos_token_id = None

    def __init__(self, lexicon: Lexicon) -> None:
        written = [lexicon.bytes_of(token) for token in range(len(lexicon))]
        self.eos_token_id = len(written)
        self.special_token_ids = [*(t for t, data in enumerate(written) if not data), len(written)]
        self.tokens = [data or b"<|%d|>" % token for token, data in enumerate([*written, b""])]

    def __call__(self, text: Any) -> list[int]:
        """Never asked: nothing is forced."""
        raise NotImplementedError
