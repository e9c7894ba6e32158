"""Recipes of verbatim protection: what becomes of a token that would complete a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Final

from elision.contract import ALLOW, REFUSE, Context, Here, Lexicon, Stage, Verdict
from elision.errors import ConfigError
from elision.guards.phrases.vocabulary import Vocabulary
from elision.guards.verbatim.ngrams import Grams, Tail

if TYPE_CHECKING:
    from torch import Tensor

CANDIDATES: Final = 256
"""Tokens that are tried where a run may be completed; none clean among them is a dead end."""
REACH: Final = 4096
"""Characters at the end of the prompt in which a run may have begun."""


class GramProduct:
    """Protected runs times one vocabulary. Immutable.

    Args:
        grams: The runs.
        lexicon: The tokens.
    """

    def __init__(self, grams: Grams, lexicon: Lexicon) -> None:
        self.grams = grams
        self.lexicon = lexicon

    def __repr__(self) -> str:
        return f"GramProduct({self.grams!r}, {len(self.lexicon)} tokens)"

    @cached_property
    def unusual(self) -> frozenset[int]:
        """Tokens to be tried everywhere; in practice none."""
        return frozenset(self.grams.unusual(Vocabulary.of(self.lexicon).bounded_pieces))

    def begin(self, context: Context) -> Course:
        """Return where a choice's text stands at its beginning.

        The count begins in the caller's own words, so that a run begun there is not finished in
        the reply; template text between them is left out.

        Raises:
            ConfigError: If the lexicon is not the context's.
        """
        if len(context.lexicon) != len(self.lexicon):
            raise ConfigError(
                f"the guard was compiled for a vocabulary of {len(self.lexicon)} tokens, this one "
                f"has {len(context.lexicon)}; ask the guard for the recipes of this lexicon"
            )
        return Course(self, self.grams.read(Tail(), opening(context.user_text, context.before)))


def opening(user_text: str, before: str) -> str:
    """Return the end of what stands before a reply, in which a run may have begun.

    Args:
        user_text: The caller's own words.
        before: The text that the reply continues; the prompt itself if it is raw.
    """
    if before.endswith(user_text):
        return before[-REACH:]
    return f"{user_text[-REACH:]}\n{before[-REACH:]}"


@dataclass(frozen=True, slots=True)
class Course:
    """Where one choice's text stands among the runs, as an immutable value.

    Attributes:
        tail: The end of the text.
        pending: Bytes that wait for the rest of their character.
    """

    product: GramProduct
    tail: Tail
    pending: bytes = b""

    @property
    def opens(self) -> bool:
        """Whether a usual token may complete a run here."""
        return self.product.grams.opens(self.tail)

    def completes(self, token: int) -> bool:
        """Return whether *token* would complete a run."""
        text, _ = self.product.lexicon.write(self.pending, token)
        return self.product.grams.completes(self.tail, text)

    def completed_by(self, token: int) -> bool:
        """Return the same, asked of one token that was chosen: cheap where nothing opens a run."""
        return (token in self.product.unusual or self.opens) and self.completes(token)

    def advance(self, token: int) -> Course:
        """Return the course after *token*."""
        text, pending = self.product.lexicon.write(self.pending, token)
        return Course(self.product, self.product.grams.read(self.tail, text), pending)

    def read(self, text: str) -> Course:
        """Return the course after *text*."""
        return Course(self.product, self.product.grams.read(self.tail, text), self.pending)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbatimMask:
    """Forbid every token that would complete a protected run.

    A recipe. Where the text stands behind an opening, the best tokens are tried in descending
    order; what would complete a run is forbidden, as is what was not tried. Elsewhere no token
    can complete one.

    Attributes:
        product: The runs times the engine's vocabulary.
        candidates: Tokens tried; if none of them may come, no token is acceptable.

    Source:
        MemFree decoding: Ippolito et al. 2023, arXiv:2210.17546. Ours: the walk does not end at
        the first clean token, for a sampler may choose one below it.
    """

    product: GramProduct
    candidates: int = CANDIDATES
    rank: int = 2
    stage = Stage.HARD_MASK

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ConfigError(f"{self.candidates} candidates are too few; try at least 1")

    def begin(self, context: Context) -> VerbatimSession:
        """Open a session for one choice; see `GramProduct.begin`."""
        return VerbatimSession(self, self.product.begin(context))


@dataclass(frozen=True, slots=True)
class VerbatimSession:
    """One choice under a `VerbatimMask`; holds nothing, for what it allows is final.

    Attributes:
        is_cut: Whether the text ends where no token does.
        verdict: `Refuse` if the text was cut just behind a run; else `ALLOW`.
    """

    recipe: VerbatimMask
    course: Course
    is_cut: bool = False
    verdict: Verdict = ALLOW
    held = 0

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the scores without the tokens that would complete a run."""
        if self.course.opens:
            return self._walk(logits, here)
        n_scores = logits.shape[-1]
        unusual = [t for t in self.course.product.unusual if t < n_scores]
        banned = [token for token in unusual if self.course.completes(token)]
        return _without(logits, banned, here) if banned else logits

    @property
    def is_idle(self) -> bool:
        """Whether `adjust` leaves any row as it is here."""
        return not self.course.opens and not self.course.product.unusual

    def _walk(self, logits: Tensor, here: Here) -> Tensor:
        scores, ids = logits.topk(min(self.recipe.candidates, logits.shape[-1]))
        tried = ids[scores != -inf].tolist()
        banned = [token for token in tried if self.course.completes(token)]
        if not banned and len(tried) == int((logits != -inf).sum()):
            return logits
        kept = ids.new_tensor([*{*tried} - {*banned}])
        only = logits.new_full(logits.shape, -inf)
        only[kept] = _without(logits, banned, here)[kept]
        return only

    def advance(self, token: int) -> VerbatimSession:
        """Return the session after *token*."""
        return VerbatimSession(self.recipe, self.course.advance(token))

    def read(self, text: str) -> VerbatimSession:
        """Return the session after *text*, which a stop text may have cut within a token."""
        return replace(self, course=self.course.read(text), is_cut=bool(text))

    def finish(self) -> VerbatimSession:
        """Return the session after the end of the text."""
        course = self.course
        if self.is_cut and course.product.grams.completed(course.tail):
            return replace(self, verdict=REFUSE)
        return self


def _without(logits: Tensor, banned: list[int], here: Here) -> Tensor:
    """Return a copy of *logits* with *banned* at ``-inf``; note the probability they had."""
    out = logits.clone()
    if banned:
        shares = logits.float().softmax(dim=-1)
        here.note("guard.verbatim", float(shares[banned].sum()))
        out[banned] = -inf
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbatimWatch:
    """End the answer at the token that completes a protected run; what it wrote does not leave.

    Attributes:
        product: The runs of targets that redact or refuse, times the engine's vocabulary.
    """

    product: GramProduct
    rank: int = 3
    stage = Stage.HARD_MASK

    def begin(self, context: Context) -> FollowSession:
        """Open a session for one choice; see `GramProduct.begin`."""
        return FollowSession(self.product.begin(context), ends=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbatimCount:
    """Count the tokens that complete a run of passages that are only observed.

    Attributes:
        product: Their runs times the engine's vocabulary.
    """

    product: GramProduct
    rank: int = 1
    stage = Stage.SIGNAL

    def begin(self, context: Context) -> FollowSession:
        """Open a session for one choice; see `GramProduct.begin`."""
        return FollowSession(self.product.begin(context), ends=False)


@dataclass(frozen=True, slots=True)
class FollowSession:
    """One choice whose runs are found once they are written.

    Attributes:
        ends: Whether a run ends the answer.
        total: Tokens so far that completed a run.
        verdict: `Refuse` once one did, if that ends the answer.
        is_cut: Whether the text ends where no token does.
    """

    course: Course
    ends: bool
    total: int = 0
    verdict: Verdict = ALLOW
    is_cut: bool = False
    held = 0

    @property
    def tally(self) -> Mapping[str, float]:
        """What has been counted in this choice so far, by the key it is noted under."""
        return {} if self.ends else {"guard.verbatim_observed": self.total}

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the very same scores."""
        return logits

    def advance(self, token: int) -> FollowSession:
        """Return the session after *token*."""
        found = self.course.completed_by(token)
        verdict = REFUSE if found and self.ends else ALLOW
        return FollowSession(self.course.advance(token), self.ends, self.total + found, verdict)

    def read(self, text: str) -> FollowSession:
        """Return the session after *text*; a run within it has been judged before."""
        return replace(self, course=self.course.read(text), verdict=ALLOW, is_cut=bool(text))

    def finish(self) -> FollowSession:
        """Return the session after the end of the text; every token's end was looked at before."""
        course = self.course
        if self.ends and self.is_cut and course.product.grams.completed(course.tail):
            return replace(self, verdict=REFUSE)
        return self
