"""Everything that guards one request on an engine that only speaks text, in the order of asking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from elision.contract import Refuse, Request, text_of
from elision.guards.conversation.hold import AccumulatedHold
from elision.guards.encoded.hold import EncodedHold
from elision.guards.encoded.reader import EncodedReader
from elision.guards.phrases.unescape import Plain
from elision.guards.semantic.hold import SentenceHold
from elision.guards.verbatim.hold import VerbatimHold
from elision.guards.verbatim.mask import opening
from elision.middleware.holding.chain import Chain
from elision.middleware.holding.holds import Hold, Shut
from elision.middleware.holding.unescaped import Unescaped
from elision.middleware.holding.values import InARow

if TYPE_CHECKING:
    from elision.guards.conversation.accumulator import Turns
    from elision.guards.gate.assessment import Assessment
    from elision.guards.semantic.semantics import Semantics
    from elision.middleware.enforcement import Enforcement

_NEAR: Final = 512
"""Characters before a refused span that are read to tell which target asked for what."""


class Layer(Protocol):
    """One kind of guard: opens a hold for each channel of a reply."""

    @property
    def is_masked(self) -> bool:
        """Whether a mask forbids the same where the scores are, if the engine carries masks."""
        ...

    def open(self, before: str, *, json: bool) -> Hold:
        """Return a guard for one stream of text.

        Args:
            before: The text that it continues.
            json: Whether it is JSON source.
        """
        ...

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """Return whether what was *refused* behind *before* need only be written otherwise."""
        ...


@dataclass(frozen=True, slots=True)
class Phrases:
    """The phrases as they stand."""

    rules: Enforcement
    user: str = field(repr=False)
    is_masked = True

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        return self.rules.guard.holdback(user_text=self.user, before=before, json=json)

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """See `Layer.may_go_otherwise`: the first phrase to end decides."""
        near = before[-_NEAR:]
        found = sorted(self._actions(near + refused, len(near)))
        return bool(found) and all(a == "restrict" for end, a in found if end == found[0][0])

    def _actions(self, text: str, after: int) -> Iterator[tuple[int, str]]:
        """Yield where the phrases in *text* end that end behind *after*, and what they ask for."""
        for patterns in (self.rules.guard.masked, self.rules.guard.acting):
            echoed = patterns.echoed(self.user)
            for pattern, _, end in patterns.find(text):
                action = patterns.owners[pattern.owner].action
                if end > after and pattern.owner not in echoed and action != "redact":
                    yield end, action


@dataclass(frozen=True, slots=True)
class Passages:
    """The runs of protected passages."""

    rules: Enforcement
    user: str = field(repr=False)
    is_masked = True

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        return self.rules.verbatim.hold(user_text=self.user, before=before, json=json)

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """See `Layer.may_go_otherwise`."""
        ending = self.rules.verbatim.ending
        if not len(ending):
            return True
        hold = VerbatimHold(ending, before=opening(self.user, before))
        return not _refuses(hold, refused)


@dataclass(frozen=True, slots=True)
class Encodings:
    """The phrases in other writings."""

    rules: Enforcement
    user: str = field(repr=False)
    is_masked = False

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        return EncodedHold(self.rules.encoded, user_text=self.user, before=before, json=json)

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """See `Layer.may_go_otherwise`."""
        acting = self.rules.encoded.acting
        reader = EncodedReader(acting, excluded=acting.patterns.echoed(self.user))
        reader.skip(before)
        spans = [*reader.read(Plain().read(refused)), *reader.finish()]
        return not any(span.refuse and span.end > 0 for span in spans)


@dataclass(frozen=True, slots=True)
class Turned:
    """What earlier turns have begun."""

    rules: Enforcement
    user: str = field(repr=False)
    turns: Turns = field(repr=False)
    is_masked = False

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        both = self.rules.accumulator, self.turns
        return _TurnedHold(*both, user_text=self.user, before=before)

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """See `Layer.may_go_otherwise`: which target it was is not told."""
        return all(target.action != "refuse" for target in self.rules.targets)


class _TurnedHold(AccumulatedHold):
    """The same, and tells how much it holds."""

    @property
    def held(self) -> int:
        """Raw characters that have come and not left."""
        return len(self._tail)


@dataclass(frozen=True, slots=True)
class Meaning:
    """The semantic layer. What it refuses has been said in other words already: it stays refused.

    Opening a hold and feeding it wait for the encoder.
    """

    semantics: Semantics
    assessment: Assessment
    user: str = field(repr=False)
    is_masked = False

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        both = self.semantics, self.assessment
        return SentenceHold(*both, user_text=self.user, before=before, json=json)

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """Return False."""
        return False


@dataclass(frozen=True, slots=True)
class Closed:
    """Lets nothing through."""

    is_masked = False

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        return Shut()

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """Return False."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Everything that guards one request: made once, opens as many channels as the reply has.

    Attributes:
        layers: One behind the other.
        rules: What they enforce.
        user: The caller's own words.
        before: The text that the reply's content continues.
        has_encodings: Whether phrases are followed in other writings.
        speaks_json: Whether the reply's content was asked for as JSON.
        is_json: Whether it is nothing else, so that a marker might break it: nothing is redacted.
    """

    layers: tuple[Layer, ...]
    rules: Enforcement
    user: str = field(repr=False)
    before: str = field(default="", repr=False)
    has_encodings: bool = False
    speaks_json: bool = False
    is_json: bool = False

    @property
    def waits(self) -> bool:
        """Whether a channel asks the encoder: then it is not for the event loop."""
        return any(isinstance(layer, Meaning) for layer in self.layers)

    @property
    def is_shut(self) -> bool:
        """Whether nothing at all may leave."""
        return any(isinstance(layer, Closed) for layer in self.layers)

    def content(self) -> Chain:
        """Return the guard of a choice's text."""
        layers = self._unescaping(self.layers) if self.speaks_json else self.layers
        return Chain(layers, before=self.before, json=self.is_json)

    def channel(self, *, json: bool = False, before: str = "") -> Chain:
        """Return the guard of another string of a choice, which continues *before*."""
        layers = self._unescaping(self.layers) if json else self.layers
        return Chain(layers, before=before, json=json)

    def is_clean(self, text: str, *, json: bool = False) -> bool:
        """Return whether *text* may leave as it is, whole; sentences aside."""
        kept = tuple([one for one in self.layers if not isinstance(one, Meaning | Turned)])
        chain = Chain(self._unescaping(kept) if json else kept, json=json)
        left = chain.feed(text)
        left += "" if chain.is_refused else chain.finish()
        return not chain.is_refused and left == text

    @staticmethod
    def _unescaping(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """Return *layers* and behind them those that read JSON's strings, nested ones too.

        And its values one behind the other, and its names: who is handed them may put them
        together.
        """
        deep = [Unescaped(one) for one in layers if isinstance(one, Phrases | Passages | Encodings)]
        read = [one for one in layers if isinstance(one, Phrases | Passages)]
        in_a_row = [InARow(one, names) for one in read for names in (False, True)]
        return (*layers, *deep, *in_a_row)


def asks_json(request: Request) -> bool:
    """Return whether *request* wants its answer in JSON: its caller will parse it."""
    wanted = request.extra.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    guided = ("guided_json", "json_schema", "structured_outputs")  # vLLM's, llama.cpp's
    return kind in {"json_object", "json_schema"} or any(request.extra.get(key) for key in guided)


def begun(request: Request) -> str:
    """Return the text that the reply to *request* continues."""
    if request.kind == "text":
        return request.prompt if isinstance(request.prompt, str) else ""
    if request.continue_final and request.messages:
        return text_of(request.messages[-1])
    return ""


def _refuses(hold: Hold, text: str) -> bool:

    return isinstance(hold.feed(text)[1], Refuse) or isinstance(hold.finish()[1], Refuse)
