"""Minimal test-time intervention: guidance, but only where the model hesitates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf, isnan
from typing import TYPE_CHECKING, Literal, TypeAlias

from elision.contract import (
    BranchKey,
    Context,
    Here,
    OtherPrompt,
    Reader,
    Stage,
    Stateless,
    Suffix,
)
from elision.errors import ConfigError, RequestError
from elision.middleware.interventions.mixing import Mixture, Other, check_branches, check_weight
from elision.middleware.interventions.views import LastToken, System, Tokens

if TYPE_CHECKING:
    from torch import Tensor

_SHARE = 0.08


def usage(notes: Mapping[str, float]) -> float | None:
    """Return the share of a reply's positions that MTI guided, from the sums of its *notes*.

    Above one half it is no minimal intervention any more, and whoever reports should warn.

    Returns:
        A share in [0, 1]; None where MTI looked at no position.
    """
    seen = notes.get("mti_gate_seen", 0.0)
    return notes.get("mti_guided", 0.0) / seen if seen else None


@dataclass(frozen=True, slots=True)
class Above:
    """Open where the raw row's entropy exceeds *tau* nats."""

    tau: float

    def is_open(self, here: Here) -> bool:
        """Return whether to guide at *here*; not on a row without a distribution."""
        return here.entropy > self.tau


@dataclass(frozen=True, slots=True)
class ByChance:
    """Open at a *share* of the positions, drawn once and for all by seed, choice and position."""

    share: float
    seed: int
    choice: int

    def is_open(self, here: Here) -> bool:
        """Return whether to guide at *here*."""
        place = f"mti/{self.seed}/{self.choice}/{here.position}".encode()
        return int.from_bytes(blake2b(place, digest_size=8).digest(), "big") < self.share * 2**64


@dataclass(frozen=True, slots=True)
class Everywhere:
    """Open at every position."""

    def is_open(self, here: Here) -> bool:
        """Return True."""
        return True


Gate: TypeAlias = Above | ByChance | Everywhere


@dataclass(frozen=True, slots=True)
class GatedMixture(Stateless):
    """One choice's mixture behind a gate; a value without memory.

    Attributes:
        mixture: What is done where the gate is open.
        gate: Looks at the raw row or at the position, never at what other recipes made of the row.
    """

    mixture: Mixture
    gate: Gate

    @property
    def branches(self) -> tuple[BranchKey, ...]:
        """See `Contrasts.branches`."""
        return self.mixture.branches

    @property
    def always(self) -> bool:
        """See `Contrasts.always`."""
        return isinstance(self.gate, Everywhere)

    def needs(self, here: Here) -> tuple[BranchKey, ...]:
        """See `Contrasts.needs`."""
        return self.branches if self.gate.is_open(here) else ()

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the mixture where the gate is open, the same object elsewhere."""
        here.note("mti_gate_seen", 1)
        return self.mixture.adjust(logits, here) if self.gate.is_open(here) else logits


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimalIntervention:
    r"""Minimal test-time intervention (MTI): guidance where the entropy is high, nothing elsewhere.

    Where :math:`H(p) > \tau`, scores :math:`\log q(w) + \omega\,(\log p(w) - \log q(w))` with
    :math:`p` the model's distribution and :math:`q` what it would say after being told a few words
    more, which are then forgotten. Renormalised, and moved to the raw row's logsumexp. Notes
    ``mti_gate_seen`` at every position, ``mti_guided`` where it acts; see `usage`.

    Attributes:
        scale: :math:`\omega`, without unit; 1 is neutral.
        tau: :math:`\tau` in nats, compared strictly with the raw row's entropy; infinity is
            neutral, below 0 is the gate ``always``. None takes it from *share*.
        share: The share of positions to guide: of a text whose entropies the engine has measured,
            so that a reply's own share will differ; exact on average for the gate ``random``.
        negative: The words, or their tokens.
        branch: Where *q* comes from. ``suffix``: *negative* behind the same text, on the same
            cache. ``last_token``: the prompt's last token for a prompt, as in guidance; *negative*
            does not count. ``prompt``: *negative* as another system message, or, given as tokens,
            as the other prompt.
        gate: ``entropy``; or a control: ``random`` guides the same share of positions wherever
            they fall, ``always`` guides all.

    Source:
        Yang et al. 2025, arXiv:2510.13940, and github.com/EnVision-Research/MTI @ac84862. Ours: tau
        by share (the paper's 1.0, which guides a tenth of an 8B model's tokens, guides half of a
        135M model's), positions and cache as the formula has them, guided rows renormalised, other
        rows not touched (the published code replaces them by their log-softmax).
    """

    scale: float = 1.5
    tau: float | None = None
    share: float = _SHARE
    negative: str | tuple[int, ...] = field(default="OUTPUT ERROR", repr=False)
    branch: Literal["suffix", "last_token", "prompt"] = "suffix"
    gate: Literal["entropy", "random", "always"] = "entropy"
    stage = Stage.MIXER
    rank = 0

    def __post_init__(self) -> None:
        check_weight("scale", self.scale)
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share}; it must be above 0 and at most 1")
        if self.branch not in ("suffix", "last_token", "prompt"):
            raise ConfigError(f"branch is {self.branch!r}; it is suffix, last_token or prompt")
        if not self.negative and self.branch == "suffix":
            raise ConfigError("the negative prompt is empty; behind nothing nothing changes")
        self._check_gate()

    def _check_gate(self) -> None:
        if self.gate not in ("entropy", "random", "always"):
            raise ConfigError(f"gate is {self.gate!r}; it is entropy, random or always")
        if self.tau is not None and (isnan(self.tau) or self.gate != "entropy"):
            raise ConfigError(
                f"tau is {self.tau} for the gate {self.gate!r}; it is nats of entropy"
            )
        if self.share != _SHARE and (self.tau is not None or self.gate == "always"):
            raise ConfigError("a share is given, and what it decides is decided; leave it out")

    def begin(self, context: Context) -> GatedMixture | Mixture:
        """Open a session for one choice; a neutral one reads no branch.

        Raises:
            CapabilityError: If the engine cannot run a second context.
            RequestError: If the negative prompt has no tokens, or such as the model does not have.
            ConfigError: If a text or a share is given and only tokens are known.
        """
        if self.scale == 1 or self.tau == inf:
            return Mixture("mti_guided")
        check_branches("mti", context)
        other = Other(self._key(context), 1 - self.scale)
        return GatedMixture(Mixture("mti_guided", self.scale, (other,)), self._gate(context))

    def _key(self, context: Context) -> BranchKey:
        if self.branch == "suffix":
            return Suffix(self._suffix(context))
        if self.branch == "last_token":
            return OtherPrompt(LastToken().ids(context))
        view = System(self.negative) if isinstance(self.negative, str) else Tokens(self.negative)
        return OtherPrompt(view.ids(context))

    def _suffix(self, context: Context) -> tuple[int, ...]:
        if not isinstance(self.negative, str):
            return Tokens(self.negative).ids(context)
        ids = _reader(context, "a negative prompt in words; give its tokens").encode(self.negative)
        if not ids:
            raise RequestError("the negative prompt has no tokens; give it words that have some")
        return ids

    def _gate(self, context: Context) -> Gate:
        if self.gate == "random":
            return ByChance(self.share, context.seed or 0, context.choice)
        if self.gate == "always" or (self.tau is not None and self.tau < 0):
            return Everywhere()
        if self.tau is not None:
            return Above(self.tau)
        return Above(_reader(context, "a share; give tau in nats").entropy_exceeded(self.share))


def _reader(context: Context, what: str) -> Reader:
    if context.reader is None:
        raise ConfigError(f"MTI was given {what}: no tokenizer and no measured text is known here")
    return context.reader
