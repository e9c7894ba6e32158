"""What a registration takes and gives: checks, ids, answers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elision.contract import Epoch
from elision.errors import TargetError
from elision.guards.phrases.advice import Advice
from elision.guards.targets import GIVEN, ForgetTarget

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: sorts as it counts


@dataclass(frozen=True, slots=True)
class Registered:
    """What came of a registration.

    Attributes:
        target: The target as it is kept: with id, state and time.
        epoch: The tenant's epoch since; whatever was compiled for an older one is stale.
        warnings: What the operator should know about single phrases.
        repeated: Whether an idempotency key told that this had been done before. The target then
            has the state that it was given at first.
    """

    target: ForgetTarget
    epoch: Epoch
    warnings: tuple[Advice, ...]
    repeated: bool = False

    def to_body(self) -> dict[str, Any]:
        """Return the answer to ``POST /v1/forget``."""
        return {
            "id": self.target.id,
            "state": self.target.state,
            "epoch": self.epoch,
            "warnings": [*self.warnings],
        }


def check_new(targets: Sequence[ForgetTarget]) -> None:
    """Raise unless *targets* can be registered together.

    Raises:
        TargetError: If one cannot, or they are of several tenants.
    """
    for target in targets:
        target.validate()
        if target.id:
            raise TargetError("id is given by the register; leave it empty", param="id")
        if target.tenant != targets[0].tenant:
            raise TargetError("the targets are of several tenants; send those of one")


def asked_of(target: ForgetTarget) -> dict[str, Any]:
    """Return what a caller asks for with *target*: its body less what the register gives."""
    return {key: value for key, value in target.to_body().items() if key not in GIVEN}


def new_id(now: float) -> str:
    """Return ``ft_``, nine digits of milliseconds (good until 3084), eleven of chance (55 bits)."""
    moment, chance = int(now * 1000), secrets.randbits(55)
    return "ft_" + _base32(moment, 9) + _base32(chance, 11)


def _base32(number: int, n_digits: int) -> str:
    return "".join(_ALPHABET[number >> 5 * n & 31] for n in reversed(range(n_digits)))


def rounded(target: ForgetTarget) -> dict[str, Any]:
    """Return the times that *target* asks for, in whole milliseconds as the wire shows them."""
    moments = {name: getattr(target, name) for name in ("effective_at", "expires_at", "review_at")}
    return {name: None if at is None else round(at, 3) for name, at in moments.items()}
