"""EM-INF by name: what its authors wrote, what their code runs, what this project runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from elision.middleware.interventions.entropy.minimisation import EntropyMinimisation

EM_INF: Mapping[str, EntropyMinimisation] = MappingProxyType(
    {
        "paper": EntropyMinimisation(method="gd", lr=1.0, steps=15, kl_weight=0.0, first=True),
        "code": EntropyMinimisation(first=True),
        "library": EntropyMinimisation(steps=5, kl_weight=0.001, first=True),
        "contest": EntropyMinimisation(threshold=0.1, kl_weight=0.001, first=True),
        "qwen-math": EntropyMinimisation(lr=0.05, kl_weight=0.01, first=True),
        "focused": EntropyMinimisation(),
    }
)
"""Settings by name; the authors draw at temperature 0.1 behind all of them.

* ``paper``: the text of arXiv:2505.15134, section 4: gradient descent, 5 to 15 steps, delta from .1
  to .5. It names no step size; eta = 1 is ours.
* ``code``: ``em_inf_eval.sh`` of EM_PT @91cda30, the entry point for every task.
* ``library``: the defaults of ``min_entropy_inference``.
* ``contest``: the defaults of its scripts for MATH-500, AMC, AIME and LeetCode.
* ``qwen-math``: the defaults of its script for Minerva and OlympiadBench.
* ``focused``: ``code`` behind the masks instead of before everything; what the profile runs.
"""
