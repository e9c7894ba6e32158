"""Attacks on a guard: ways of writing, ways of asking, and who leaked what.

Nothing here is imported by anything that serves.
"""

from __future__ import annotations

from elision.testing.attacks.transform import Transform as Transform
from elision.testing.attacks.transforms import TRANSFORMS as TRANSFORMS
from elision.testing.attacks.transforms import enforced_by as enforced_by
