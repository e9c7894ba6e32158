"""Several guards in a row over one string of a reply: what one lets go the next one takes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from elision.contract import ALLOW, REFUSE, Refuse, Verdict
from elision.errors import GuardError

if TYPE_CHECKING:
    from elision.middleware.holding.holds import Hold
    from elision.middleware.holding.layers import Layer


class Place(NamedTuple):
    """Where a string was refused.

    Attributes:
        before: What it continues, and what of it stands before the place.
        written: The latter alone: what the guard that refused had let go.
        refused: What that guard had taken in behind it.
        may_go_otherwise: Whether it is enough to go on otherwise from there.
    """

    before: str
    written: str
    refused: str
    may_go_otherwise: bool


class Chain:
    """Guards one string. Feed it what arrives; send on what it returns.

    The same leaves whatever the pieces. Once a guard refuses, those behind it keep what they hold:
    `close` has them let go what they may; `go_back` opens the guards anew where the refused part
    began, for a text that goes on otherwise.

    Args:
        layers: See `Layer`.
        before: The text that the string continues.
        json: Whether it is JSON source.

    Raises:
        GuardError: If a guard breaks; then nothing more may be sent.
    """

    def __init__(self, layers: Sequence[Layer], *, before: str = "", json: bool = False) -> None:
        self._links = [_Link(layer, before, json=json) for layer in layers]
        self._refuser: int | None = None
        self._is_dead = False

    @property
    def is_refused(self) -> bool:
        """Whether a guard has refused."""
        return self._refuser is not None

    @property
    def n_redacted(self) -> int:
        """Spans replaced so far."""
        return sum(link.n_redacted for link in self._links)

    @property
    def held(self) -> int:
        """Characters that wait in any of the guards."""
        return sum(link.held for link in self._links)

    def feed(self, text: str) -> str:
        """Take in *text*; return what may leave now."""
        return "" if self.is_refused else self._on(text, 0)

    def finish(self) -> str:
        """Return what may leave at the end of the string; unless it is refused there."""
        out = ""
        for n, link in enumerate(self._links):
            if self.is_refused:
                break
            rest, verdict = link.finish()
            self._note(n, verdict)
            out += self._on(rest, n + 1)
        return out

    def stop_dead(self) -> None:
        """Refuse what is held: nothing acceptable was left to write behind it.

        It goes back to where a guard first held what masks forbid too; where none holds anything,
        to the place itself.
        """
        if self._refuser is None:
            held = [n for n, link in enumerate(self._links) if link.is_masked and link.held]
            self._refuser, self._is_dead = max(held, default=0), True

    def close(self) -> str:
        """Return what may still leave once the string is refused for good."""
        if self._refuser is None:
            return ""
        out = ""
        for n in range(self._refuser + 1, len(self._links)):
            rest, verdict = self._links[n].finish()
            out += self._on(rest, n + 1)
            if isinstance(verdict, Refuse):
                break
        return out

    def place(self) -> Place:
        """Return where it was refused."""
        assert self._refuser is not None
        return self._links[self._refuser].place(is_dead=self._is_dead)

    def go_back(self) -> None:
        """Open the guards anew at `place`; those behind it go on."""
        assert self._refuser is not None
        written = self._links[self._refuser].written
        for link in self._links[: self._refuser + 1]:
            link.reopen(written)
        self._refuser, self._is_dead = None, False

    def _on(self, text: str, first: int) -> str:
        """Pass *text* through the guards from the one numbered *first* on."""
        for n in range(first, len(self._links)):
            text, verdict = self._links[n].feed(text)
            self._note(n, verdict)
        return text

    def _note(self, n: int, verdict: Verdict) -> None:
        if isinstance(verdict, Refuse):
            self._refuser = n if self._refuser is None else max(n, self._refuser)


class _Link:
    """One guard of a chain, and what has gone through it."""

    def __init__(self, layer: Layer, before: str, *, json: bool) -> None:
        self._layer = layer
        self._before = before
        self._json = json
        self._left: list[str] = []
        self._pending = ""
        self._n_earlier = 0
        self._hold = self._open(before)

    def _open(self, before: str) -> Hold:
        try:
            return self._layer.open(before, json=self._json)
        except GuardError:
            raise
        except Exception as exc:  # whatever broke, nothing passes a broken guard
            raise _broken(exc) from exc

    @property
    def written(self) -> str:
        """What it has let go."""
        return "".join(self._left)

    @property
    def is_masked(self) -> bool:
        return self._layer.is_masked

    @property
    def held(self) -> int:
        return int(getattr(self._hold, "held", 0))

    @property
    def n_redacted(self) -> int:
        return self._n_earlier + int(getattr(self._hold, "n_redacted", 0))

    def feed(self, text: str) -> tuple[str, Verdict]:
        if not text:
            return "", ALLOW
        return self._taken(text, at_end=False)

    def finish(self) -> tuple[str, Verdict]:
        return self._taken("", at_end=True)

    def _taken(self, text: str, *, at_end: bool) -> tuple[str, Verdict]:
        n_redacted = self.n_redacted
        try:
            out, verdict = self._hold.finish() if at_end else self._hold.feed(text)
        except GuardError:
            raise
        except Exception as exc:  # whatever broke, nothing passes a broken guard
            raise _broken(exc) from exc
        self._left.append(out)
        self._pending += text
        if isinstance(verdict, Refuse):
            self._pending = self._pending.removeprefix(out)
        elif self._json and self.n_redacted > n_redacted:
            return "", REFUSE
        else:
            self._pending = self._pending[max(0, len(self._pending) - self.held) :]
        return out, verdict

    def place(self, *, is_dead: bool) -> Place:
        before = self._before + self.written
        otherwise = is_dead or self._layer.may_go_otherwise(before, self._pending)
        otherwise = otherwise and not self._json
        return Place(before, self.written, self._pending, otherwise)

    def reopen(self, written: str) -> None:
        """Open the guard behind *written*, as if it had let go just that."""
        self._n_earlier = self.n_redacted
        self._left, self._pending = [written], ""
        self._hold = self._open(self._before + written)


def _broken(exc: Exception) -> GuardError:
    return GuardError(f"the hold-back broke ({type(exc).__name__})")
