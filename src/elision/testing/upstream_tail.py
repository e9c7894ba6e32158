"""The end of a text, where a stop may lie half written."""

from __future__ import annotations


class Tail:
    """Keeps back what may yet become a stop text. Lives for one choice.

    Attributes:
        held: What is kept back.
        stopped: Whether a stop text has appeared.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self.held = ""
        self.stopped = False
        self._stop = stop
        self._longest = max(map(len, stop), default=1)

    def add(self, text: str) -> str:
        """Return what may leave, now that *text* was written."""
        self.held += text
        found = [at for at in map(self.held.find, self._stop) if at >= 0]
        self.stopped = bool(found)
        end = min(found) if found else max(0, len(self.held) - self._longest + 1)
        left, self.held = self.held[:end], "" if found else self.held[end:]
        return left

    def rest(self, text: str = "") -> str:
        """Return what was kept back, and *text* behind it."""
        left, self.held = self.held + text, ""
        return left
