"""The mask and the penalty: the laws of every recipe, dead ends, what is noted."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elision.contract import ALLOW, Context, Here, Recipe, Refuse, Stage
from elision.errors import ConfigError
from elision.guards.phrases.mask import PhraseMask, PhrasePenalty, forbid
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.patterns import Owner
from elision.guards.phrases.product import Blocked, Product
from elision.guards.targets import Phrase
from elision.lexicon import TokenizerLexicon
from elision.testing.tokenizers import byte_lexicon

INF = math.inf
LEXICON = byte_lexicon()
A, E, Z = ord("a"), ord("e"), ord("z")


def product(*texts: str, allow_echo: bool = False) -> Product:
    phrases = [Phrase(text=text, allow_echo=allow_echo) for text in texts]
    pairs = [(Owner("t", n, "restrict", p.allow_echo), p) for n, p in enumerate(phrases)]
    return Product(PatternSet(pairs), LEXICON)


MALE = product("male")


def context(before: str = "", user_text: str = "", vocab_size: int = 259) -> Context:
    return Context(lexicon=LEXICON, vocab_size=vocab_size, before=before, user_text=user_text)


def at(recipe: Recipe, text: str, row: Tensor) -> tuple[Tensor, Here]:
    """Return *row* as adjusted behind *text*, and what was noted."""
    session, here = recipe.begin(context()), Here(row)
    for byte in text.encode():
        session = session.advance(byte)
    return session.adjust(row, here), here


def blocked(*ids: int) -> Blocked:
    return Blocked(torch.tensor(ids, dtype=torch.long), max(ids, default=-1))


rows = st.lists(
    st.one_of(st.floats(-1e4, 1e4, width=32), st.just(-INF)), min_size=4, max_size=4
).map(torch.tensor)
ids = st.sets(st.integers(0, 6), max_size=4).map(lambda found: blocked(*found))


@given(rows, ids, st.sampled_from([0.0, 1e-3, 0.5]))
def test_masks_never_edit_never_return_nan_and_keep_what_is_banned(
    row: Tensor, banned: Blocked, min_mass: float
) -> None:
    before = row.clone()
    out = forbid(row, banned, Here(row), min_mass=min_mass)
    assert torch.equal(row, before)
    assert not out.isnan().any()
    assert (out[row == -INF] == -INF).all()
    assert (out[[i for i in banned.ids.tolist() if i < 4]] == -INF).all()
    assert (out == row).logical_or(out == -INF).all()
    if torch.equal(out, row):
        assert out is row


@given(rows, ids, st.sampled_from([1e-3, 0.2, 0.9]))
def test_a_dead_end_is_where_too_little_probability_is_left(
    row: Tensor, banned: Blocked, min_mass: float
) -> None:
    inside = banned.ids[banned.ids < 4]
    chances = row.double().softmax(0)
    if row.isneginf().all() or row[inside].isneginf().all():
        assert forbid(row, banned, min_mass=min_mass) is row
        return
    left = 1 - float(chances[inside].sum())
    if abs(left - min_mass) > 1e-4:
        dead = bool(forbid(row, banned, min_mass=min_mass).isneginf().all())
        finite = row[[i for i in range(4) if i not in inside.tolist()]].isfinite().any()
        assert dead == (left < min_mass or not finite)


@given(rows, ids, ids)
def test_masks_commute(row: Tensor, a: Blocked, b: Blocked) -> None:
    one = forbid(forbid(row, a, min_mass=0), b, min_mass=0)
    other = forbid(forbid(row, b, min_mass=0), a, min_mass=0)
    assert torch.equal(one, other)


@given(rows, ids)
def test_the_blocked_probability_is_noted_if_it_is_noticeable(row: Tensor, banned: Blocked) -> None:
    here = Here(row)
    forbid(row, banned, here)
    inside = banned.ids[banned.ids < 4]
    mass = 0.0 if row.isneginf().all() else float(row.double().softmax(0)[inside].sum())
    if mass >= 1.01e-4:
        assert here.notes["guard.masked"] == pytest.approx(mass, rel=1e-3)
    elif mass < 0.99e-4:
        assert here.notes == {}


def test_a_row_stays_the_same_object_where_nothing_is_near() -> None:
    row = torch.zeros(259)
    assert at(PhraseMask(product=MALE), "the ma", row)[0] is row
    assert at(PhrasePenalty(product=MALE), "the ma", row)[0] is row


def test_the_last_letter_of_a_phrase_is_masked_in_either_case() -> None:
    row = torch.zeros(259)
    out, here = at(PhraseMask(product=MALE), "the mal", row)
    assert out.isneginf().nonzero().flatten().tolist() == [ord("E"), E]
    assert here.notes["guard.masked"] == pytest.approx(2 / 259, rel=1e-4)


def test_a_prefill_is_continued_but_the_users_words_are_not() -> None:
    row = torch.zeros(259)
    mask = PhraseMask(product=MALE)
    assert mask.begin(context(before="is he mal")).adjust(row, Here(row))[E] == -INF
    assert mask.begin(context(user_text="is he mal")).adjust(row, Here(row)) is row


def test_a_phrase_the_caller_wrote_may_be_echoed_if_it_allows_that() -> None:
    row = torch.zeros(259)
    for allowed in (True, False):
        mask = PhraseMask(product=product("male", allow_echo=allowed))
        session = mask.begin(context(before="mal", user_text="I am Male."))
        assert (session.adjust(row, Here(row)) is row) == allowed


@pytest.mark.parametrize("vocab_size", [80, 259, 512])
def test_any_number_of_scores_will_do(vocab_size: int) -> None:
    row = torch.zeros(vocab_size)
    out, _ = at(PhraseMask(product=MALE), "mal", row)
    assert out.shape == row.shape
    assert out.isneginf().nonzero().flatten().tolist() == [i for i in (69, 101) if i < vocab_size]


def test_a_row_of_nothing_stays_the_row_it_is() -> None:
    row = torch.full((259,), -INF)
    assert at(PhraseMask(product=MALE), "mal", row)[0] is row


def test_a_model_that_would_say_nothing_else_is_at_a_dead_end() -> None:
    row = torch.full((259,), -20.0)
    row[E] = 10
    out, here = at(PhraseMask(product=MALE), "mal", row)
    assert out.isneginf().all()
    assert here.notes["guard.masked"] > 0.999
    assert not at(PhraseMask(product=MALE, min_mass=0), "mal", row)[0].isneginf().all()


def test_half_precision_rows_are_masked_alike() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        row = torch.zeros(259, dtype=dtype)
        out, here = at(PhraseMask(product=MALE), "mal", row)
        assert out.dtype == dtype
        assert out[E] == -INF
        assert here.notes["guard.masked"] == pytest.approx(2 / 259, rel=1e-3)


def test_a_soft_phrase_costs_six_nats_per_token_that_completes_it() -> None:
    row = torch.arange(259.0)
    row[ord("E")] = -INF
    out, _ = at(PhrasePenalty(product=MALE), "mal", row)
    changed = (out != row).nonzero().flatten().tolist()
    assert changed == [E]
    assert out[E] == row[E] - 6
    assert row[E] == E


def test_a_penalty_of_nothing_does_nothing() -> None:
    row = torch.zeros(259)
    assert at(PhrasePenalty(product=MALE, nats=0), "mal", row)[0] is row


def test_an_old_session_is_untouched_by_the_new_one() -> None:
    row = torch.zeros(259)
    for recipe in (PhraseMask(product=MALE), PhrasePenalty(product=MALE)):
        old = recipe.begin(context(before="mal"))
        new = old.advance(Z)
        assert new.adjust(row, Here(row)) is row
        assert old.adjust(row, Here(row)) is not row
        assert (new.held, new.verdict, new.finish()) == (0, ALLOW, new)


@pytest.mark.parametrize(
    ("before", "text", "refused"),
    [
        ("", "male", True),
        ("", "a male", True),
        ("", "a male ", False),
        ("", "malev", False),
        ("fe", "male", False),
        ("mal", "e", True),
        ("male", "", False),
        ("male", "\u0301", False),
    ],
)
def test_a_text_that_is_cut_behind_a_phrase_is_refused(
    before: str, text: str, refused: bool
) -> None:
    session = PhraseMask(product=MALE).begin(context(before=before))
    assert session.read(text).verdict == ALLOW
    assert isinstance(session.read(text).finish().verdict, Refuse) == refused
    assert session.finish().verdict == ALLOW


def test_sessions_can_be_compared_and_hashed() -> None:
    mask = PhraseMask(product=MALE)
    assert mask.begin(context()).advance(A) == mask.begin(context()).advance(A)
    assert len({mask.begin(context()).advance(A), mask.begin(context()).advance(A)}) == 1


def test_a_guard_for_another_vocabulary_is_refused() -> None:
    other = TokenizerLexicon([b"a", b"b"])
    for recipe in (PhraseMask(product=MALE), PhrasePenalty(product=MALE)):
        with pytest.raises(ConfigError, match="259 tokens, this one has 2"):
            recipe.begin(Context(lexicon=other, vocab_size=2))


@pytest.mark.parametrize("nats", [-1.0, INF, math.nan])
def test_a_penalty_must_be_finite_and_not_negative(nats: float) -> None:
    with pytest.raises(ConfigError):
        PhrasePenalty(product=MALE, nats=nats)


def test_a_share_of_probability_lies_below_one() -> None:
    with pytest.raises(ConfigError):
        PhraseMask(product=MALE, min_mass=1.0)


def test_recipes_act_where_they_should() -> None:
    assert PhraseMask(product=MALE).stage == Stage.HARD_MASK
    assert PhrasePenalty(product=MALE).stage == Stage.SOFT_BIAS


def test_what_is_printed_of_a_recipe_tells_no_phrase() -> None:
    mask = PhraseMask(product=product("topsecret"))
    assert "topsecret" not in repr(mask) + repr(mask.begin(context(before="topsecre")))


def test_no_phrase_begins_with_a_token_without_letters() -> None:
    """Where one begins before the reply, its first word ends there, whatever signs follow."""
    recipe = PhraseMask(product=product("big apple"))
    session = recipe.begin(context(before="so big"))
    for byte, n_growing in zip(b' "ap', (0, 0, 1, 2), strict=True):
        session = session.advance(byte)
        assert session.n_growing == n_growing
