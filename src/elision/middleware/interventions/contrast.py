"""Context-aware decoding and contextual contrast: the same model behind other prompts."""

from __future__ import annotations

from dataclasses import dataclass

from elision.contract import Context, OtherPrompt, Stage
from elision.errors import ConfigError
from elision.middleware.interventions.mixing import (
    Mixture,
    Other,
    check_branches,
    check_plausibility,
    check_weight,
)
from elision.middleware.interventions.views import View


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextAware:
    r"""Strengthen what a context brings: away from the same prompt without it.

    Scores are :math:`(1 + a) \log p(\cdot | c, x) - a \log p(\cdot | x)`. With
    ``other=After(passage)`` it is R-CAD: the prompt as it stands, away from one that has the
    protected passage in front. Notes ``cad_guided`` where it acts.

    Attributes:
        scale: :math:`a`; 0 is neutral (whatever the plausibility), below 0 weakens the context.
        other: What the prompt is without its context.
        plausibility: See `mix`; 0 drops nothing, as in the paper.

    Source:
        Shi et al. 2024, arXiv:2305.14739. R-CAD: Wei et al. 2024, arXiv:2406.18664. Ours:
        log-probabilities for logits, which differ by a constant, and the plausibility mask.
    """

    scale: float = 0.5
    other: View
    plausibility: float = 0.0
    stage = Stage.MIXER
    rank = 20

    def __post_init__(self) -> None:
        check_weight("scale", self.scale)
        check_plausibility(self.plausibility)

    def begin(self, context: Context) -> Mixture:
        """Open a session for one choice.

        Raises:
            CapabilityError: If the engine has no branches.
            RequestError: If the request has no such other prompt.
        """
        if not self.scale:
            return Mixture("cad_guided")
        check_branches("cad", context)
        other = Other(OtherPrompt(self.other.ids(context)), -self.scale)
        return Mixture("cad_guided", 1 + self.scale, (other,), self.plausibility)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextualContrast:
    r"""Move towards what the model says behind one prompt, away from what behind another.

    Scores are :math:`\log p + \eta\,(\log p_+ - \log p_-)`. With a novice's prompt as *towards* and
    an expert's as *away* it is erasure as guidance. Notes ``contrast_guided`` where it acts.

    Attributes:
        scale: :math:`\eta`; 0 is neutral (whatever the plausibility), below 0 turns it around.
        towards: The prompt of :math:`p_+`.
        away: The prompt of :math:`p_-`.
        plausibility: See `mix`; a difference of two rows that both are small is noise.

    Source:
        Gandikota et al. 2024, arXiv:2410.02760, where it makes training targets; here it is
        computed while decoding. Ours: the plausibility mask of Li et al., arXiv:2210.15097.
    """

    scale: float = 1.0
    towards: View
    away: View
    plausibility: float = 0.1
    stage = Stage.MIXER
    rank = 30

    def __post_init__(self) -> None:
        check_weight("scale", self.scale)
        check_plausibility(self.plausibility)
        if self.towards == self.away:
            raise ConfigError("towards and away are one view; their difference is nothing")

    def begin(self, context: Context) -> Mixture:
        """Open a session for one choice.

        Raises:
            CapabilityError: If the engine has no branches.
            RequestError: If the request has no such other prompt.
        """
        if not self.scale:
            return Mixture("contrast_guided")
        check_branches("contrast", context)
        others = (
            Other(OtherPrompt(self.towards.ids(context)), self.scale),
            Other(OtherPrompt(self.away.ids(context)), -self.scale),
        )
        return Mixture("contrast_guided", 1.0, others, self.plausibility)
