"""What recipes may have made of text where nobody renders requests: only tokens are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from elision.contract import Lexicon, Request
from elision.errors import ConfigError, RequestError
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.hesitation import SAMPLE, entropies_along, exceeded

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Before: TypeAlias = Literal["prompt", "nothing"]


class _Unread:
    """Stands where nobody gave a lexicon; refuses to be read, so that no guard reads nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask for what they can do without
            raise AttributeError(name)
        raise ConfigError(
            "a recipe reads text, but the processor has no lexicon; pass tokenizer= or lexicon="
        )

    def __len__(self) -> int:
        return int(self.texts)


class Lexicons:
    """The lexicon, once the model's vocabulary size is known: scores may outnumber the tokens."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase | None, lexicon: Lexicon | None = None
    ) -> None:
        self._tokenizer = None if lexicon is not None else tokenizer
        self._lexicon = lexicon
        if self._tokenizer is not None:
            self._lexicon = _read(self._tokenizer)

    @property
    def known(self) -> bool:
        """Whether there is one to read."""
        return self._lexicon is not None

    def of_size(self, vocab_size: int) -> Lexicon:
        """Return the lexicon for rows of *vocab_size* scores; without one, what refuses."""
        if self._lexicon is None:
            return cast("Lexicon", _Unread())
        if self._tokenizer is not None and len(self._lexicon) < vocab_size:
            self._lexicon = _read(self._tokenizer, vocab_size)
        return self._lexicon

    def text(self, ids: Iterable[int], vocab_size: int) -> str:
        """Return what *ids* write."""
        lexicon = self.of_size(vocab_size)
        return b"".join(map(lexicon.bytes_of, ids)).decode("utf-8", "replace")


class Texts:
    """Makes the `Reader` of each prompt; one per processor.

    Args:
        tokenizer: Whose tokens these are.
        model: What entropies are measured on; None leaves them out.
        before: What prompts are: text of the user's, or a rendered chat.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None, before: Before
    ) -> None:
        self._tokenizer = cast("Any", tokenizer)
        self._model = model
        self._before = before
        self.entropies = cache(self._entropies)

    def of(self, prompt: tuple[int, ...]) -> PromptReader:
        """Return the reader of a request whose prompt is *prompt*, without padding."""
        return PromptReader(self, prompt)

    def encode(self, text: str, *, whole: bool = False) -> tuple[int, ...]:
        """Return *text*'s tokens; a *whole* prompt begins as the tokenizer begins one."""
        ids = self._tokenizer(text, add_special_tokens=whole)["input_ids"]
        return tuple(cast("list[int]", ids))

    def prompt_after(
        self, prompt: tuple[int, ...], change: Callable[[Request], Request]
    ) -> tuple[int, ...]:
        """See `PromptReader.prompt_after`."""
        is_raw = self._before == "prompt"
        text = self._tokenizer.decode(
            prompt, skip_special_tokens=is_raw, clean_up_tokenization_spaces=False
        )
        changed = change(Request(kind="text", prompt=text)).prompt
        ids = self.encode(cast("str", changed), whole=is_raw)
        if not ids or not (is_raw or self._frame(ids) == self._frame(prompt)):
            raise RequestError(
                "the changed prompt is empty"
                if not ids
                else "the prompt is a rendered chat, whose messages are not known here; render "
                "the other one yourself and give it as tokens"
            )
        return ids

    def _frame(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Return what a template leaves of itself: where it begins, and its special tokens."""
        special = {*self._tokenizer.all_special_ids}
        return (*ids[:1], *(token for token in ids[1:] if token in special))

    def _entropies(self) -> Tensor:
        if self._model is None:
            raise ConfigError("a share of positions is told by the model's entropies; pass model=")
        return entropies_along(self._model, self.encode(SAMPLE, whole=True))


class PromptReader:
    """A `Reader` for a prompt that is known as tokens."""

    def __init__(self, texts: Texts, prompt: tuple[int, ...]) -> None:
        self._texts = texts
        self._prompt = prompt

    def encode(self, text: str) -> tuple[int, ...]:
        """See `Reader.encode`."""
        return self._texts.encode(text)

    def prompt_after(self, change: Callable[[Request], Request]) -> tuple[int, ...]:
        """Return the prompt after *change*, as tokens.

        Raises:
            RequestError: If nothing is left, or if the prompt is a rendered chat and *change*
                does not leave its template as it stands: only text within it can be taken out.
        """
        return self._texts.prompt_after(self._prompt, change)

    def entropy_exceeded(self, share: float) -> float:
        """See `Reader.entropy_exceeded`; measured when first asked for, on `SAMPLE`."""
        return exceeded(self._texts.entropies(), share)


def _read(tokenizer: PreTrainedTokenizerBase, vocab_size: int | None = None) -> Lexicon:
    # pyright takes no cached_property for a protocol's property.
    return cast("Lexicon", TokenizerLexicon.of(tokenizer, vocab_size=vocab_size))
