"""Judges what a model has written so far, for a gateway that sends all of it with every question.

The question does not say whether the reply goes on. So each answer serves both cases: the text as
it may leave if it ends here, and how many characters of its end could still change if it does not.
What stands before those never changes in a later answer: `Hold` lets the same text go whatever the
pieces it came in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from elision.contract import Refuse
from elision.errors import ElisionError, GuardError
from elision.middleware.gateway.guardrail.growing import Reading, forked
from elision.middleware.holding.holds import Hold, Holds

if TYPE_CHECKING:
    from elision.middleware.gateway.guardrail.asked import Leaf, Streaming
    from elision.middleware.holding.layers import Layers


@dataclass(frozen=True, slots=True)
class Judged:
    """A text as it may leave.

    Attributes:
        text: What may leave if nothing follows.
        n_held: Characters at its end that may still become something else.
        is_refused: Whether nothing may be read of it.
    """

    text: str = field(repr=False)
    n_held: int = 0
    is_refused: bool = False


REFUSED = Judged("", is_refused=True)


def judged(reading: Reading, text: str, *, streaming: Streaming, marker: str) -> Judged:
    """Return what may leave of *text*; *reading* has read it then.

    A client that drops rewritten texts on a stream would let the original pass: for such a one,
    whatever would be rewritten is refused, and so is what would be a phrase if the text ended here,
    for it has no way to wait. For any other, what would be refused only at the end is replaced by
    *marker*, and held.

    Args:
        reading: What has been read of it so far.
        text: From the reply's beginning.
        streaming: See `Streaming`.
        marker: What stands in the place of what is redacted.

    Raises:
        GuardError: If a guard breaks.
    """
    more, verdict = _guarded(reading.hold, text[len(reading.text) :])
    reading.text, reading.left = text, reading.left + more
    if isinstance(verdict, Refuse):
        return REFUSED
    rest, verdict = _guarded(reading.hold, None)
    if isinstance(verdict, Refuse):
        if streaming == "block_only":
            return REFUSED
        rest += marker
    if streaming == "block_only" and reading.left + rest != text:
        return REFUSED
    return Judged(reading.left + rest, len(rest))


def _guarded(hold: Hold, text: str | None) -> tuple[str, object]:
    """Feed *hold*, or tell how it would finish here if there is no text."""
    try:
        return forked(hold).finish() if text is None else hold.feed(text)
    except ElisionError:
        raise
    except Exception as exc:  # whatever broke, nothing passes a broken guard
        raise GuardError(f"the hold-back broke ({type(exc).__name__})") from exc


def is_clean(leaves: Iterable[Leaf], layers: Layers) -> bool:
    """Return whether every one of *leaves* may leave as it stands.

    Raises:
        GuardError: If a guard breaks.
    """
    return all(layers.is_clean(leaf.text, json=leaf.is_json) for leaf in leaves)


def opened(layers: Layers) -> Reading:
    """Return a reading of which nothing has been read; may wait for the encoder."""
    return Reading(Holds([layer.open(layers.before, json=False) for layer in layers.layers]))
