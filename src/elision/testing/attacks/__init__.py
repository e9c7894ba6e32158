"""Attacks on a guard: ways of writing, ways of asking, and who leaked what.

Nothing here is imported by anything that serves.
"""

from __future__ import annotations

from elision.testing.attacks.cases import Case as Case
from elision.testing.attacks.cases import Fact as Fact
from elision.testing.attacks.cases import cases as cases
from elision.testing.attacks.cases import facts_of as facts_of
from elision.testing.attacks.cases import planted as planted
from elision.testing.attacks.contenders import guarded as guarded
from elision.testing.attacks.contenders import prompted as prompted
from elision.testing.attacks.contenders import substring_filter as substring_filter
from elision.testing.attacks.contenders import unguarded as unguarded
from elision.testing.attacks.harness import UNGUARDED as UNGUARDED
from elision.testing.attacks.harness import Outcome as Outcome
from elision.testing.attacks.harness import Report as Report
from elision.testing.attacks.harness import attack as attack
from elision.testing.attacks.harness import compare as compare
from elision.testing.attacks.judge import Judge as Judge
from elision.testing.attacks.planted import PlantedEngine as PlantedEngine
from elision.testing.attacks.planted import PlantedFacts as PlantedFacts
from elision.testing.attacks.transform import Transform as Transform
from elision.testing.attacks.transforms import TRANSFORMS as TRANSFORMS
from elision.testing.attacks.transforms import enforced_by as enforced_by
