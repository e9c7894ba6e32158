"""Classifier-free guidance: away from what the model would say behind another prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

from elision.contract import Context, OtherPrompt, Stage
from elision.middleware.interventions.mixing import (
    Mixture,
    Other,
    check_branches,
    check_plausibility,
    check_weight,
)
from elision.middleware.interventions.views import LastToken, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    r"""Classifier-free guidance, and with a prompt to avoid, negative prompting.

    Scores :math:`\log p(w \mid \bar c) + \gamma\,(\log p(w \mid c) - \log p(w \mid \bar c))` with
    :math:`c` the request's prompt and :math:`\bar c` the other one, renormalised and moved to the
    raw row's logsumexp. Notes ``cfg_guided`` wherever it acts.

    Attributes:
        scale: :math:`\gamma`, without unit: 1 is neutral, above it moves away from the other
            prompt, 0 is the other prompt's distribution, below 0 inverts.
        other: The other prompt.
        plausibility: Tokens of less than this share of the best token's probability are dropped;
            large scales lift junk otherwise. 0 drops none.

    Source:
        Sanchez et al. 2024, arXiv:2306.17806, eq. 5 and 7; 1.5 in its zero-shot tables, from the
        last token of the prompt. Ours: the default of 1.25 (a 135M model gains most there), the
        mask, the rules for ``-inf``, the renormalisation.
    """

    scale: float = 1.25
    other: View = field(default_factory=LastToken)
    plausibility: float = 0.0
    stage = Stage.MIXER
    rank = 10

    def __post_init__(self) -> None:
        check_weight("scale", self.scale)
        check_plausibility(self.plausibility)

    def begin(self, context: Context) -> Mixture:
        """Open a session for one choice; at scale 1 it reads no branch.

        Raises:
            CapabilityError: If the engine cannot run a second context.
            RequestError: If the other prompt cannot be made of this request's.
            ConfigError: If it is a text and only tokens are known.
        """
        if self.scale == 1:
            return Mixture("cfg_guided", plausibility=self.plausibility)
        check_branches("cfg", context)
        other = Other(OtherPrompt(self.other.ids(context)), 1 - self.scale)
        return Mixture("cfg_guided", self.scale, (other,), self.plausibility)
