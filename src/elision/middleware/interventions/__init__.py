"""Logit methods, one file per paper.

`INTERVENTIONS` lists every recipe with settings that act, so that the laws can be run over all of
them. The Hugging Face adapter is not imported here, because it brings transformers along: see
`elision.middleware.engines.processor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from elision.contract import Recipe
from elision.middleware.interventions.base import Chain as Chain
from elision.middleware.interventions.bias import LogitBias as LogitBias
from elision.middleware.interventions.contrast import ContextAware as ContextAware
from elision.middleware.interventions.contrast import ContextualContrast as ContextualContrast
from elision.middleware.interventions.difference import ContrastiveDecoding as ContrastiveDecoding
from elision.middleware.interventions.difference import DeltaUnlearning as DeltaUnlearning
from elision.middleware.interventions.difference import LogitDifference as LogitDifference
from elision.middleware.interventions.difference import Reinforced as Reinforced
from elision.middleware.interventions.entropy import EM_INF, AdaptiveTemperature, SteppedTemperature
from elision.middleware.interventions.entropy import EntropyMinimisation as EntropyMinimisation
from elision.middleware.interventions.entropy import TargetEntropy as TargetEntropy
from elision.middleware.interventions.grammar import Grammar as Grammar
from elision.middleware.interventions.grammar import of_schema
from elision.middleware.interventions.guidance import Guidance as Guidance
from elision.middleware.interventions.mti import MinimalIntervention as MinimalIntervention
from elision.middleware.interventions.penalties import FrequencyPresence as FrequencyPresence
from elision.middleware.interventions.penalties import Repetition as Repetition
from elision.middleware.interventions.temperature import Temperature as Temperature
from elision.middleware.interventions.truncation import MinP as MinP
from elision.middleware.interventions.truncation import TopK as TopK
from elision.middleware.interventions.truncation import TopNSigma as TopNSigma
from elision.middleware.interventions.truncation import TopP as TopP
from elision.middleware.interventions.views import LastToken, Tokens

INTERVENTIONS: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "mti": lambda: MinimalIntervention(tau=0.5, negative=(1, 2)),
        "mti-random": lambda: MinimalIntervention(gate="random", share=0.5, negative=(1, 2)),
        "cfg": lambda: Guidance(scale=1.5),
        "cfg-plausible": lambda: Guidance(scale=1.5, plausibility=0.1),
        "cad": lambda: ContextAware(other=Tokens((4, 5))),
        "contrast": lambda: ContextualContrast(towards=Tokens((4, 5)), away=LastToken()),
        "cd": lambda: ContrastiveDecoding(assistant="amateur"),
        "cd-obrien": lambda: ContrastiveDecoding(assistant="amateur", scale=0.5),
        "uld": lambda: LogitDifference(assistant="amateur"),
        "delta": lambda: DeltaUnlearning(before="before", after="after"),
        "reinforced": lambda: Reinforced(assistant="after"),
        "em-inf-first": lambda: EM_INF["code"],
        "logit-bias": lambda: LogitBias(bias={0: -1.5, 2: 3.0}),
        "repetition-penalty": lambda: Repetition(penalty=1.3),
        "frequency-presence": lambda: FrequencyPresence(frequency=0.4, presence=0.6),
        "grammar": lambda: Grammar(of_schema({"type": "object"}), reads_before=False),
        "em-inf": EntropyMinimisation,
        "em-inf-gd": lambda: EntropyMinimisation(method="gd", lr=1.0, kl_weight=0.0, steps=15),
        "adaptive-temperature": AdaptiveTemperature,
        "stepped-temperature": SteppedTemperature,
        "target-entropy": lambda: TargetEntropy(nats=0.5),
        "entropy-ratio": lambda: TargetEntropy(ratio=0.85, floor=1e-5),
        "temperature": lambda: Temperature(value=0.7),
        "top-n-sigma": lambda: TopNSigma(n=1.0),
        "top-k": lambda: TopK(k=5),
        "top-p": lambda: TopP(p=0.9),
        "min-p": lambda: MinP(p=0.1),
    }
)
"""Examples of every recipe by name; what is registered here must obey the laws.

Those that read other scores want a context as `elision.testing.branches.with_branches` makes it:
two tokens more, another prompt, assistants named ``amateur``, ``before`` and ``after``.
"""
