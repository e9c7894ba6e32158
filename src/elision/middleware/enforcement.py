"""Everything that is compiled from a tenant's active targets, and how it comes to a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from elision.contract import Request, text_of
from elision.errors import ElisionError, GuardError
from elision.guards.carried import Carried
from elision.guards.conversation.accumulator import Accumulator
from elision.guards.detection.check import Checker
from elision.guards.detection.decoders import readings
from elision.guards.encoded.encoded import Encoded
from elision.guards.gate.views import Turn
from elision.guards.guard import Guard
from elision.guards.verbatim.verbatim import Verbatim, brief_passages
from elision.middleware.guidance import words_of

if TYPE_CHECKING:
    from elision.contract import Epoch, Lexicon
    from elision.encoders import Encoder
    from elision.guards.gate.assessment import Assessment
    from elision.guards.gate.gate import Gate
    from elision.guards.semantic.semantics import Semantics
    from elision.guards.targets import ForgetTarget


@dataclass(frozen=True, slots=True)
class Understanding:
    """What needs an encoder: the gate, and the semantic layer that it opens.

    Attributes:
        gate: See `Gate`.
        semantics: See `Semantics`.
    """

    gate: Gate
    semantics: Semantics

    def assess(self, request: Request, lexicon: Lexicon | None) -> Future[Assessment]:
        """Return, in time, how near the final prompt of *request* comes to the targets."""
        return self.gate.assess(turns_of(request, lexicon))


class Enforcement:
    """A tenant's active targets within one scope, compiled layer by layer.

    Phrases, passages and encodings are there from the beginning. The gate is compiled when the
    first request asks for it; should the encoder fail, the next request tries again.

    Attributes:
        tenant: Whose targets.
        epoch: Their epoch.
        targets: Those that hold within the scope.
        guard: The phrases.
        verbatim: The passages.
        encoded: The phrases in disguise.
    """

    def __init__(
        self,
        targets: Sequence[ForgetTarget],
        *,
        tenant: str,
        epoch: Epoch,
        encoder: Callable[[], Encoder] | None,
        previous: Enforcement | None = None,
    ) -> None:
        self.tenant = tenant
        self.epoch = epoch
        self.targets = tuple(targets)
        self.guard = Guard.compile(map(_with_brief_passages, targets), epoch=epoch)
        self.verbatim: Verbatim = Verbatim.compile(
            targets, previous=previous.verbatim if previous else None
        )
        self.encoded = Encoded.compile(targets)
        self._encoder = encoder
        self._earlier = previous._understanding if previous else None
        self._understanding: Understanding | None = None
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"Enforcement({self.guard!r})"

    @cached_property
    def accumulator(self) -> Accumulator:
        """What reads the turns of a conversation."""
        return Accumulator(self.encoded, self.epoch)

    @cached_property
    def carried(self) -> Carried | None:
        """The masks, for an engine whose scores are in another process; None if there are none."""
        return Carried.of(self.targets)

    @cached_property
    def checker(self) -> Checker:
        """The compiled check of whole texts, over all levels and decoders."""
        return Checker.compile(self.targets)

    @cached_property
    def is_understood(self) -> bool:
        """Whether any target says what it is about: then prompts are assessed."""
        return any(t.names or t.probes or t.answers for t in self.targets)

    def understanding(self) -> Understanding:
        """Return gate and semantic layer, compiled now if they are not; blocks meanwhile.

        Raises:
            GuardError: If there is no encoder, or it breaks.
        """
        with self._lock:
            if self._understanding is None:
                self._understanding = self._understand()
            return self._understanding

    def encoder(self) -> Encoder:
        """Return the sentence encoder, loaded now if nobody has asked for it.

        Raises:
            GuardError: If none is set.
        """
        if self._encoder is None:
            raise GuardError(
                "a target has names, probes or answers, and no sentence encoder is set; "
                "set one (docs/settings.md), or leave only phrases and passages in the register"
            )
        return self._encoder()

    def _understand(self) -> Understanding:
        from elision.guards.gate.gate import Gate
        from elision.guards.semantic.semantics import Semantics

        try:
            encoder = self.encoder()
            gate = Gate.compile(
                self.targets,
                encoder,
                tenant=self.tenant,
                readings=readings,
                previous=self._earlier.gate if self._earlier else None,
            )
            semantics = Semantics.compile(self.targets, encoder, tenant=self.tenant)
        except GuardError:
            raise
        except ElisionError as exc:
            raise GuardError(f"the sentence encoder is not there: {exc}") from exc
        except Exception as exc:  # whatever broke, nothing passes a broken guard
            raise GuardError(f"the gate could not be compiled ({type(exc).__name__})") from exc
        self._earlier = None
        return Understanding(gate, semantics)


def _with_brief_passages(target: ForgetTarget) -> ForgetTarget:
    """Return *target* with passages that are too short to be told by their runs as phrases."""
    brief = brief_passages(target)
    return replace(target, phrases=(*target.phrases, *brief)) if brief else target


def turns_of(request: Request, lexicon: Lexicon | None) -> tuple[Turn, ...]:
    """Return the final prompt as the gate reads it: every message, whoever it is from.

    What a request would be guided by counts as said by the user: it may be the real question.
    """
    said = [Turn("user", _text(words, lexicon)) for words in words_of(request)]
    if request.kind == "chat":
        turns = (Turn(str(m.get("role", "")), text_of(m)) for m in request.messages)
        return (*turns, *said)
    return (Turn("user", _text(request.prompt, lexicon)), *said)


def _text(prompt: str | tuple[int, ...], lexicon: Lexicon | None) -> str:
    if isinstance(prompt, str):
        return prompt
    if lexicon is None:
        raise GuardError("the gate cannot read token ids on an engine without a lexicon")
    return b"".join(map(lexicon.bytes_of, prompt)).decode("utf-8", "replace")
