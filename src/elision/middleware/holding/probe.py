"""What must not stand behind a text, asked of many continuations of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elision.guards.encoded.reader import EncodedReader
from elision.guards.phrases.tracker import Tracker
from elision.guards.phrases.unescape import Char, Plain
from elision.guards.verbatim.mask import opening
from elision.guards.verbatim.ngrams import Tail

if TYPE_CHECKING:
    from elision.middleware.holding.layers import Layers

_NEAR: Final = 4096


class Probe:
    """Follows a text and tells whether something may be shown behind it: the tokens not chosen.

    Sees phrases, passages and encodings; its end counts as a word's end.

    Args:
        layers: What guards the request.
        before: The text before the one it follows.
    """

    def __init__(self, layers: Layers, *, before: str = "") -> None:
        rules, near = layers.rules, before[-_NEAR:]
        self._trackers = [
            Tracker(patterns, excluded=patterns.echoed(layers.user))
            for patterns in (rules.guard.masked, rules.guard.acting)
            if patterns
        ]
        sets = (rules.encoded.restricted, rules.encoded.acting) if layers.has_encodings else ()
        self._readers = [
            EncodedReader(phrases, excluded=phrases.patterns.echoed(layers.user))
            for phrases in sets
            if phrases
        ]
        self._grams = rules.verbatim.spoken
        self._tail = self._grams.read(Tail(), opening(layers.user, near))
        self._source = Plain()
        self._length = 0
        for tracker in self._trackers:
            tracker.skip(near)
        for reader in self._readers:
            reader.skip(near)

    def read(self, text: str) -> None:
        """Go on behind *text*."""
        chars = tuple(self._source.read(text))
        self._length += len(text)
        for tracker in self._trackers:
            for char in chars:
                _ = [*tracker.read(char)]
        for reader in self._readers:
            reader.read(chars)
        self._tail = self._grams.read(self._tail, text)

    def allows(self, text: str) -> bool:
        """Return whether nothing that must not be said is complete with *text*."""
        if len(self._grams) and self._grams.completes(self._tail, text):
            return False
        chars = tuple(Plain(self._length).read(text))
        return not (
            any(self._spans(tracker, chars) for tracker in self._trackers)
            or any(_decodes(reader, chars) for reader in self._readers)
        )

    def _spans(self, tracker: Tracker, chars: tuple[Char, ...]) -> bool:
        """Return whether *tracker* finds a phrase that ends in *chars*, or a word that they end."""
        fork = tracker.fork()
        spans = [span for char in chars for span in fork.read(char)]
        return any(span.end >= self._length for span in (*spans, *fork.finish()))


def _decodes(reader: EncodedReader, chars: tuple[Char, ...]) -> bool:
    fork = reader.fork()
    return bool([*fork.read(chars), *fork.finish()])
