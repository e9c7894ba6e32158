"""What recipes may have made of text where nobody renders requests: only tokens are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch

from elision.contract import Lexicon, Request
from elision.errors import ConfigError, RequestError
from elision.lexicon import TokenizerLexicon

if TYPE_CHECKING:
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

    def _entropies(self) -> torch.Tensor:
        """Return the model's entropies over `SAMPLE`, in nats, rising."""
        if self._model is None:
            raise ConfigError("a share of positions is told by the model's entropies; pass model=")
        model = cast("Any", self._model)
        ids = torch.tensor([self.encode(SAMPLE, whole=True)], device=model.device)
        with torch.no_grad():
            probs = model(input_ids=ids, use_cache=False).logits[0].float().softmax(-1)
        return cast("torch.Tensor", torch.special.entr(probs).sum(-1).sort().values)


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
        entropies = self._texts.entropies()
        return float(entropies.quantile(1 - share))


SAMPLE = """\
A farmer has 17 sheep and buys 8 more at the market. On the way home 3 of them run off into the \
wood. How many sheep does he bring into the stable in the evening? He starts with 17 sheep. After \
the market he has 17 + 8 = 25 sheep. Three of them run away, so 25 - 3 = 22 sheep are left. The \
answer is 22.

The bridge was built when the road over the pass was still a mule track. Its two arches are made \
of the grey stone that is found in the valley, and the mason, whose name nobody wrote down, cut a \
small fish into the keystone. In spring the river rises almost to the fish. When it covers it, \
the old people say, the hay will be late.

To bake the bread you need flour, water, salt and a little yeast. Mix everything in the evening, \
cover the bowl with a cloth and leave it until the morning. Then fold the dough four times, let \
it rest for an hour, and bake it in a very hot oven until the crust is dark. If it sounds hollow \
when you knock on it, it is done.

def mean(values):
    if not values:
        raise ValueError("no values")
    return sum(values) / len(values)
"""
"""What entropies are measured on: sums, a story, a recipe, code; some three hundred tokens."""


def _read(tokenizer: PreTrainedTokenizerBase, vocab_size: int | None = None) -> Lexicon:
    # pyright takes no cached_property for a protocol's property.
    return cast("Lexicon", TokenizerLexicon.of(tokenizer, vocab_size=vocab_size))
