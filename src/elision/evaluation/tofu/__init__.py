"""TOFU on a model that really memorised it: guard on and off, beside one that never knew."""

from __future__ import annotations

from elision.evaluation.tofu.golden import check_golden as check_golden
from elision.evaluation.tofu.run import Options as Options
from elision.evaluation.tofu.run import run as run
