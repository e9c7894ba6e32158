"""Finished texts of an agent, judged by the forget register."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from elision.errors import GuardError
from elision.guards.detection.check import Checker, CheckHit
from elision.guards.phrases.holdback import REDACTED
from elision.guards.targets import ForgetTarget

Verdict: TypeAlias = Literal["allow", "redact", "refuse"]

_ROUNDS: Final = 8
"""How often a text is gone through to redact it: a check names the first places of each phrase."""


class GuardClient(Protocol):
    """Whose register holds: what ``elision.load`` and ``elision.connect`` return."""

    def targets(self) -> tuple[ForgetTarget, ...]:
        """Return the targets in force."""
        ...

    def may_say(self, text: str) -> bool:
        """Return whether *text* holds no phrase and no passage of a target in force."""
        ...


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a text.

    Attributes:
        verdict: ``redact`` is allowed once changed.
        text: What may be read in its place; empty if nothing may.
    """

    verdict: Verdict
    text: str = field(repr=False)


class TextGuard:
    """Judges finished texts by the targets in force at that moment; thread-safe.

    Scopes are left aside: what one model must not say, no tool of an agent is told. A text that
    cannot be read to its end is refused while anything is registered.

    Args:
        client: Whose register holds.
    """

    def __init__(self, client: GuardClient) -> None:
        self._client = client
        self._compiled: tuple[tuple[ForgetTarget, ...], Checker] | None = None

    def judge(self, text: str) -> Ruling:
        """Return what becomes of *text*: found phrases are cut out where their targets allow it.

        ``redact`` and ``restrict`` do: nobody can have a tool say it otherwise. ``refuse`` does
        not, nor do passages that are repeated word for word.

        Raises:
            GuardError: If the check breaks.
        """
        try:
            return self._judged(text)
        # Whatever breaks here, the text does not go on; the cause may quote it, so it is dropped.
        except Exception as error:
            raise GuardError(f"the check of an agent broke ({type(error).__name__})") from None

    def _judged(self, text: str) -> Ruling:
        checker = self._checker()
        if checker is None or not text:
            return Ruling("allow", text)
        left = text
        for _ in range(_ROUNDS):
            found = checker.check_text(left)
            if not found.covered or found.verdict == "refuse":
                return Ruling("refuse", "")
            if found.verdict == "allow":
                return self._passages(text, left)
            left = _cut(left, [hit for hit in found.hits if hit.what == "phrase"])
        return Ruling("refuse", "")

    def may_pass(self, texts: Iterable[str]) -> bool:
        """Return whether all of *texts* may pass as they stand."""
        return all(self.judge(text).verdict == "allow" for text in texts)

    def _passages(self, text: str, left: str) -> Ruling:
        if not self._client.may_say(left):
            return Ruling("refuse", "")
        return Ruling("allow" if left == text else "redact", left)

    def _checker(self) -> Checker | None:
        """Return the check of all that is in force; None if nothing is."""
        targets = self._client.targets()
        if all(target.action == "observe" for target in targets):
            return None
        if self._compiled is None or self._compiled[0] != targets:
            self._compiled = targets, Checker.compile(targets)
        return self._compiled[1]


def _cut(text: str, hits: Sequence[CheckHit]) -> str:
    """Return *text* with the spans of *hits* replaced by the marker, touching ones by one."""
    pieces: list[str] = []
    end = 0
    for hit in sorted(hits, key=lambda hit: hit.start):
        if hit.start >= end:
            pieces += [text[end : hit.start], REDACTED]
        end = max(end, hit.end)
    return "".join([*pieces, text[end:]])
