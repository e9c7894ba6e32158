"""The registry of transforms: every way of writing that the suite tries, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from elision.testing.attacks.characters import CHARACTERS
from elision.testing.attacks.ciphers import CIPHERS
from elision.testing.attacks.concealment import CONCEALMENT
from elision.testing.attacks.encodings import ENCODINGS
from elision.testing.attacks.smuggling import SMUGGLING
from elision.testing.attacks.transform import Enforced, Transform

_ALL: Final = (*CHARACTERS, *ENCODINGS, *CIPHERS, *SMUGGLING, *CONCEALMENT)

TRANSFORMS: Final[Mapping[str, Transform]] = MappingProxyType({t.name: t for t in _ALL})
"""By name, in the order of their families."""

assert len(TRANSFORMS) == len(_ALL), "two transforms share a name"


def enforced_by(promise: Enforced) -> tuple[Transform, ...]:
    """Return the transforms about which *promise* is made."""
    return tuple(t for t in TRANSFORMS.values() if t.enforced == promise)


def transform_named_in(text: str) -> Transform | None:
    """Return the transform that *text* demands last, as `Transform.demand` writes it."""
    found = [(text.rfind(f"[{name}]"), name) for name in TRANSFORMS]
    at, name = max(found)
    return TRANSFORMS[name] if at >= 0 else None
