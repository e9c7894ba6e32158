"""Context-aware decoding and contextual contrast: the same model behind other prompts.

A contrast is a sum of log-probabilities with a weight for each other row; `Mixture` is the session
of every one that is, whether the rows come from other prompts or, in `difference`, other models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elision.contract import BranchKey, Capability, Context, Here, OtherPrompt, Stage, Stateless
from elision.errors import CapabilityError, ConfigError, EngineError
from elision.middleware.interventions.base import Contrasts
from elision.middleware.interventions.mixing import check_plausibility, check_weight, mix
from elision.middleware.interventions.views import View

if TYPE_CHECKING:
    from torch import Tensor


def check_branches(method: str, context: Context) -> None:
    """Raise `CapabilityError` unless *context*'s engine can score other rows for *method*."""
    if Capability.BRANCH not in context.capabilities:
        raise CapabilityError(method, engine="this engine", missing="BRANCH")


def other_row(key: BranchKey, here: Here) -> Tensor:
    """Return *key*'s row at *here*, float32, as long as the model's own.

    Raises:
        EngineError: If it has another length, or NaN or +inf in it: a contrast with such a row
            would be none, and nobody would know.
    """
    row = here.branch(key).detach().float()
    if row.shape != here.raw.shape:
        raise EngineError(
            f"the other row has shape {tuple(row.shape)}, the model's own {tuple(here.raw.shape)}"
        )
    if not float(row.amax()) < float("inf"):
        raise EngineError("the other row holds NaN or +inf; a finite score or -inf was wanted")
    return row


class Always(Stateless):
    """Mixin for sessions that read all of their branches at every position."""

    __slots__ = ()

    always: bool = True

    def needs(self: Contrasts, here: Here) -> tuple[BranchKey, ...]:
        """Return what `adjust` will read at *here*."""
        return self.branches


@dataclass(frozen=True, slots=True)
class Other:
    """One other row of a mixture.

    Attributes:
        key: Where it comes from.
        weight: What its log-probabilities are multiplied by.
        temperature: What its scores are divided by before that.
    """

    key: BranchKey
    weight: float
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Mixture(Always):
    """One choice's weighted sum of rows, the same at every position; without others it is idle.

    Attributes:
        note: What is noted where it acts.
        weight: Of the row that comes in.
        others: The other rows.
        plausibility: See `mix`.
    """

    note: str
    weight: float = 1.0
    others: tuple[Other, ...] = ()
    plausibility: float = 0.0

    @property
    def branches(self) -> tuple[BranchKey, ...]:
        """All that it reads, each once."""
        return tuple(dict.fromkeys(other.key for other in self.others))

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the mixture, float32, at the raw row's logsumexp; see `mix` for ``-inf``."""
        if not self.others:
            return logits
        terms = [(o.weight, other_row(o.key, here) / o.temperature) for o in self.others]
        mixed = mix(
            logits, self.weight, terms, anchor=here.logsumexp, plausibility=self.plausibility
        )
        if mixed is not logits:
            here.note(self.note, 1)
        return mixed


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
        check_branches("context-aware decoding", context)
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
        check_branches("contextual contrast", context)
        others = (
            Other(OtherPrompt(self.towards.ids(context)), self.scale),
            Other(OtherPrompt(self.away.ids(context)), -self.scale),
        )
        return Mixture("contrast_guided", 1.0, others, self.plausibility)
