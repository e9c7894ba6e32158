"""Whether drafting changed a text, and whether the place where it did was a tie.

A wider forward rounds differently, so two scores that are equal but for rounding may change places.
Where a drafted text differs from the plain one, the plain one is decoded again, position by
position, and at each the winner is set back by a hair: if another token wins then, and the drafted
text goes on with that token there, the two were tied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from elision.contract import Lexicon, Plan
from elision.middleware.engines.branches import read_on
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel
from elision.middleware.engines.decoding import Reply
from elision.middleware.engines.draw import Draw, draw_for
from elision.middleware.engines.given import Along
from elision.middleware.engines.job import context_for
from elision.middleware.engines.station import Station

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

HAIR: Final = 1e-4
"""Largest margin, in nats of the final scores, that counts as a tie (DESIGN, law 3)."""

LONGEST_TOKEN: Final = 64
"""Characters before the first difference within which its token begins."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One draw of a plain reply.

    Attributes:
        start: Characters written before it.
        token: What was drawn; None where nothing was left.
        again: Draws here once more, its winner set back by so many nats.
    """

    start: int
    token: int | None
    again: Callable[[float], int | None]


@dataclass(slots=True)
class _Witness:
    """A draw that remembers what it was asked."""

    draw: Draw
    picks: list[Pick] = field(default_factory=list)
    start: int = 0

    def pick(self, scores: Tensor, position: int, attempt: int = 0) -> int | None:
        token = self.draw.pick(scores, position, attempt)

        def again(by: float) -> int | None:
            if token is None:
                return None
            lower = scores.clone()
            lower[token] -= by
            return self.draw.pick(lower, position, attempt)

        self.picks.append(Pick(self.start, token, again))
        return token


@dataclass(frozen=True, slots=True)
class Replay:
    """A plain reply, decoded again.

    Attributes:
        text: What it wrote.
        picks: Every draw, those that were rewound included.
        eos: Tokens that end a reply.
    """

    text: str
    picks: tuple[Pick, ...]
    eos: frozenset[int]


def replay(model: CausalModel, plan: Plan) -> Replay:
    """Decode *plan* one token a forward; for the engine's thread."""
    request, prompt = plan.request, model.render(plan.request)
    context = context_for(plan, prompt, model, assistants=())
    seed = request.sampling.seed or 0
    witness = _Witness(draw_for(request.sampling, choice=0, seed=seed, device=model.device))
    reply = Reply.begin(plan, context, witness, max_tokens=request.max_tokens or 1)
    beside = Along.of(plan, reply.chain, prompt.ids, Station(model))
    while not read_on([beside.asides]):
        pass
    _decode(model, prompt.ids, reply, witness, beside)
    return Replay(reply.release.text, tuple(witness.picks), model.eos)


def _decode(
    model: CausalModel, prompt: tuple[int, ...], reply: Reply, witness: _Witness, beside: Along
) -> None:
    cache = beside.cache
    first = row = _read(model, prompt, cache)
    while not _is_over(reply):
        witness.start = len(reply.release.text)
        beside.cache, beside.tokens = cache, tuple(reply.tokens)
        reply.visit(beside.here(row, reply.chain, len(reply.tokens)))
        if not reply.tokens:  # gone back to the beginning, or ended there
            row, cache = first, model.cut_cache(cache, prompt)
        elif not _is_over(reply):
            cache = model.cut_cache(cache, (*prompt, *reply.tokens[:-1]))
            row = model.score((reply.tokens[-1],), cache)


def _read(model: CausalModel, prompt: tuple[int, ...], cache: DynamicCache) -> Tensor:
    """Append *prompt* to *cache* in the engine's own chunks; return the scores behind it."""
    starts = range(0, len(prompt), PREFILL_CHUNK)
    *_, last = (model.score(prompt[start : start + PREFILL_CHUNK], cache) for start in starts)
    return last


def _is_over(reply: Reply) -> bool:
    return reply.finish is not None


def is_tie(plain: Replay, other: str, lexicon: Lexicon) -> bool:
    """Return whether *other* leaves the text of *plain* at a place where two tokens were tied."""
    at = first_difference(plain.text, other)
    near = [pick for pick in plain.picks if at - LONGEST_TOKEN <= pick.start <= at]
    return any(_parts(pick, at, plain.eos, other, lexicon) for pick in near)


def first_difference(one: str, other: str) -> int:
    """Return the index of the first character at which two texts differ."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _parts(pick: Pick, at: int, eos: frozenset[int], other: str, lexicon: Lexicon) -> bool:
    """Return whether a tie at *pick* leads to *other* and explains the difference *at*."""
    rival = pick.again(HAIR)
    if pick.token is None or rival is None or rival == pick.token:
        return False
    rest = other[pick.start :]
    if rival in eos:
        return not rest
    won = "" if pick.token in eos else lexicon.texts[pick.token]
    instead = lexicon.texts[rival]
    if won is None or instead is None:  # bytes of a character that is not whole
        return True
    return rest.startswith(instead) and pick.start + max(len(won), len(instead)) > at


# --- shares --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Verdicts:
    """How many texts were compared, and what became of those that differ.

    Attributes:
        n: Texts compared.
        n_ties: Differ, and were tied where they part.
        n_wrong: Differ for no such reason.
    """

    n: int = 0
    n_ties: int = 0
    n_wrong: int = 0

    def add(self, plain: str, drafted: str, explain: Callable[[], bool]) -> None:
        """Count a pair of texts; *explain* says of two that differ whether they were tied."""
        self.n += 1
        if plain == drafted:
            return
        if explain():
            self.n_ties += 1
        else:
            self.n_wrong += 1

    @property
    def share(self) -> float:
        """Share of the texts that are equal, or part at a tie."""
        return 1.0 - self.n_wrong / max(1, self.n)


def flips(plain: Sequence[str], drafted: Sequence[str]) -> float:
    """Return the share of texts that differ."""
    return sum(a != b for a, b in zip(plain, drafted, strict=True)) / max(1, len(plain))
