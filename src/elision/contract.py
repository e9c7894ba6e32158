"""The nouns that every room speaks.

A *request* meets an *engine* under a *plan*. The plan's *recipes* open one *session* per choice;
at every position the session may change the scores, and after every token it may judge the text.
Nothing here imports a heavy package: torch is named for type checkers only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Flag, IntEnum, auto
from functools import cached_property
from math import log, nan
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    Self,
    TypeAlias,
    runtime_checkable,
)

from elision.errors import CapabilityError

if TYPE_CHECKING:
    from torch import Tensor

Finish: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls", "function_call"]
Message: TypeAlias = Mapping[str, Any]
Epoch: TypeAlias = int
"""Counts the changes of one tenant's register; whatever was compiled for an older one is stale."""


# --- What comes in -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is picked; None leaves the choice to the profile, then to the model.

    Attributes:
        temperature: Divides the scores; 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        top_k: Candidates kept; 0 keeps all.
        min_p: Least probability relative to the best token's, in [0, 1].
        top_n_sigma: Keep scores within this many standard deviations of the best; 0 keeps all.
        frequency_penalty: Subtracted once per earlier occurrence in the reply, in nats.
        presence_penalty: Subtracted if the token occurs in the reply, in nats.
        repetition_penalty: Divides (or multiplies, if negative) the scores of tokens seen, > 0.
        logit_bias: Added to single tokens' scores, in nats.
        seed: Makes the draw repeatable; None draws a fresh one per request.
        rng: ``counter`` (noise keyed by seed, choice, attempt and position) or ``torch`` (the
            stream that ``generate`` reads).
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    top_n_sigma: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    rng: Literal["counter", "torch"] = "counter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request for text, in OpenAI's terms; unknown fields are carried through untouched.

    Attributes:
        kind: ``chat`` (``messages`` count) or ``text`` (``prompt`` counts).
        model: What the caller named, as he wrote it (``ALIAS`` or ``ALIAS@PROFILE``).
        messages: The conversation.
        prompt: Raw text or token ids to continue.
        continue_final: Whether the last message is an assistant's beginning, to be continued.
        sampling: See `Sampling`.
        max_tokens: Most tokens to write per choice; None writes up to the context's end.
        stop: Texts that end a choice; they are not part of the reply.
        n: Choices wanted.
        logprobs: Alternatives to report per token; None reports no log-probabilities.
        echo: Whether a ``text`` reply begins with the prompt.
        answer: Nothing is written; this answer is scored instead, with its end token if it is
            text, as it stands if it is token ids. None writes a reply.
        timeout_s: Deadline for the whole request in seconds; None takes the engine's.
        own_words: What of a raw prompt the caller wrote, if something was put before it.
        options: The caller's ``elision`` object.
        extra: Every field that is not ours.
    """

    kind: Literal["chat", "text"] = "chat"
    model: str = ""
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] = ""
    continue_final: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
    answer: str | tuple[int, ...] | None = None
    timeout_s: float | None = None
    own_words: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def user_text(self) -> str:
        """The caller's own words: no template, no system text, no earlier replies."""
        if self.own_words is not None:
            return self.own_words
        if self.kind == "text":
            return self.prompt if isinstance(self.prompt, str) else ""
        texts = (text_of(m) for m in self.messages if m.get("role") == "user")
        return "\n".join(texts)


def text_of(message: Message) -> str:
    """Return a message's text; of a list of parts, the text parts joined."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


# --- What goes out -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have stood at a position.

    Attributes:
        token: Its text.
        logprob: Its log-probability in nats, after masks and before temperature.
        data: Its bytes.
    """

    token: str
    logprob: float
    data: bytes


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The token that was written at a position, and what could have stood there instead.

    Attributes:
        token: Its text.
        logprob: Its log-probability in nats, after masks and before temperature; ``-inf`` for a
            given token that the guard would not have let through, NaN for a prompt's first.
        data: Its bytes.
        top: The likeliest tokens of its place, best first.
        plain: Of a token that was given, not written: its log-probability under the model alone.
    """

    token: str
    logprob: float
    data: bytes
    top: tuple[Alternative, ...] = ()
    plain: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTrace:
    """What happened where a token was written: between the model's own scores and the reported.

    *Before* is the model's own row, *after* the reported one: behind masks and shaping, before
    temperature and truncation, as in `TokenLogprob`. No other token is named. The marker of a
    redacted span has a text and no numbers: they are NaN.

    Attributes:
        token: Its text.
        acted: The recipes that changed the scores, by class name, in order; behind the reported
            row too. One that biases or bans only where it shows (1e-4 of the probability).
        branches: The other scores that were read, in order: ``suffix``, ``prompt``, ``model``.
        entropy_before: In nats.
        entropy_after: Likewise.
        kl: Divergence of the reported from the model's distribution, KL(after || before), in nats;
            finite, because what the model rules out stays ruled out.
        prob_before: The token's probability.
        prob_after: Likewise.
        banned: Share of the model's distribution that hard masks forbade, and going back did.
    """

    token: str
    acted: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    entropy_before: float = nan
    entropy_after: float = nan
    kl: float = nan
    prob_before: float = nan
    prob_after: float = nan
    banned: float = nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens counted over the whole request; ``completion_tokens`` leaves rewound ones out.

    Attributes:
        prompt_tokens: Of the prompt.
        completion_tokens: Of all choices.
        cached_tokens: Those of the prompt whose keys and values were there already.
        extra: What else an upstream counted, under its own names: reasoning tokens and the like.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of a reply that may leave.

    Each choice ends with one delta that carries ``finish``. The request ends with one delta that
    carries ``usage`` and ``report`` and no text.

    Attributes:
        choice: Index of the choice.
        text: Text to append; final, never taken back.
        message: Further pieces of the message, in the form of OpenAI's ``delta``: ``tool_calls``,
            ``refusal``, ``reasoning_content``, whatever an upstream adds. As final as the text.
        extra: Further fields of the choice; beside ``usage``, of the whole reply.
        logprobs: One entry per token whose text has left with this or an earlier delta.
        trace: Likewise, if the plan asks for it.
        finish: Why the choice ended, on its last delta.
        usage: On the request's last delta.
        report: What ran: profile, engine, epoch, counts. Never text, never a target's name.
    """

    choice: int = 0
    text: str = ""
    message: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    logprobs: tuple[TokenLogprob, ...] = ()
    trace: tuple[TokenTrace, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One finished reply of a request; ``message`` and ``extra`` as in `Delta`, put together."""

    index: int = 0
    text: str = ""
    message: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    finish: Finish = "stop"
    logprobs: tuple[TokenLogprob, ...] = ()
    trace: tuple[TokenTrace, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole reply: every choice, the usage, what ran, and further fields of an upstream."""

    choices: tuple[Choice, ...] = ()
    usage: Usage = Usage()
    extra: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text if self.choices else ""


async def collect(deltas: AsyncIterator[Delta]) -> Completion:
    """Drain *deltas* into the completion that they spell.

    The one way from a stream to a whole reply, so that both always read the same.
    """
    pieces: dict[int, list[Delta]] = {}
    usage, report, extra = Usage(), dict[str, Any](), dict[str, Any]()
    async for delta in deltas:
        if delta.usage is None and delta.report is None:
            pieces.setdefault(delta.choice, []).append(delta)
            continue
        usage = delta.usage or usage
        report.update(delta.report or {})
        extra.update(delta.extra)
    choices = tuple(
        _put_together(index, pieces[index])
        for index in sorted(pieces)
        if any(delta.finish is not None for delta in pieces[index])
    )
    return Completion(choices=choices, usage=usage, report=report, extra=extra)


def _put_together(index: int, deltas: Sequence[Delta]) -> Choice:
    message: Mapping[str, Any] = {}
    extra: Mapping[str, Any] = {}
    for delta in deltas:
        message = joined(message, delta.message) if delta.message else message
        extra = _gathered(extra, delta.extra) if delta.extra else extra
    return Choice(
        index=index,
        text="".join(delta.text for delta in deltas),
        message=message,
        extra=extra,
        finish=next(d.finish for d in reversed(deltas) if d.finish is not None),
        logprobs=tuple(item for delta in deltas for item in delta.logprobs),
        trace=tuple(entry for delta in deltas for entry in delta.trace),
    )


def _gathered(extra: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice's further fields: lists, such as token ids, go on; else the newer counts."""
    found = dict(extra)
    for key, new in more.items():
        old = found.get(key)
        if isinstance(old, list | tuple) and isinstance(new, list | tuple):
            found[key] = [*old, *new]
        elif new is not None or old is None:
            found[key] = new
    return found


_WHOLE = frozenset({"id", "index", "role", "type"})
"""Strings and numbers of a message's pieces that are said whole, and may be said again."""


def joined(message: Mapping[str, Any], piece: Mapping[str, Any]) -> dict[str, Any]:
    """Return *message* with a further *piece* of it, as clients of OpenAI put deltas together.

    Strings are appended, objects are joined, entries of lists are matched by their ``index``, those
    of one piece too; of everything else, and of ids and types, the newer counts, unless it is null
    or an empty id. Neither argument is modified. Associative, where a key keeps its JSON type.
    """
    whole = dict(message)
    for key, value in piece.items():
        whole[key] = _joined(key, whole.get(key), value)
    return whole


def _joined(key: str, old: Any, new: Any) -> Any:
    if new is None or (new == "" and key in _WHOLE):
        return new if old is None else old
    if isinstance(new, Mapping):
        return joined(old if isinstance(old, Mapping) else {}, new)
    if isinstance(new, list | tuple):
        return _joined_lists(old if isinstance(old, list | tuple) else (), new)
    if isinstance(old, str) and isinstance(new, str) and key not in _WHOLE:
        return old + new
    return new


def _joined_lists(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    found = list(old)
    places = {_index(entry): place for place, entry in enumerate(found)}
    for entry in new:
        index = _index(entry)
        if index is None:
            found.append(entry)
        elif index in places:
            found[places[index]] = joined(found[places[index]], entry)
        else:
            places[index] = len(found)
            found.append(joined({}, entry))
    return found


def _index(entry: Any) -> int | None:
    index = entry.get("index") if isinstance(entry, Mapping) else None
    return index if isinstance(index, int) else None


# --- Who writes ----------------------------------------------------------------------------------


class Lexicon(Protocol):
    """What each token writes. Guard, hold-back and emitter share it: what is scanned is sent."""

    @property
    def texts(self) -> Sequence[str | None]:
        """The text of each token; None where its bytes are not whole characters."""
        ...

    @property
    def continuing(self) -> Sequence[int]:
        """Tokens whose first byte continues a character: only these can complete pending bytes."""
        ...

    @property
    def partial(self) -> Sequence[int]:
        """Tokens whose bytes are not whole characters by themselves."""
        ...

    def __len__(self) -> int:
        """Return how many tokens there are."""
        ...

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that *token* writes; none for special tokens and unknown ids."""
        ...

    def write(self, pending: bytes, token: int) -> tuple[str, bytes]:
        """Return what *token* adds to the text, and the bytes that still wait for a character."""
        ...

    def finish(self, pending: bytes) -> str:
        """Return the text that *pending* becomes when nothing follows it."""
        ...


class Capability(Flag):
    """What an engine can do for a method."""

    NONE = 0
    LOGITS = auto()
    """Hands out the scores of every position."""
    BRANCH = auto()
    """Runs a second context over the same cache."""
    HIDDEN = auto()
    """Hands out hidden states."""
    TREE = auto()
    """Scores a tree of drafted tokens in one forward."""
    REWIND = auto()
    """Goes back to an earlier position."""
    TOP_LOGPROBS = auto()
    """Reports the likeliest alternatives."""
    LOGIT_BIAS = auto()
    """Adds a bias to single tokens."""
    TOKEN_IDS = auto()
    """Takes and returns token ids."""
    CONTINUE = auto()
    """Continues an assistant's beginning."""
    PASSES = auto()
    """Hands on what is no text: tools, images, formats; answers with tool calls."""


class Stage(IntEnum):
    """Where in the chain a recipe acts; lower stages run first."""

    SIGNAL = 0
    MIXER = 10
    SOFT_BIAS = 20
    PENALTY = 30
    HARD_MASK = 40
    ENTROPY = 50
    TEMPERATURE = 60
    TRUNCATION = 70
    FORCED = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request made ready: what to write, under which recipes, for whom.

    Attributes:
        request: The caller's request, defaults of the profile filled in.
        recipes: In the order in which they act.
        tenant: Whose register, caches and budget apply.
        epoch: The tenant's epoch the recipes were compiled for.
        refusal: What a refused choice says if nothing of it has left yet.
        pending: Work that runs beside the prefill, such as the gate; the first token is chosen
            once all of it is done.
        decoder: ``sample``, or ``beam`` where a recipe scores whole beams.
        profile: Name of the profile; what is recycled is kept apart by it.
        speculation: Whether tokens are drafted: where it pays, never, or at every step.
        reuse: Whether it may be decoded in one forward with other requests, and on keys and values
            of earlier prompts; off where it must decode as it would alone on a fresh engine.
        trace: Whether it is told what happened at each token.
        masks: What is to be forbidden where the scores are, if that is another process.
    """

    request: Request
    recipes: tuple[Recipe, ...] = ()
    tenant: str = "default"
    epoch: Epoch = 0
    refusal: str = ""
    pending: tuple[Future[Any], ...] = ()
    decoder: Literal["sample", "beam"] = "sample"
    profile: str = "plain"
    speculation: Literal["auto", "off", "force"] = "off"
    reuse: bool = False
    trace: bool = False
    masks: Masks | None = None


class Masks(Protocol):
    """What must be forbidden, as a text that another process compiles."""

    @property
    def body(self) -> str:
        """The text; it names what must not be said."""
        ...

    @property
    def digest(self) -> str:
        """By which the receiver tells it from others; it tells nobody anything."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Writes text for a plan.

    Attributes:
        name: The model's alias, for reports and errors.
        capabilities: What a method may ask of it.
        lexicon: What its tokens write; None for engines that only speak text.
    """

    name: str
    capabilities: Capability
    lexicon: Lexicon | None

    def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """Yield the reply piece by piece.

        Closing the iterator ends the request and frees what it held within one step.

        Raises:
            BusyError: If the queue is full; nothing has been yielded then.
            RequestError: If this engine cannot serve the request; likewise.
            EngineError: If the engine breaks on the way.
        """
        ...

    async def aclose(self) -> None:
        """End all requests and free the model. Idempotent."""
        ...


@runtime_checkable
class Probing(Protocol):
    """An engine that has to ask somebody what it can do."""

    async def probe(self) -> Capability:
        """Ask once, and set and return `Engine.capabilities`; cheap from the second call on.

        Never raises for an upstream that does not answer: nothing beyond text is offered then, and
        the next call asks again.
        """
        ...


@runtime_checkable
class Carrying(Protocol):
    """An engine that speaks text, and has recipes and masks act where its scores are.

    A choice that it ends with ``content_filter`` has come to where nothing acceptable was left.
    """

    def carries(self, recipe: Recipe) -> bool:
        """Return whether *recipe* may stand in a plan for it; masks may."""
        ...


# --- What acts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Suffix:
    """Other scores for a position: behind the same prefix and *ids*, which are then forgotten."""

    ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class OtherPrompt:
    """Other scores for a position: behind the prompt *ids* and the same reply."""

    ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class OtherModel:
    """Other scores for a position: those of an assistant model behind the same prefix."""

    name: str


BranchKey: TypeAlias = Suffix | OtherPrompt | OtherModel


class Reader(Protocol):
    """What a recipe may have its engine make of text when it opens a session."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Return *text* as tokens, none added in front or behind."""
        ...

    def prompt_after(self, change: Callable[[Request], Request]) -> tuple[int, ...]:
        """Return the prompt as it would be rendered of the request after *change*.

        Raises:
            RequestError: If the changed request has no prompt.
        """
        ...

    def entropy_exceeded(self, share: float) -> float:
        """Return the entropy, in nats, that the model exceeds at *share* of a text's positions."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a recipe may see when it opens a session.

    Attributes:
        prompt_ids: The rendered prompt.
        before: The text that the reply continues: the assistant's prefill in a chat, the prompt
            of a raw completion. Never template text.
        user_text: The caller's own words.
        lexicon: What each token writes.
        vocab_size: Scores per row.
        eos: Tokens that end a reply.
        tenant: Whose request this is.
        epoch: The tenant's epoch.
        choice: Index of the choice this session serves.
        seed: Keys what a recipe draws for itself; None where the caller gave none.
        capabilities: What the engine can do.
        assistants: Names of the other models that the engine can ask.
        reader: Makes tokens of text; None where only tokens are known.
    """

    lexicon: Lexicon
    vocab_size: int
    prompt_ids: tuple[int, ...] = ()
    before: str = ""
    user_text: str = ""
    eos: frozenset[int] = frozenset()
    tenant: str = "default"
    epoch: Epoch = 0
    choice: int = 0
    seed: int | None = None
    capabilities: Capability = Capability.LOGITS
    assistants: frozenset[str] = frozenset()
    reader: Reader | None = None


class Here:
    """One visited position: what the chain may ask about it. Lives for one walk through the chain.

    Attributes:
        raw: The model's own scores, shape ``(vocab,)``, untouched by any recipe.
        position: How many tokens of the reply stand before it.
        notes: What the recipes noted; kept only if a token is committed here.
        read: The branches that they read, in order; one that several read stands there as often.
    """

    def __init__(
        self,
        raw: Tensor,
        *,
        position: int = 0,
        branch: Callable[[BranchKey], Tensor] | None = None,
    ) -> None:
        self.raw = raw
        self.position = position
        self.notes: dict[str, float] = {}
        self.read: list[BranchKey] = []
        self._branch = branch

    @cached_property
    def logsumexp(self) -> float:
        """Logarithm of the raw row's normaliser, in nats."""
        return float(self.raw.float().logsumexp(dim=-1))

    @cached_property
    def entropy(self) -> float:
        """Entropy of the raw row in nats; NaN if it has no distribution.

        Tokens at ``-inf`` contribute nothing.
        """
        row = self.raw.float()
        # Relative to the best score, e^-110 is 0 in float32; 0 times -inf would be NaN.
        scores = (row - row.amax()).clamp_(min=-110.0)
        weights = scores.exp()
        total = float(weights.sum())
        return log(total) - float(scores.mul_(weights).sum()) / total

    def branch(self, key: BranchKey) -> Tensor:
        """Return other scores for this position, shape ``(vocab,)``, any float type.

        Raises:
            CapabilityError: If the engine cannot run a second context.
        """
        if self._branch is None:
            raise CapabilityError("branch", engine="this engine", missing="BRANCH")
        self.read.append(key)
        return self._branch(key)

    def note(self, key: str, value: float) -> None:
        """Add *value* to what is known about this position under *key*."""
        self.notes[key] = self.notes.get(key, 0.0) + value


@dataclass(frozen=True, slots=True)
class Allow:
    """The text may go on."""


@dataclass(frozen=True, slots=True)
class Redact:
    """A span of the reply must be replaced before it leaves.

    Attributes:
        start: First character of the span, counted from the reply's beginning.
        end: One past its last character.
        marker: What stands there instead.
    """

    start: int
    end: int
    marker: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The choice must end here; text not yet released is dropped."""


REFUSE = Refuse()


@dataclass(frozen=True, slots=True)
class Rewind:
    """Go back to a position and choose otherwise there.

    Sessions are values, so whoever asks for a rewind forgets that he did: the engine counts.

    Attributes:
        to: Position, in tokens of the reply.
        bans: Tokens that must not be chosen there again.
        retries: Most times that this place is tried anew; after them, *otherwise*.
        otherwise: What to do where no way back is left: too many retries, an engine that cannot
            go back, text that has left already.
    """

    to: int
    bans: frozenset[int]
    retries: int = 8
    otherwise: Redact | Refuse = REFUSE


Verdict: TypeAlias = Allow | Redact | Rewind | Refuse

ALLOW = Allow()


class Session(Protocol):
    """One choice's memory, an immutable value: keep the old one and you can go back."""

    @property
    def held(self) -> int:
        """Characters at the end of the text that must not leave yet."""
        ...

    @property
    def verdict(self) -> Verdict:
        """What the last token, or the end of the text, calls for."""
        ...

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the scores to choose from, shape ``(vocab,)``; the same object if nothing changes.

        Never writes into *logits*, never returns NaN, keeps ``-inf`` at ``-inf``. A row in which
        everything is ``-inf`` says that no acceptable token is left.
        """
        ...

    def advance(self, token: int) -> Session:
        """Return the session after *token*."""
        ...

    def finish(self) -> Session:
        """Return the session after the end of the text."""
        ...


class Recipe(Protocol):
    """What to do, as a frozen description that any number of requests may share."""

    @property
    def stage(self) -> Stage:
        """Where in the chain it acts."""
        ...

    @property
    def rank(self) -> int:
        """Order within the stage; recipes of equal stage and rank must commute."""
        ...

    def begin(self, context: Context) -> Session:
        """Open a session for one choice."""
        ...


class Stateless:
    """Mixin for recipes without memory: the recipe is its own session."""

    __slots__ = ()

    # Not ClassVar: pyright holds that against the protocols' properties.
    rank: int = 0
    held: int = 0
    verdict: Verdict = ALLOW

    def begin(self, context: Context) -> Self:
        """Open a session for one choice."""
        return self

    def advance(self, token: int) -> Self:
        """Return the session after *token*."""
        return self

    def finish(self) -> Self:
        """Return the session after the end of the text."""
        return self


# --- What must be forgotten ----------------------------------------------------------------------


@runtime_checkable
class Screen(Protocol):
    """Says what may be written to a store and read from it."""

    def may_write(self, tenant: str, text: str) -> bool:
        """Return whether *text* may be stored for *tenant*."""
        ...

    def may_read(self, tenant: str, text: str) -> bool:
        """Return whether *text* may be shown to *tenant*."""
        ...


@runtime_checkable
class Erasable(Protocol):
    """A cache or store that can drop what it holds for a tenant."""

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop what is *tenant*'s, or what of it holds one of *texts*; return how many."""
        ...


def in_order(recipes: Iterable[Recipe]) -> tuple[Recipe, ...]:
    """Return *recipes* in the order in which they act: by stage, then by rank."""
    return tuple(sorted(recipes, key=lambda recipe: (recipe.stage, recipe.rank)))
