"""Logit methods, one file per paper.

`INTERVENTIONS` lists every recipe with settings that act, so that the laws can be run over all of
them. The Hugging Face adapter is not imported here, because it brings transformers along: see
`elision.middleware.interventions.processor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from elision.contract import Recipe
from elision.middleware.interventions.base import Chain as Chain
from elision.middleware.interventions.bias import LogitBias as LogitBias
from elision.middleware.interventions.entropy import EntropyMinimisation as EntropyMinimisation
from elision.middleware.interventions.entropy import TargetEntropy as TargetEntropy
from elision.middleware.interventions.penalties import FrequencyPresence as FrequencyPresence
from elision.middleware.interventions.penalties import Repetition as Repetition
from elision.middleware.interventions.temperature import Temperature as Temperature
from elision.middleware.interventions.truncation import MinP as MinP
from elision.middleware.interventions.truncation import TopK as TopK
from elision.middleware.interventions.truncation import TopNSigma as TopNSigma
from elision.middleware.interventions.truncation import TopP as TopP

INTERVENTIONS: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "logit-bias": lambda: LogitBias(bias={0: -1.5, 2: 3.0}),
        "repetition-penalty": lambda: Repetition(penalty=1.3),
        "frequency-presence": lambda: FrequencyPresence(frequency=0.4, presence=0.6),
        "em-inf": EntropyMinimisation,
        "target-entropy": lambda: TargetEntropy(nats=0.5),
        "entropy-ratio": lambda: TargetEntropy(ratio=0.85, floor=1e-5),
        "temperature": lambda: Temperature(value=0.7),
        "top-n-sigma": lambda: TopNSigma(n=1.0),
        "top-k": lambda: TopK(k=5),
        "top-p": lambda: TopP(p=0.9),
        "min-p": lambda: MinP(p=0.1),
    }
)
"""An example of every recipe by name; what is registered here must obey the laws."""
