from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from elision.contract import ALLOW, BranchKey, Context, Here, Refuse, Stage, Stateless, Suffix
from elision.testing.laws import awkward_rows, check_adjust, check_neutral, check_sessions
from elision.testing.tokenizers import byte_lexicon

CONTEXT = Context(lexicon=byte_lexicon(), vocab_size=259)
ROWS = awkward_rows(259)
REPLY = (72, 105, 33)


class _Recipe(Stateless):
    stage: ClassVar[Stage] = Stage.HARD_MASK

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits


class Lawful(_Recipe):
    """Bans one token, out of place."""

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.index_fill(0, torch.tensor([7]), -torch.inf)


class Editing(_Recipe):
    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        logits[7] = -torch.inf
        return logits


class EditingUnseen(_Recipe):
    """Writes what was there already: no value betrays it."""

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.add_(0)


class Viewing(_Recipe):
    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits[:]


class Reviving(_Recipe):
    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.clamp_min(-100)


class Nan(_Recipe):
    """Forgets that all may be -inf: inf - inf."""

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits - logits.max()


class Widening(_Recipe):
    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits[None].clone()


class Infinite(_Recipe):
    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.index_fill(0, torch.tensor([int(logits.argmax())]), torch.inf)


class Rounding(_Recipe):
    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.nan_to_num(neginf=-9).long()


class Fickle(_Recipe):
    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits + torch.rand(())


class LateNan(_Recipe):
    """Keeps the law at the beginning only."""

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits if here.position < 2 else logits * torch.nan


class Copying(_Recipe):
    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.clone()


class Holding(_Recipe):
    held = 3


class Judging(_Recipe):
    verdict = Refuse()


@dataclass(frozen=True)
class Counting:
    """A lawful session with memory: bans as many tokens as it has seen."""

    seen: int = 0
    stage: ClassVar[Stage] = Stage.HARD_MASK
    rank: ClassVar[int] = 0
    held: ClassVar[int] = 0
    verdict = ALLOW

    def begin(self, context: Context) -> Counting:
        return self

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.index_fill(0, torch.arange(self.seen), -torch.inf)

    def advance(self, token: int) -> Counting:
        return Counting(self.seen + 1)

    def finish(self) -> Counting:
        return self


@dataclass(frozen=True)
class Mutable(Counting):
    """Advances in place."""

    def advance(self, token: int) -> Mutable:
        object.__setattr__(self, "seen", self.seen + 1)
        return self


@dataclass(frozen=True)
class Sharing(Counting):
    """Copies itself, but shares one list with all its copies."""

    tokens: list[int] = field(default_factory=list)

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.index_fill(0, torch.arange(len(self.tokens)), -torch.inf)

    def advance(self, token: int) -> Sharing:
        self.tokens.append(token)
        return Sharing(tokens=self.tokens)


@dataclass(frozen=True)
class Ending(Sharing):
    """Finishes in place."""

    def advance(self, token: int) -> Ending:
        return Ending(tokens=list(self.tokens))

    def finish(self) -> Ending:
        self.tokens.append(0)
        return self


@dataclass(frozen=True)
class Remembering(Counting):
    """Its sessions are values, but the recipe counts those that ended."""

    ended: list[int] = field(default_factory=list)

    def begin(self, context: Context) -> Remembering:
        self.ended.append(0)
        return Remembering(len(self.ended))

    def advance(self, token: int) -> Remembering:
        return Remembering(self.seen + 1)


@pytest.mark.parametrize("recipe", [Lawful(), _Recipe(), Counting()])
def test_lawful_recipes_pass(recipe) -> None:
    check_adjust(recipe, CONTEXT, ROWS, tokens=REPLY)
    check_sessions(recipe, CONTEXT, ROWS, tokens=REPLY)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Editing(), "wrote into its input"),
        (EditingUnseen(), "wrote into its input"),
        (Viewing(), "a view"),
        (Reviving(), "revived"),
        (Nan(), "NaN"),
        (Widening(), r"\(1, 259\) came back for \(259,\)"),
        (Infinite(), r"\+inf"),
        (Rounding(), "int64"),
        (Fickle(), "when asked again"),
        (LateNan(), "position 2.*NaN"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_recipe_that_breaks_law_1_is_caught(broken, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_adjust(broken, CONTEXT, awkward_rows(259), tokens=REPLY)


@pytest.mark.parametrize(
    ("broken", "said"),
    [(Copying(), "another object"), (Holding(), "hold"), (Judging(), "judge")],
    ids=lambda value: type(value).__name__,
)
def test_neutral_settings_that_act_are_caught(broken, said: str) -> None:
    check_neutral(_Recipe(), CONTEXT, ROWS, tokens=REPLY)

    with pytest.raises(AssertionError, match=said):
        check_neutral(broken, CONTEXT, ROWS, tokens=REPLY)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Mutable(), "advance changed the old session"),
        (Sharing(), "advance changed the old session"),
        (Ending(), "changed"),
        (Remembering(), "the next one begins with"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_session_that_is_no_value_is_caught(broken, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_sessions(broken, CONTEXT, ROWS, tokens=REPLY)


def test_a_branch_is_answered_where_the_recipe_asks() -> None:
    class Asking(_Recipe):
        def adjust(self, logits: Tensor, here: Here) -> Tensor:
            return logits + here.branch(Suffix((1, 2))).clamp(-1, 1)

    asked = []

    def branch(key: BranchKey) -> Tensor:
        asked.append(key)
        return torch.zeros(259)

    check_adjust(Asking(), CONTEXT, ROWS[:1], branch=branch)
    assert set(asked) == {Suffix((1, 2))}


def test_awkward_rows_are_what_they_claim() -> None:
    assert {row.shape for row in ROWS} == {(259,)}
    assert not any(row.isnan().any() for row in ROWS)
    assert any(row.isneginf().all() for row in ROWS)
    assert any(row.isfinite().sum() == 1 for row in ROWS)
    assert any(row.unique().numel() == 1 and row.isfinite().all() for row in ROWS)
