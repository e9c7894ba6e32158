"""Law 1: what every recipe and every session owes to whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from elision.contract import BranchKey, Context, Here, Recipe, Session

if TYPE_CHECKING:
    from torch import Tensor

    Adjust = Callable[[Tensor, Here], Tensor]
    Branch = Callable[[BranchKey], Tensor]
    _Seen = tuple[Session, tuple[object, ...]]


def awkward_rows(vocab_size: int, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Return rows of scores that break careless arithmetic, each of shape ``(vocab,)``, float32.

    Ordinary and sharp ones, one with ties, one without any difference, one with two levels, very
    large and very small values, some tokens at ``-inf``, all but one, all of them.

    Args:
        vocab_size: At least 4.
        seed: Chooses the random parts.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    plain = torch.randn(vocab_size, generator=draw)
    some = torch.rand(vocab_size, generator=draw) < 0.5
    alone = torch.full_like(plain, -torch.inf)
    alone[vocab_size // 2] = 1.5
    levels = torch.where(some, 4.0, -4.0)
    rows = [plain, plain * 20, plain.round(), plain * 0, levels, plain * 1e4, plain * 1e-6]
    masked = [row.masked_fill(some, -torch.inf) for row in (plain, plain * 20)]
    return (*rows, *masked, alone, alone - torch.inf)


def check_adjust(
    recipe: Recipe,
    context: Context,
    rows: Iterable[Tensor],
    *,
    tokens: Sequence[int] = (),
    branch: Branch | None = None,
) -> None:
    """Check that `adjust` keeps its promises on every row, at every position along *tokens*.

    It never writes into its input nor hands out a view of it, never returns NaN or ``+inf``, keeps
    ``-inf`` at ``-inf`` and the shape as it was, and says the same when asked again.

    Args:
        recipe: The recipe to check.
        context: What its session is opened with.
        rows: Scores of shape ``(vocab,)``; `awkward_rows` has the hard ones.
        tokens: A reply to walk along; the rows are tried before each of its tokens and at its end.
        branch: Answers `Here.branch`; without it, a recipe that asks is refused.

    Raises:
        AssertionError: With the recipe's type, the position, the row and what was broken.
    """
    rows = tuple(rows)
    session = recipe.begin(context)
    for position in range(len(tokens) + 1):
        for index, row in enumerate(rows):
            where = f"{_name(recipe)}, position {position}, row {index}"
            here = Here(row, position=position, branch=branch)
            check_row(session.adjust, row, here, where)
        if position < len(tokens):
            session = session.advance(tokens[position])


def check_row(adjust: Adjust, row: Tensor, here: Here, where: str) -> None:
    """Check what *adjust* promises, on one row.

    Args:
        adjust: Of a session, or of a whole chain.
        row: Scores, shape ``(vocab,)``.
        here: The position that it is told of.
        where: Names the recipe, the position and the row to whoever reads the error.

    Raises:
        AssertionError: With *where* and what was broken.
    """
    import torch

    before, version = row.clone(), row._version
    out = adjust(row, here)
    assert row._version == version, f"{where}: adjust wrote into its input"
    assert torch.equal(row, before), f"{where}: adjust changed its input"
    assert out is row or out.data_ptr() != row.data_ptr(), f"{where}: adjust returned a view"
    assert out.shape == row.shape, f"{where}: {tuple(out.shape)} came back for {tuple(row.shape)}"
    assert out.is_floating_point(), f"{where}: {out.dtype} came back; scores are floats"
    assert not out.isnan().any(), f"{where}: adjust returned NaN"
    assert not out.isposinf().any(), f"{where}: adjust returned +inf"
    assert out[row.isneginf()].isneginf().all(), f"{where}: adjust revived a token at -inf"
    again = adjust(row, Here(row, position=here.position, branch=here._branch))
    assert torch.equal(out, again), f"{where}: adjust says something else when asked again"


def check_neutral(
    recipe: Recipe, context: Context, rows: Iterable[Tensor], *, tokens: Sequence[int] = ()
) -> None:
    """Check that a recipe with neutral settings returns the very same object.

    And holds nothing back, judges nothing, reads no other scores.

    Args:
        recipe: A recipe whose settings say that nothing is to be done.
        context: What its session is opened with.
        rows: Scores of shape ``(vocab,)``.
        tokens: A reply to walk along.

    Raises:
        AssertionError: With the recipe's type, the position and the row.
    """
    from elision.contract import ALLOW

    rows = tuple(rows)
    session = recipe.begin(context)
    for position in range(len(tokens) + 1):
        for index, row in enumerate(rows):
            where = f"{_name(recipe)}, position {position}, row {index}"
            assert session.adjust(row, Here(row, position=position)) is row, (
                f"{where}: neutral settings returned another object"
            )
            _check_reads_nothing(session, Here(row, position=position), where)
        assert session.held == 0, f"{_name(recipe)}: neutral settings hold text back"
        assert session.verdict == ALLOW, f"{_name(recipe)}: neutral settings judge"
        if position < len(tokens):
            session = session.advance(tokens[position])


def _check_reads_nothing(session: Session, here: Here, where: str) -> None:
    from elision.middleware.interventions.base import Contrasts

    asked = isinstance(session, Contrasts) and session.needs(here)
    assert not asked, f"{where}: neutral settings ask for a branch"


def check_sessions(
    recipe: Recipe,
    context: Context,
    rows: Iterable[Tensor],
    *,
    tokens: Sequence[int],
    other: int = 0,
    branch: Branch | None = None,
) -> None:
    """Check that sessions are values: whoever keeps an old one can go back to it.

    Advancing or finishing a session leaves it as it was; two sessions after the same token behave
    alike, whatever other way was tried in between; the recipe remembers no session.

    Args:
        recipe: The recipe to check.
        context: What its sessions are opened with.
        rows: Scores that tell sessions apart, of shape ``(vocab,)``.
        tokens: A reply to walk along.
        other: A token to stray to at each position.
        branch: Answers `Here.branch`.

    Raises:
        AssertionError: With the recipe's type, the position and what was broken.
    """
    look = _Look(tuple(rows), branch)
    first = recipe.begin(context)
    trail = [(first, look(first, 0))]
    for position, token in enumerate(tokens):
        where = f"{_name(recipe)}, position {position}"
        trail.append(_check_step(look, trail[-1], position, (token, other), where))
    for position, (session, seen) in enumerate(trail):
        assert _same(look(session, position), seen), (
            f"{_name(recipe)}, position {position}: a later token changed an old session"
        )
    assert _same(look(recipe.begin(context), 0), trail[0][1]), (
        f"{_name(recipe)}: a request changed the recipe that the next one begins with"
    )


def _check_step(
    look: _Look, last: _Seen, position: int, tokens: tuple[int, int], where: str
) -> _Seen:
    """Advance by the first of *tokens*, stray by the second; return what follows the first."""
    (session, seen), (token, other) = last, tokens
    after = session.advance(token)
    told = look(after, position + 1)
    assert _same(look(session, position), seen), f"{where}: advance changed the old session"
    session.advance(other).advance(token)
    session.finish()
    assert _same(look(session, position), seen), f"{where}: a branch changed the old session"
    assert _same(look(after, position + 1), told), f"{where}: a branch changed its sibling"
    again = look(session.advance(token), position + 1)
    assert _same(again, told), f"{where}: advancing twice by one token gives two behaviours"
    return after, told


class _Look:
    """Everything that can be seen of a session from outside."""

    def __init__(self, rows: tuple[Tensor, ...], branch: Branch | None) -> None:
        self.rows = rows
        self.branch = branch

    def __call__(self, session: Session, position: int) -> tuple[object, ...]:
        end = session.finish()
        told = (session.held, session.verdict, end.held, end.verdict)
        return (*told, *(self._adjusted(session, row, position) for row in self.rows))

    def _adjusted(self, session: Session, row: Tensor, position: int) -> Tensor:
        return session.adjust(row, Here(row, position=position, branch=self.branch)).clone()


def _same(one: tuple[object, ...], two: tuple[object, ...]) -> bool:
    import torch

    return len(one) == len(two) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        for a, b in zip(one, two, strict=True)
    )


def _name(recipe: Recipe) -> str:
    return type(recipe).__name__
