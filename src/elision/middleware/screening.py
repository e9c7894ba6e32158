"""What the register says of memory: what may be kept, what may be read, what a target concerns."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from elision.guards.phrases.recent import Recent

if TYPE_CHECKING:
    from elision.guards.detection.check import Checker
    from elision.guards.register.register import Register
    from elision.guards.targets import ForgetTarget
    from elision.guards.verbatim.verbatim import Verbatim

_COMPILED: Final = 64
_VERDICTS: Final = 65_536
"""Texts of which it is remembered whether they concern somebody: a check decodes them, which takes
milliseconds, and memory shows the same few again and again."""


class RegisterScreen:
    """A `Screen` over the forget register, by the targets in force at that moment.

    A text may neither be kept nor read if it holds a phrase, a name or a passage of a target, in
    any spelling that the check of whole texts knows; targets that only observe forbid nothing.
    Scopes are left aside: what one model must not say, memory must not teach another.

    Args:
        register: Where the targets are kept.
    """

    def __init__(self, register: Register) -> None:
        self._register = register
        self._kept: Recent[str, tuple[Sequence[ForgetTarget], _Reader]] = Recent(entries=_COMPILED)

    def may_write(self, tenant: str, text: str) -> bool:
        """Return whether *text* may be kept for *tenant*."""
        return not self._current(tenant).concerns(text)

    def may_read(self, tenant: str, text: str) -> bool:
        """Return whether *text* may be shown to *tenant*."""
        return not self._current(tenant).concerns(text)

    def may_leave(self, tenant: str, text: str) -> bool:
        """Return whether *text* holds no phrase and no passage; names are for detection only."""
        return not self._current(tenant).forbids(text)

    def concerned(self, tenant: str, target_id: str) -> Callable[[str], bool]:
        """Return what tells whether a text holds something of one target, in force or not.

        Raises:
            NotFoundError: If *tenant* has no such target.
        """
        return _Reader((self._register.get(tenant, target_id),)).concerns

    def _current(self, tenant: str) -> _Reader:
        active = self._register.active(tenant)
        kept = self._kept.get(tenant)
        if kept is None or kept[0] is not active:
            kept = active, _Reader([t for t in active if t.action != "observe"])
            self._kept.put(tenant, kept)
        return kept[1]


class _Reader:
    """Targets, compiled to tell whether a text concerns them.

    It remembers verdicts by keyed digests of the texts, never the texts.
    """

    def __init__(self, targets: Sequence[ForgetTarget]) -> None:
        self._targets = targets
        self._compiled: tuple[Checker, Verbatim] | None = None
        self._verdicts: Recent[bytes, bool] = Recent(entries=_VERDICTS)
        self._key = secrets.token_bytes(32)

    def concerns(self, text: str) -> bool:
        """Return whether *text* holds a phrase, a name or a passage of any of them."""
        if not self._targets:
            return False
        digest = blake2b(text.encode("utf-8", "surrogatepass"), key=self._key).digest()
        known = self._verdicts.get(digest)
        if known is None:
            known = self._finds(text)
            self._verdicts.put(digest, known)
        return known

    def forbids(self, text: str) -> bool:
        """Return whether *text* holds what must not leave: a phrase or a passage."""
        if not self._targets:
            return False
        checker, verbatim = self._readers()
        return checker.check_text(text).verdict != "allow" or verbatim.hides(text)

    def _finds(self, text: str) -> bool:
        checker, verbatim = self._readers()
        return bool(checker.check_text(text).hits) or verbatim.hides(text)

    def _readers(self) -> tuple[Checker, Verbatim]:
        if self._compiled is None:
            from elision.guards.detection.check import Checker
            from elision.guards.verbatim.verbatim import Verbatim

            in_force = [_in_force(target) for target in self._targets]
            self._compiled = Checker.compile(in_force), Verbatim.compile(in_force)
        return self._compiled


def _in_force(target: ForgetTarget) -> ForgetTarget:
    """Return *target* as if it were in force: it is asked what it would concern."""
    from elision.guards.verbatim.verbatim import brief_passages

    phrases = (*target.phrases, *brief_passages(target))
    return replace(target, state="active", action="refuse", phrases=phrases)
