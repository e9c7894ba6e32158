"""What a scripted upstream says: given words, or the tokens of a model that decodes for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import count, zip_longest
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from elision.contract import Request
from elision.testing.upstream_tail import Tail

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import DynamicCache

    from elision.middleware.engines.causal import CausalModel

Piece: TypeAlias = "str | Mapping[str, Any]"
"""Some text, or a delta of OpenAI's wire; ``finish_reason`` in it ends the choice."""
Words: TypeAlias = "str | Sequence[Piece]"
Reply: TypeAlias = "Words | Callable[[Mapping[str, Any]], Words]"
Adjust: TypeAlias = "Callable[[Tensor, list[int], Callable[[tuple[int, ...]], Tensor]], Tensor]"
"""Given a row, the reply's tokens, and what gives the scores behind more, returns the new row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What of a body the upstream's dialect honours.

    Attributes:
        body: The body itself, for replies that are functions of it.
        chat: Whether messages are to be answered, not a prompt continued.
        continues: Whether the last message is the reply's beginning.
        n: Choices.
        max_tokens: Most tokens, or given pieces, per choice.
        stop: Texts that end a choice.
        temperature: Divides the scores.
        seed: Of the draw.
        bias: Added to single tokens' scores.
        bad_words: Texts whose last token is banned behind the others.
        n_top: Alternatives per token; None tells no log-probabilities.
        raw: Whether these are the model's own, before the bias.
        ends_told: Whether the end token is among the tokens told.
        stop_ids: Tokens that end a choice.
        acting: What changes scores behind the bias, of each choice; see `upstream_plugin`.
    """

    body: Mapping[str, Any]
    chat: bool = True
    continues: bool = False
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float = 1.0
    seed: int = 0
    bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[str, ...] = ()
    n_top: int | None = None
    raw: bool = True
    ends_told: bool = False
    stop_ids: tuple[int, ...] = ()
    acting: Acting | None = None


class Acting(Protocol):
    """What changes scores between a model and its draw."""

    def open(self, prompt: tuple[int, ...]) -> Adjust:
        """Return what acts on a choice behind *prompt*."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was written or could have been: its id, its text, its bytes, its score."""

    id: int
    text: str
    data: bytes
    logprob: float
    rank: int = 0
    top: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One step of one choice."""

    choice: int = 0
    delta: Mapping[str, Any] = field(default_factory=dict)
    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    stop_reason: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """One reply: the prompt's size, its tokens if there are any, and what is said, step by step."""

    n_prompt: int
    prompt_ids: tuple[int, ...] | None
    said: Iterator[Said]


class Source(Protocol):
    """Where a reply comes from."""

    def open(self, ask: Ask) -> Speech:
        """Return the reply to *ask*; nothing of it is made before it is read."""
        ...


class Script:
    """Says given words. A piece counts as a token; there are no ids and no log-probabilities.

    Args:
        reply: The text, its pieces, or a function of the request's body that returns either.
        every: Characters per piece of a text that is one string.
    """

    def __init__(self, reply: Reply, *, every: int = 4) -> None:
        self._reply = reply
        self._every = every

    def open(self, ask: Ask) -> Speech:
        """See `Source`."""
        choices = [self._choice(ask, index) for index in range(ask.n)]
        return Speech(n_prompt=_n_words(ask), prompt_ids=None, said=_interleaved(choices))

    def _choice(self, ask: Ask, index: int) -> Iterator[Said]:
        words = self._reply(ask.body) if callable(self._reply) else self._reply
        step = self._every
        if isinstance(words, str):
            words = [words[at : at + step] for at in range(0, len(words), step)]
        tail = Tail(ask.stop)
        finish = "stop"
        for n, piece in enumerate(words):
            if n == ask.max_tokens:
                finish = "length"
                break
            delta: dict[str, Any] = {"content": piece} if isinstance(piece, str) else dict(piece)
            finish = delta.pop("finish_reason", None) or finish
            if "content" in delta:
                delta["content"] = tail.add(delta["content"] or "")
            yield Said(choice=index, delta=delta)
            if tail.stopped:
                break
        rest = {"content": tail.rest()} if tail.held else {}
        yield Said(choice=index, delta=rest, finish=finish)


class Decoding:
    """Decodes with a real model: greedy or drawn by temperature and seed, biased, banned.

    Written apart from our own engines, so that the two can be held against each other.
    """

    def __init__(self, model: CausalModel) -> None:
        self.model = model

    def open(self, ask: Ask) -> Speech:
        """See `Source`.

        Raises:
            RequestError: If the model cannot take the prompt.
        """
        ids = self.model.render(_request(ask)).ids
        choices = [self._choice(ask, ids, index) for index in range(ask.n)]
        return Speech(n_prompt=len(ids), prompt_ids=ids, said=_interleaved(choices))

    def _choice(self, ask: Ask, ids: tuple[int, ...], index: int) -> Iterator[Said]:
        lexicon, cache, tail = self.model.lexicon, self.model.new_cache(), Tail(ask.stop)
        draw = _Draw(ask, self._banned_words(ask), index)
        adjust = None if ask.acting is None else ask.acting.open(ids)
        row, pending = self.model.score(ids, cache), b""
        for n in count(1):
            scores = draw.scores(row)
            if adjust is not None:
                scores = adjust(scores, draw.written, partial(self._behind, cache))
            token = draw.pick(scores)
            said = self._told(row if ask.raw else scores, token, ask.n_top)
            is_end, is_stop = token in self.model.eos, token in ask.stop_ids
            told = (said,) if ask.ends_told or not is_end else ()
            if is_end or is_stop:
                delta = {"content": tail.rest(lexicon.finish(pending))}
                reason = token if is_stop and not is_end else None  # vLLM looks for the end first
                yield Said(
                    choice=index, delta=delta, tokens=told, finish="stop", stop_reason=reason
                )
                return
            text, pending = lexicon.write(pending, token)
            text = tail.add(text)
            finish = "stop" if tail.stopped else "length" if n == ask.max_tokens else None
            text += tail.rest(lexicon.finish(pending)) if finish == "length" else ""
            yield Said(choice=index, delta={"content": text}, tokens=told, finish=finish)
            if finish:
                return
            row = self.model.score((token,), cache)

    def _behind(self, cache: DynamicCache, more: tuple[int, ...]) -> Tensor:
        return self.model.score(more, deepcopy(cache))

    def _banned_words(self, ask: Ask) -> list[tuple[int, ...]]:
        tokenizer: Any = self.model.tokenizer
        spelt = [spelling for word in ask.bad_words for spelling in (word, f" {word}")]
        return [tuple(tokenizer(s, add_special_tokens=False)["input_ids"]) for s in spelt]

    def _told(self, row: Tensor, token: int, n_top: int | None) -> Token:
        logps = row.float().log_softmax(dim=-1)
        best, ids = logps.topk(min(n_top or 0, logps.shape[-1]))
        pairs = zip(ids.tolist(), best.tolist(), strict=True)
        top = tuple(self._named(i, v, rank) for rank, (i, v) in enumerate(pairs, 1))
        rank = int((logps > logps[token]).sum()) + 1
        return self._named(token, float(logps[token]), rank, top)

    def _named(self, token: int, logprob: float, rank: int, top: tuple[Token, ...] = ()) -> Token:
        data = self.model.lexicon.bytes_of(token)
        if not data:
            tokenizer: Any = self.model.tokenizer
            data = str(tokenizer.convert_ids_to_tokens(token) or "").encode()
        return Token(token, data.decode("utf-8", "replace"), data, logprob, rank, top)


class _Draw:
    """Picks one choice's tokens."""

    def __init__(self, ask: Ask, banned: list[tuple[int, ...]], index: int) -> None:
        import torch

        self._ask = ask
        self._banned = banned
        self.written: list[int] = []
        self._random: torch.Generator = torch.Generator().manual_seed(ask.seed * 1000 + index)

    def scores(self, row: Tensor) -> Tensor:
        scores = row.float().clone()
        for token, bias in self._ask.bias.items():
            scores[token] += bias
        for *before, last in self._banned:
            if self.written[len(self.written) - len(before) :] == before:
                scores[last] = float("-inf")
        return scores

    def pick(self, scores: Tensor) -> int:
        if self._ask.temperature == 0:
            token = int(scores.argmax())
        else:
            weights = (scores / self._ask.temperature).softmax(dim=-1)
            token = int(weights.multinomial(1, generator=self._random))
        self.written.append(token)
        return token


def _request(ask: Ask) -> Request:
    if ask.chat:
        messages = tuple(ask.body["messages"])
        return Request(messages=messages, continue_final=ask.continues, max_tokens=ask.max_tokens)
    prompt = ask.body["prompt"]
    prompt = tuple(prompt) if isinstance(prompt, list) else prompt
    return Request(kind="text", prompt=prompt, max_tokens=ask.max_tokens)


def _n_words(ask: Ask) -> int:
    """Return a prompt's size in words; a turn's frame counts as four, an open last one as three."""
    if not ask.chat:
        prompt = ask.body["prompt"]
        return len(prompt if isinstance(prompt, list) else str(prompt).split())
    messages = ask.body["messages"]
    n_words = sum(len(str(message.get("content")).split()) + 4 for message in messages)
    return n_words - 1 if ask.continues else n_words + 3


def _interleaved(choices: Sequence[Iterator[Said]]) -> Iterator[Said]:
    for steps in zip_longest(*choices):
        yield from (step for step in steps if step is not None)
