"""One choice of a reply on its way out, under every guard."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elision.contract import Delta, joined
from elision.errors import GuardError
from elision.middleware.holding.channels import Channels
from elision.middleware.holding.entries import Entries
from elision.middleware.holding.fields import Fields

if TYPE_CHECKING:
    from elision.middleware.holding.chain import Place
    from elision.middleware.holding.layers import Layers


class Voice:
    """Takes in what an upstream writes of one choice; gives out what may leave of it.

    Args:
        layers: What guards the request.
        choice: Index of the choice.
        refusal: What it says if it is refused and nothing has left.

    Raises:
        GuardError: If a guard breaks; then nothing more may leave.

    Attributes:
        is_refused: Whether it must not go on as it does.
        n_tokens: Tokens taken in, each piece of text counted as one where none are told.
    """

    def __init__(self, layers: Layers, *, choice: int = 0, refusal: str = "") -> None:
        self._layers = layers
        self._choice = choice
        self._refusal = refusal
        self._content = layers.content()
        self._channels = Channels(layers)
        self._fields = Fields(layers)
        self._entries = Entries(layers)
        self._n_redacted = 0
        self._has_spoken = False
        self._length = 0
        self._ends: list[tuple[int, int]] = []  # per piece: where it ends, its tokens
        self._is_beside = self._is_stuck = False
        self.n_tokens = 0

    @property
    def is_refused(self) -> bool:
        """Whether it must not go on as it does."""
        return self._content.is_refused or self._channels.is_refused

    @property
    def n_dropped(self) -> int:
        """Values that could not be read, or held what must not be said, and were left out."""
        return self._channels.n_dropped + self._fields.n_dropped

    @property
    def n_redacted(self) -> int:
        """Spans replaced so far."""
        return self._content.n_redacted + self._channels.n_redacted

    def take(self, delta: Delta) -> Delta | None:
        """Take in *delta*; return what may leave, None if nothing may.

        What is refused ends without ``finish``: `refuse` ends it, or `go_back` has it go on.
        """
        try:
            return self._taken(delta)
        except GuardError:
            raise
        except Exception as exc:  # whatever broke, nothing passes a broken guard
            raise GuardError(f"the hold-back broke ({type(exc).__name__})") from exc

    def stop_dead(self, delta: Delta) -> Delta | None:
        """Take in *delta*, behind which its engine found nothing acceptable to write.

        It is refused there: what is held of it is not said. Where it was writing something else
        than text, or text that is parsed, it cannot go on otherwise.
        """
        left = self.take(replace(delta, finish=None))
        if not self.is_refused:
            self._content.stop_dead()
            self._is_stuck = self._is_beside or self._layers.speaks_json
        return left

    def refuse(self) -> Delta:
        """Return the end of a choice that is refused: what was held of it is dropped."""
        text = self._content.close()
        if not text and not self._has_spoken:
            text = self._refusal
        return Delta(choice=self._choice, text=text, finish="content_filter")

    @property
    def place(self) -> Place | None:
        """Where it may go on otherwise; None if it may not."""
        if self._channels.is_refused or self._channels.has_called or self._is_stuck:
            return None
        place = self._content.place()
        return place if place.may_go_otherwise else None

    def kept(self, place: Place) -> int:
        """Return how many tokens stand before *place*; all, where spans have been redacted."""
        if self._n_redacted:
            return self.n_tokens
        whole = sum(n for end, n in self._ends if end <= len(place.written))
        inside = bool(place.written) and not any(e == len(place.written) for e, _ in self._ends)
        return min(self.n_tokens, whole + inside)

    def go_back(self, place: Place) -> int:
        """Forget what stands behind *place*; return how many tokens that were."""
        n_before, self.n_tokens = self.n_tokens, self.kept(place)
        self._content.go_back()
        self._entries.go_back(place.written)
        self._length = len(place.written)
        self._ends = [(self._length, self.n_tokens)]
        return n_before - self.n_tokens

    def _taken(self, delta: Delta) -> Delta | None:
        self._count(delta)
        text, message = self._content.feed(delta.text), dict[str, Any]()
        if delta.message and not self.is_refused:
            message = self._channels.take(delta.message)
        if delta.finish is not None and not self.is_refused:
            text += self._content.finish()
        if delta.finish is not None and not self.is_refused:
            message = joined(message, self._channels.finish())
        self._entries.take(delta.text, delta.logprobs)
        logprobs = self._entries.leave(text, is_changed=self._changed, held=self._content.held)
        out = Delta(
            choice=self._choice,
            text=text,
            message=message,
            extra=self._fields.clean(delta.extra) if delta.extra else {},
            logprobs=logprobs,
            finish=None if self.is_refused else delta.finish,
        )
        self._has_spoken = self._has_spoken or bool(out.text or out.message)
        return None if out == replace(_NOTHING, choice=self._choice) else out

    @property
    def _changed(self) -> bool:
        """Whether a span has been redacted since this was last asked."""
        earlier, self._n_redacted = self._n_redacted, self._content.n_redacted
        return self._n_redacted > earlier

    def _count(self, delta: Delta) -> None:
        n_tokens = len(delta.logprobs) or bool(delta.text or delta.message)
        if delta.text or any(value for key, value in delta.message.items() if key != "role"):
            self._is_beside = not delta.text
        self._length += len(delta.text)
        if n_tokens:
            self._ends.append((self._length, n_tokens))
            self.n_tokens += n_tokens


_NOTHING = Delta()
