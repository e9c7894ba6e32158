"""What ALU makes of a register, once an epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakKeyDictionary

from elision.agents.alu.shortlist import TargetIndex
from elision.agents.alu.substitution import Substituter
from elision.middleware.alu.decoys import Decoys

if TYPE_CHECKING:
    from elision.encoders import Encoder
    from elision.middleware.enforcement import Enforcement

Commitment: TypeAlias = Callable[[str, str, bytes], str]
"""A keyed digest by tenant, purpose and data; `Register.commitment` is one."""

PURPOSE: Final = "pseudonym"


@dataclass(frozen=True, slots=True)
class Known:
    """A tenant's targets within one scope, at one epoch, as ALU reads them.

    Attributes:
        index: To look up what a text comes near to.
        names: Hides registered names.
        decoys: To be asked about where nothing registered is.
    """

    index: TargetIndex
    names: Substituter
    decoys: Decoys


class Library:
    """Keeps what was compiled for as long as the pipeline keeps what it was compiled from.

    Args:
        commitment: Keys the invented names.
        encoder: Returns the sentence encoder; None if there is none.
    """

    def __init__(
        self, commitment: Commitment, encoder: Callable[[], Encoder] | None = None
    ) -> None:
        self.encoder = encoder
        self._commitment = commitment
        self._kept: WeakKeyDictionary[Enforcement, Known] = WeakKeyDictionary()
        self._locks: WeakKeyDictionary[Enforcement, Lock] = WeakKeyDictionary()
        self._lock = Lock()

    def of(self, rules: Enforcement) -> Known:
        """Return what belongs to *rules*, compiled now if it is not; blocks meanwhile.

        Raises:
            GuardError: If the encoder breaks; the next request tries again.
        """
        with self._lock:
            lock = self._locks.setdefault(rules, Lock())
        with lock:
            if (found := self._kept.get(rules)) is not None:
                return found
            made = self._compiled(rules)
            with self._lock:
                self._kept[rules] = made
            return made

    def drop(self, tenant: str) -> int:
        """Forget what was compiled for *tenant*; return how many scopes that were."""
        with self._lock:
            gone = [rules for rules in self._kept if rules.tenant == tenant]
            for rules in gone:
                del self._kept[rules]
        return len(gone)

    def _compiled(self, rules: Enforcement) -> Known:
        tenant, commitment = rules.tenant, self._commitment
        encoder = self.encoder() if self.encoder and rules.is_understood else None
        names = Substituter(
            rules.targets, rules.checker, digest=lambda data: commitment(tenant, PURPOSE, data)
        )
        index = TargetIndex.compile(rules.targets, rules.checker, encoder, tenant=tenant)
        return Known(index, names, Decoys.like(index.targets))
