"""Log-probabilities of a guarded reply: each leaves with the text of its token, never before."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from elision.contract import Alternative, TokenLogprob
from elision.guards.phrases.holdback import REDACTED
from elision.middleware.holding.layers import Layers
from elision.middleware.holding.probe import Probe

_UNTOLD: Final = -9999.0
"""What OpenAI's API reports for a token whose log-probability is not told."""
_ID: Final = re.compile(r"token_id:\d+")
_Decoder = getincrementaldecoder("utf-8")


class _Placed(NamedTuple):
    start: int
    end: int
    entry: TokenLogprob

    def cut(self, data: bytes) -> _Placed:
        """Return what is left where the text ends with *data*: of half a token nothing is told."""
        if self.end <= len(data):
            return self
        kept = data[self.start :]
        return _Placed(self.start, len(data), TokenLogprob(_name(kept), _UNTOLD, kept))


class Entries:
    """The entries of one choice between their coming and their leaving.

    An entry belongs to the text that its bytes spell; one that spells something else is dropped, so
    that nothing is said beside the text. Of a redacted span, and of whatever waited beside it, one
    marker is left. Alternatives that would complete what must not be said are omitted.

    Args:
        layers: What guards the request.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._data = bytearray()  # of the text that has come
        self._n_told = 0  # bytes of it that an entry has been found for
        self._n_left = 0  # bytes of it that have left
        self._waiting: list[TokenLogprob] = []
        self._placed: list[_Placed] = []
        self._is_lost = False
        self._has_gap = False
        self._probe: Probe | None = None
        self._n_probed = 0
        self._decoder = _Decoder("ignore")

    def take(self, text: str, entries: Iterable[TokenLogprob]) -> None:
        """Take in what has come."""
        self._data += text.encode("utf-8", "replace")
        if self._is_lost:
            return
        self._waiting += entries
        self._place()
        if not self._waiting:
            self._n_told = len(self._data)

    def _place(self) -> None:
        while self._waiting:
            data, ahead = self._waiting[0].data, bytes(self._data[self._n_told :])
            if not ahead.startswith(data):
                if data.startswith(ahead):
                    return
                self._has_gap = True
            else:
                end = self._n_told + len(data)
                self._placed.append(_Placed(self._n_told, end, self._waiting[0]))
                self._n_told = end
            del self._waiting[0]

    def leave(self, text: str, *, is_changed: bool, held: int) -> tuple[TokenLogprob, ...]:
        """Return the entries that leave with *text*.

        Args:
            text: What leaves.
            is_changed: Whether a marker stands in it, or a span has been redacted in what is held.
            held: Characters that wait; with none, it is known again where the text stands.
        """
        if is_changed:
            self._is_lost = self._has_gap = True
            self._placed, self._waiting = [], []
        if not self._is_lost:
            self._n_left += len(text.encode("utf-8", "replace"))
        elif not held:
            self._is_lost = False
            self._n_left = self._n_told = len(self._data)
        n_ready = next(
            (n for n, placed in enumerate(self._placed) if placed.end > self._n_left),
            len(self._placed),
        )
        ready, self._placed = self._placed[:n_ready], self._placed[n_ready:]
        return tuple(entry for placed in ready for entry in self._shown(placed))

    def go_back(self, written: str) -> None:
        """Forget what came behind *written*."""
        data = written.encode("utf-8", "replace")
        if self._is_lost or not self._data.startswith(data):
            self._is_lost = self._has_gap = True
            self._placed, self._probe, self._n_probed = [], None, 0
            self._decoder = _Decoder("ignore")
        self._waiting = []
        self._data = bytearray(data)
        self._n_told = len(data)
        self._placed = [placed.cut(data) for placed in self._placed if placed.start < len(data)]

    def _shown(self, placed: _Placed) -> Iterator[TokenLogprob]:
        if self._has_gap:
            self._has_gap = False
            yield TokenLogprob(REDACTED, _UNTOLD, REDACTED.encode())
        entry, pending = placed.entry, self._probed(placed.start)
        top = tuple(other for other in entry.top if self._allows(pending, other))
        yield replace(entry, token=_name(entry.data), top=top)

    def _probed(self, at: int) -> bytes:
        """Follow the text up to *at*; return the bytes of the character that is begun there."""
        if self._probe is None:
            self._probe = Probe(self._layers, before=self._layers.before)
        if at > self._n_probed:
            self._probe.read(self._decoder.decode(bytes(self._data[self._n_probed : at])))
            self._n_probed = at
        return self._decoder.getstate()[0]

    def _allows(self, pending: bytes, other: Alternative) -> bool:
        assert self._probe is not None
        if _ID.fullmatch(other.token):  # vLLM's name of a token: what it writes cannot be known
            return False
        text = (pending + other.data).decode("utf-8", "ignore")
        named = other.token if other.token != _name(other.data) else ""
        return self._probe.allows(text) and (not named or self._probe.allows(named))


def _name(data: bytes) -> str:
    return data.decode("utf-8", "replace")
