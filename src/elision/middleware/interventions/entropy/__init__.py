"""Entropy shaping: EM-INF, the temperature that does the same exactly, the published baselines."""

from elision.middleware.interventions.entropy.baselines import (
    AdaptiveTemperature as AdaptiveTemperature,
)
from elision.middleware.interventions.entropy.baselines import (
    SteppedTemperature as SteppedTemperature,
)
from elision.middleware.interventions.entropy.baselines import (
    bisected_temperature as bisected_temperature,
)
from elision.middleware.interventions.entropy.baselines import (
    stepped_temperature as stepped_temperature,
)
from elision.middleware.interventions.entropy.minimisation import (
    EntropyMinimisation as EntropyMinimisation,
)
from elision.middleware.interventions.entropy.minimisation import (
    minimise_entropy as minimise_entropy,
)
from elision.middleware.interventions.entropy.presets import EM_INF as EM_INF
from elision.middleware.interventions.entropy.row import entropy as entropy
from elision.middleware.interventions.entropy.target import TargetEntropy as TargetEntropy
from elision.middleware.interventions.entropy.target import (
    temperature_for_entropy as temperature_for_entropy,
)
