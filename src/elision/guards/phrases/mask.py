"""The phrase mask: a token that would complete a phrase cannot be chosen, or hardly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, log
from typing import TYPE_CHECKING, Final, NamedTuple

from elision.contract import ALLOW, Context, Here, Refuse, Stage, Verdict
from elision.errors import ConfigError
from elision.guards.phrases.normal import SEP, N
from elision.guards.phrases.pattern_set import Reading
from elision.guards.phrases.product import Blocked, Product

if TYPE_CHECKING:
    from torch import Tensor

MIN_MASS: Final = 1e-3
"""Probability that must be left for the model to go on (guard.md 1.6.6)."""
_TAIL: Final = 31
"""Tokens looked back over for the beginning of a phrase, less one."""
NOTICEABLE: Final = 1e-4
"""Blocked probability from which on it is noted: less says nothing about the model's intent."""
PENALTY_NATS: Final = 6.0
"""What a soft phrase's last token loses (guard.md 1.6.10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseMask:
    """Forbid every token that would complete a phrase.

    A recipe. The session follows the text from the assistant's prefill (of a raw completion: from
    the prompt) on, so a phrase begun there cannot be finished either.

    Attributes:
        product: The phrases times the engine's vocabulary.
        min_mass: Share of probability that must survive; with less left, no token is acceptable.
    """

    product: Product
    min_mass: float = MIN_MASS
    rank: int = 0
    stage = Stage.HARD_MASK

    def __post_init__(self) -> None:
        if not 0 <= self.min_mass < 1:
            raise ConfigError(f"min_mass is {self.min_mass}, a share of probability in [0, 1)")

    def begin(self, context: Context) -> MaskSession:
        """Open a session for one choice.

        Raises:
            ConfigError: If the guard was compiled for another vocabulary.
        """
        return MaskSession(self, *opening(self.product, context))


class Wrote(NamedTuple):
    """What a token of the tail wrote.

    Attributes:
        n_letters: Letters and digits.
        n_chars: Raw characters.
        opens: Whether a word begins with it.
    """

    n_letters: int
    n_chars: int
    opens: bool


@dataclass(frozen=True, slots=True)
class MaskSession:
    """One choice under a `PhraseMask`.

    What it allows is final. It holds words that may begin a phrase all the same: should the rest of
    the phrase be all that the model wants, the reply goes back to where it began.

    Attributes:
        tail: The last tokens, as far back as a phrase may have begun.
        is_apart: Whether a letter that came next would begin a word.
        is_cut: Whether the text ends where no token does.
        verdict: `Refuse` if the text was cut just behind a phrase; else `ALLOW`.
    """

    recipe: PhraseMask
    reading: Reading
    excluded: frozenset[int]
    tail: tuple[Wrote, ...] = ()
    is_apart: bool = True
    is_cut: bool = False
    verdict: Verdict = ALLOW

    @property
    def n_growing(self) -> int:
        """Tokens at the end, from one that begins a word on, that may begin a phrase."""
        missing, found = self.recipe.product.begun(self.reading), 0
        for n, wrote in enumerate(reversed(self.tail), start=1):
            if missing <= 0:
                break
            missing -= wrote.n_letters
            if wrote.opens and wrote.n_letters:
                found = n
        return found

    @property
    def held(self) -> int:
        """Characters of those tokens."""
        n = self.n_growing
        return sum(wrote.n_chars for wrote in self.tail[-n:]) if n else 0

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the scores with blocked tokens at ``-inf``; see `forbid`."""
        return forbid(logits, self.blocked(), here, min_mass=self.recipe.min_mass)

    def blocked(self) -> Blocked:
        """Return what `adjust` forbids."""
        return self.recipe.product.blocked(self.reading, self.excluded)

    def conceal(self, scores: Tensor) -> Tensor:
        """Return *scores* without the tokens that are a phrase by themselves.

        Behind a letter such a token is no word of its own and may come; a list of alternatives
        would show it as one.
        """
        product = self.recipe.product
        return forbid(scores, product.blocked(product.patterns.start, self.excluded), min_mass=0.0)

    def advance(self, token: int) -> MaskSession:
        """Return the session after *token*."""
        product = self.recipe.product
        reading = product.advance(self.reading, token)
        piece = product.piece(token)
        chars = len(product.lexicon.write(self.reading.pending, token)[0])
        opens = piece.startswith(SEP) or self.is_apart
        wrote = Wrote(len(piece) - piece.count(SEP), chars, opens)
        tail = (*self.tail[-_TAIL:], wrote)
        is_apart = piece.endswith(SEP) if piece else self.is_apart
        return MaskSession(self.recipe, reading, self.excluded, tail, is_apart)

    def read(self, text: str) -> MaskSession:
        """Return the session after *text*, which a stop text may have cut within a token.

        Of *malevolent* the mask allows every token; cut before *volent* it is another word.
        """
        reading = self.recipe.product.patterns.read(self.reading, text)
        return MaskSession(self.recipe, reading, self.excluded, is_cut=bool(N(text)))

    def finish(self) -> MaskSession:
        """Return the session after the end of the text."""
        if self.is_cut and self.recipe.product.completed(self.reading, self.excluded):
            return replace(self, verdict=Refuse())
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class PhrasePenalty:
    """Make every token that would complete a soft phrase unlikely.

    Attributes:
        product: The phrases times the engine's vocabulary.
        nats: What is subtracted from such a token's score; 0 does nothing.
    """

    product: Product
    nats: float = PENALTY_NATS
    rank: int = 0
    stage = Stage.SOFT_BIAS

    def __post_init__(self) -> None:
        if not 0 <= self.nats < inf:
            raise ConfigError(f"the penalty is {self.nats} nats; it must be finite and >= 0")

    def begin(self, context: Context) -> PenaltySession:
        """Open a session for one choice.

        Raises:
            ConfigError: If the guard was compiled for another vocabulary.
        """
        return PenaltySession(self, *opening(self.product, context))


@dataclass(frozen=True, slots=True)
class PenaltySession:
    """One choice under a `PhrasePenalty`."""

    recipe: PhrasePenalty
    reading: Reading
    excluded: frozenset[int]
    held = 0
    verdict = ALLOW

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the scores with the penalty taken off; the same object if it hits nothing."""
        blocked = self.recipe.product.blocked(self.reading, self.excluded)
        ids = within(blocked, logits)
        if not self.recipe.nats or not len(ids):
            return logits
        out = logits.clone()
        out[ids] -= self.recipe.nats
        return out

    def advance(self, token: int) -> PenaltySession:
        """Return the session after *token*."""
        reading = self.recipe.product.advance(self.reading, token)
        return PenaltySession(self.recipe, reading, self.excluded)

    def finish(self) -> PenaltySession:
        """Return the session after the end of the text."""
        return self


def opening(product: Product, context: Context) -> tuple[Reading, frozenset[int]]:
    """Return where a choice's text stands at its beginning, and whose phrases do not count in it.

    Raises:
        ConfigError: If *product* was made for another vocabulary than the context's.
    """
    check_lexicon(product, context)
    return product.begin(context.before), product.patterns.echoed(context.user_text)


def check_lexicon(product: Product, context: Context) -> None:
    """Raise `ConfigError` if *product* was made for another vocabulary than the context's."""
    want, got = len(product.lexicon), len(context.lexicon)
    if want != got:
        raise ConfigError(
            f"the guard was compiled for a vocabulary of {want} tokens, this one has {got}; "
            "ask the guard for the recipes of this lexicon"
        )


def within(blocked: Blocked, logits: Tensor) -> Tensor:
    """Return the blocked ids that *logits* scores, on its device."""
    n_scores = logits.shape[-1]
    ids = blocked.ids if blocked.top < n_scores else blocked.ids[blocked.ids < n_scores]
    return ids.to(logits.device)


def forbid(
    logits: Tensor, blocked: Blocked, here: Here | None = None, *, min_mass: float = MIN_MASS
) -> Tensor:
    """Set the scores of blocked tokens to ``-inf``.

    Args:
        logits: Scores of one position, shape ``(vocab,)``. Not modified.
        blocked: What must not be chosen; ids beyond the row are ignored.
        here: Told under ``guard.masked`` which probability mass was blocked, if `NOTICEABLE`.
        min_mass: Least share of the row's probability that must survive.

    Returns:
        A new row; the same object if no score changes; a row of ``-inf`` if less than *min_mass*
        survives: what is left then is what the model would never say.
    """
    ids = within(blocked, logits)
    if not len(ids):
        return logits
    hit = logits[ids]
    highest = hit.max().item()
    if highest == -inf:
        return logits
    out = logits.index_fill(0, ids, -inf)
    if is_little(highest, len(ids), out.max().item()):
        return out
    mass = lost_mass(hit, out)
    if here is not None and mass >= NOTICEABLE:
        here.note("guard.masked", mass)
    return out.fill_(-inf) if 1 - mass < min_mass else out


def is_little(highest: float, n: int, best: float) -> bool:
    """Return whether *n* scores up to *highest* are no `NOTICEABLE` share beside *best*.

    A bound, for the exact sum reads the whole row once more.
    """
    return highest + log(n) - best < log(NOTICEABLE)


def lost_mass(hit: Tensor, left: Tensor) -> float:
    """Return the share of probability that scores had which are forbidden now.

    Args:
        hit: Those scores.
        left: The row without them.
    """
    lost = hit.float().logsumexp(0)
    return (lost - lost.logaddexp(left.float().logsumexp(0))).exp().item()
