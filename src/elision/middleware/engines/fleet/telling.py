"""What becomes of a server, said in the log once per change."""

from __future__ import annotations

import logging
from typing import Final

from elision.errors import ElisionError
from elision.middleware.engines.fleet.known import Proof

_log = logging.getLogger(__name__)

_FIT: Final = "masks were seen to act there"


class Telling:
    """Says in the log how a server is, when that changes. Nothing of what anybody said.

    Args:
        base_url: Which; it holds no key.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._said = _FIT

    def away(self, exc: ElisionError | None) -> None:
        """Say that it does not answer, and by what that was seen."""
        self._say("it does not answer", f" ({type(exc).__name__})" if exc is not None else "")

    def here(self, proof: Proof | None) -> None:
        """Say that it answers, and what it was seen to do; None: that it must be tried first."""
        if proof is None:
            self._say("it answers again, and must prove itself")
        else:
            self._say(_FIT if proof.acts else f"it takes no guarded requests: {proof.why}")

    def _say(self, state: str, why: str = "") -> None:
        if state != self._said:
            self._said = state
            _log.warning("vLLM server %s: %s%s", self._base_url, state, why)
