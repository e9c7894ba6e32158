"""Reasoning suites: what guidance and entropy shaping do to accuracy, with intervals, paired."""

from __future__ import annotations

from elision.evaluation.reasoning.data import SUITES as SUITES
from elision.evaluation.reasoning.data import suite_named as suite_named
from elision.evaluation.reasoning.report import Summary as Summary
from elision.evaluation.reasoning.run import Options as Options
from elision.evaluation.reasoning.run import run as run
