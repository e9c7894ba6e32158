"""A string that is said in whole pieces under one name, again and again."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Final

from elision.guards.phrases.unescape import Json, Plain, Source
from elision.middleware.holding.probe import Probe

if TYPE_CHECKING:
    from elision.middleware.holding.layers import Layers

LONGEST: Final = 20_000
"""Characters of a piece that is still read; our own bound."""
_N_SAME: Final = 4
"""Times that a piece is read behind itself. Servers that repeat a field on every chunk repeat it
more often; that many times is as much as a phrase would be spelled by."""


class Said:
    """Tells of each piece whether it may leave, by itself and behind those before it.

    Time is linear in what is read, and nothing is kept but where the guards stand.

    Args:
        layers: What guards the request.
        json: Whether the pieces are JSON source.
    """

    def __init__(self, layers: Layers, *, json: bool = False) -> None:
        self._layers = layers
        self._json = json
        self._last: str | None = None
        self._n_same = 0
        self._readings: tuple[tuple[Source, Probe], ...] = ()

    def allows(self, text: str) -> bool:
        """Return whether *text* may leave; if it may, it has been said."""
        if text == self._last and self._n_same >= _N_SAME:
            return True
        if len(text) > LONGEST:
            return False
        is_same = text == self._last
        if not (is_same or self._layers.is_clean(text, json=self._json)):
            return False
        if self._last is not None and not self._goes_on(text):
            return False
        self._n_same = self._n_same + 1 if is_same else 0
        self._last = text
        return True

    def _goes_on(self, text: str) -> bool:
        """Read *text* behind the pieces before it; return whether nothing is complete with it."""
        if not self._readings:
            sources = (Json(), Json(nested=True)) if self._json else (Plain(),)
            self._readings = tuple([(source, Probe(self._layers)) for source in sources])
            self._read(self._last or "")
        return self._read(text)

    def _read(self, text: str) -> bool:
        """Read *text* unless something is complete with it: what is left out is not said."""
        sources = [copy(source) for source, _ in self._readings]
        probes = [probe for _, probe in self._readings]
        values = ["".join([char.value for char in source.read(text)]) for source in sources]
        if not all(probe.allows(value) for probe, value in zip(probes, values, strict=True)):
            return False
        for probe, value in zip(probes, values, strict=True):
            probe.read(value)
        self._readings = tuple(zip(sources, probes, strict=True))
        return True
