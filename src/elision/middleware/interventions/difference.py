"""Contrastive decoding and logit difference: scores of assistant models, added or taken away.

Assistants are other loaded models of the same vocabulary, asked behind the same tokens. Elision
trains none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from elision.contract import BranchKey, Context, Here, OtherModel, Stage
from elision.errors import ConfigError, EngineError, RequestError
from elision.middleware.interventions.mixing import (
    Always,
    Mixture,
    Other,
    check_branches,
    check_plausibility,
    check_weight,
    mix,
)

if TYPE_CHECKING:
    from torch import Tensor

_COLDEST, _HOTTEST = 0.01, 100.0


def assistant_of(name: str, context: Context, method: str) -> OtherModel:
    """Return the branch of the assistant *name*.

    Raises:
        CapabilityError: If the engine has no branches.
        RequestError: If it has no assistant of that name.
    """
    check_branches(method, context)
    if name not in context.assistants:
        there = ", ".join(map(repr, sorted(context.assistants))) or "none"
        raise RequestError(
            f"{method} names an assistant that is not loaded; beside this model there are: {there}",
            code="assistant_missing",
        )
    return OtherModel(name)


# --- Contrastive decoding ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveDecoding:
    r"""Prefer what the model knows better than an amateur does.

    Without a scale :math:`\log p_e - \log p_a`, with one :math:`(1 + b)\,z_e - b\,z_a`, over the
    tokens with :math:`p_e \ge \alpha \max p_e`. Notes ``cd_guided`` where it acts.

    Attributes:
        assistant: Name of the amateur: a smaller model of the same vocabulary.
        scale: :math:`b`; 0 is neutral (whatever the plausibility), None takes the first form.
        plausibility: :math:`\alpha`; the first form is noise without it.
        temperature: The amateur's, from 0.01 to 100; the first paper's is 0.5.

    Source:
        Li et al. 2023, arXiv:2210.15097; with a scale O'Brien and Lewis 2023,
        arXiv:2309.09117. Ours: drawn or taken greedily from, not searched by beams.
    """

    assistant: str
    scale: float | None = None
    plausibility: float = 0.1
    temperature: float = 1.0
    stage = Stage.MIXER
    rank = 40

    def __post_init__(self) -> None:
        check_weight("scale", self.scale or 0.0)
        check_plausibility(self.plausibility)
        if not _COLDEST <= self.temperature <= _HOTTEST:
            raise ConfigError(
                f"the amateur's temperature is {self.temperature}; "
                f"it must lie between {_COLDEST} and {_HOTTEST:.0f}"
            )

    def begin(self, context: Context) -> Mixture:
        """Open a session for one choice; see `assistant_of` for what it raises."""
        if self.scale == 0:
            return Mixture("cd_guided")
        own, away = (1.0, 1.0) if self.scale is None else (1 + self.scale, self.scale)
        key = assistant_of(self.assistant, context, "cd")
        other = Other(key, -away, self.temperature)
        return Mixture("cd_guided", own, (other,), self.plausibility)


# --- Logit difference ----------------------------------------------------------------------------


def likely(row: Tensor, keep: float) -> Tensor:
    r"""Return which tokens ULD's filter keeps, bool, shape ``(vocab,)``.

    Keeps :math:`\log p_j \ge \min(\max \log p + \ln \alpha,\ \log p_{(\lfloor \alpha V \rfloor)})`,
    the second being the :math:`\lfloor \alpha V \rfloor`-th best (at least the best): whichever
    of the two keeps more.

    Args:
        row: Scores, shape ``(vocab,)``; not modified.
        keep: :math:`\alpha` in [0, 1]; both ends keep every token that is not at ``-inf``.

    Source:
        Ji et al. 2024, arXiv:2406.08607, and its code, where an :math:`\alpha` that keeps less than
        one token keeps all.
    """
    allowed = row > -float("inf")
    if keep in (0, 1):
        return allowed
    best = row.topk(max(1, int(keep * row.numel())), sorted=False).values
    return allowed & (row >= min(float(best.amax()) + log(keep), float(best.amin())))


@dataclass(frozen=True, slots=True)
class DifferenceSession(Always):
    """One choice's logit difference; the same at every position.

    Attributes:
        key: The assistant.
        weight: Of its log-probabilities.
        keep: See `likely`.
    """

    key: OtherModel
    weight: float
    keep: float

    @property
    def branches(self) -> tuple[BranchKey, ...]:
        """The assistant's row."""
        return (self.key,)

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the difference, float32, ``-inf`` where the filter or *logits* say so."""
        row = logits.detach().float()
        kept = row.masked_fill(~likely(row, self.keep), -float("inf"))
        terms = [(self.weight, here.branch(self.key))]
        mixed = mix(kept, 1.0, terms, anchor=here.logsumexp)
        if mixed is kept:
            return logits
        here.note("uld_guided", 1)
        return mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitDifference:
    r"""Take away what an assistant knows that was trained to know just what must be forgotten.

    Scores are :math:`z + w\,z_a` over the tokens that `likely` keeps. Notes ``uld_guided``.

    Attributes:
        assistant: Name of the assistant; see the page on how the paper trains it.
        weight: :math:`w`; -0.8 (TOFU) and -0.5 (Harry Potter) in the paper; 0 is neutral.
        keep: The filter's :math:`\alpha`; 0 is no filter.

    Source:
        Ji et al. 2024, arXiv:2406.08607. What we changed: dropped tokens are at ``-inf`` whether
        a token is drawn or an answer is scored (the code has -1000, 0 and the untouched score).
    """

    assistant: str
    weight: float = -0.8
    keep: float = 0.01
    stage = Stage.MIXER
    rank = 50

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)
        if not 0 <= self.keep <= 1:
            raise ConfigError(f"keep is {self.keep}; it must be in [0, 1]")

    def begin(self, context: Context) -> DifferenceSession | Mixture:
        """Open a session for one choice; see `assistant_of` for what it raises."""
        if not self.weight:
            return Mixture("uld_guided")
        key = assistant_of(self.assistant, context, "uld")
        return DifferenceSession(key, self.weight, self.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaUnlearning:
    r"""Add what unlearning did to a small model to the scores of this one.

    Scores are :math:`z + w\,(z_{after} - z_{before})`. With one small model trained without and one
    with what is to be forgotten it is UCD. Notes ``delta_guided`` where it acts.

    Attributes:
        before: Name of the small model as it was.
        after: Name of the same model after it unlearned.
        weight: :math:`w`; 0 is neutral.

    Source:
        Huang et al. 2025, arXiv:2404.11045; UCD: arXiv:2506.12097.
    """

    before: str
    after: str
    weight: float = 1.0
    stage = Stage.MIXER
    rank = 60

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)
        if self.before == self.after:
            raise ConfigError("before and after are one assistant; their difference is nothing")

    def begin(self, context: Context) -> Mixture:
        """Open a session for one choice; see `assistant_of` for what it raises."""
        if not self.weight:
            return Mixture("delta_guided")
        before, after = (assistant_of(name, context, "delta") for name in (self.before, self.after))
        return Mixture(
            "delta_guided", 1.0, (Other(after, self.weight), Other(before, -self.weight))
        )


# --- Reinforced ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReinforcedSession(Always):
    """One choice's distance from a reinforced model; the same at every position.

    Attributes:
        key: The reinforced model.
        weight: Nats taken per nat that it gained.
    """

    key: OtherModel
    weight: float

    @property
    def branches(self) -> tuple[BranchKey, ...]:
        """The reinforced model's row."""
        return (self.key,)

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the lowered scores, float32, at the raw row's logsumexp."""
        row, other = logits.detach().float(), here.branch(self.key).detach().float()
        if other.shape != row.shape:
            raise EngineError(
                f"a branch has scores of shape {tuple(other.shape)}, not {tuple(row.shape)}"
            )
        gained = other.log_softmax(-1).sub_(row.log_softmax(-1)).relu_()
        # -inf in logits makes a gain of +inf or NaN, and the token stays banned without it.
        gained.masked_fill_(row.isneginf(), 0.0)
        mixed = mix(logits, 1.0, [(-self.weight, gained)], anchor=here.logsumexp)
        if mixed is not logits:
            here.note("reinforced_guided", 1)
        return mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforced:
    r"""Lower what a model that was trained further on a text says more readily than this one.

    Scores are :math:`\log p - a\,\max(0, \log p_r - \log p)`. Notes ``reinforced_guided``.

    Attributes:
        assistant: Name of the reinforced model.
        weight: :math:`a`, 0 or more; 0 is neutral.

    Source:
        Eldan and Russinovich 2023, arXiv:2310.02238, there to make training targets. What
        we changed: log-probabilities for logits, whose zero means nothing between two models.
    """

    assistant: str
    weight: float = 1.0
    stage = Stage.MIXER
    rank = 70

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)
        if self.weight < 0:
            raise ConfigError(f"weight is {self.weight}; it must not be negative")

    def begin(self, context: Context) -> ReinforcedSession | Mixture:
        """Open a session for one choice; see `assistant_of` for what it raises."""
        if not self.weight:
            return Mixture("reinforced_guided")
        key = assistant_of(self.assistant, context, "reinforced")
        return ReinforcedSession(key, self.weight)
