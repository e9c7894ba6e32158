"""The chain of sessions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from elision.contract import (
    ALLOW,
    Allow,
    Context,
    Here,
    Refuse,
    Stage,
    Stateless,
    Verdict,
)
from elision.lexicon import TokenizerLexicon
from elision.middleware.interventions.base import Chain

CONTEXT = Context(lexicon=TokenizerLexicon([b"a", b"b", b"c"]), vocab_size=3)


@dataclass(frozen=True, kw_only=True)
class Add(Stateless):
    """Adds to every score, so that the order of steps can be read off the result."""

    amount: float
    factor: float = 1.0
    stage: Stage = Stage.SOFT_BIAS

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        here.note("added", 1)
        return logits * self.factor + self.amount


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Remembers how many tokens it has seen, holds that many characters, refuses at three."""

    seen: int = 0
    done: bool = False
    stage: ClassVar[Stage] = Stage.HARD_MASK
    rank: ClassVar[int] = 0

    @property
    def held(self) -> int:
        return self.seen

    @property
    def verdict(self) -> Verdict:
        return Refuse() if self.seen >= 3 or self.done else ALLOW

    def begin(self, context: Context) -> Counting:
        return self

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits

    def advance(self, token: int) -> Counting:
        return replace(self, seen=self.seen + 1)

    def finish(self) -> Counting:
        return replace(self, done=True)

    def read(self, text: str) -> Counting:
        return replace(self, seen=len(text))

    def conceal(self, scores: Tensor) -> Tensor:
        return scores - 1


def test_recipes_act_in_the_order_of_their_stages_however_they_are_given() -> None:
    late = Add(amount=0, factor=10, stage=Stage.TEMPERATURE)
    early = Add(amount=1, stage=Stage.SOFT_BIAS)
    row = torch.ones(3)

    for given in ((late, early), (early, late)):
        chain = Chain.begin(given, CONTEXT)
        assert chain.adjust(row, Here(row)).tolist() == [20.0] * 3


def test_reported_scores_end_before_temperature() -> None:
    chain = Chain.begin((Add(amount=1), Add(amount=5, stage=Stage.TEMPERATURE)), CONTEXT)
    row = torch.zeros(3)
    here = Here(row)

    assert chain.score(row, here).tolist() == [1.0] * 3
    assert chain.choose_from(chain.score(row, here), here).tolist() == [6.0] * 3


def test_an_empty_chain_returns_the_identical_row() -> None:
    row = torch.randn(3)
    assert Chain().adjust(row, Here(row)) is row


def test_advancing_leaves_the_old_chain_as_it_was() -> None:
    old = Chain.begin((Counting(),), CONTEXT)
    new = old.advance(0).advance(1)

    assert old.held == 0
    assert new.held == 2


def test_only_verdicts_that_call_for_something_are_listed() -> None:
    chain = Chain.begin((Add(amount=0), Counting()), CONTEXT)
    assert chain.verdicts == ()
    assert chain.advance(0).advance(0).advance(0).verdicts == (Refuse(),)
    assert chain.finish().verdicts == (Refuse(),)
    assert isinstance(Add(amount=0).verdict, Allow)


def test_text_that_no_token_wrote_reaches_the_sessions_that_read() -> None:
    chain = Chain.begin((Counting(), Add(amount=0, stage=Stage.TRUNCATION)), CONTEXT)
    assert chain.read("four").held == 4


def test_concealing_touches_the_reported_alternatives_only() -> None:
    chain = Chain.begin((Counting(), Add(amount=0, stage=Stage.TRUNCATION)), CONTEXT)
    row = torch.zeros(3)

    assert chain.conceal(row).tolist() == [-1.0] * 3
    assert chain.adjust(row, Here(row)).tolist() == [0.0] * 3
