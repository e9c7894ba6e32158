from __future__ import annotations

from functools import cache
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elision.middleware.engines.causal import PREFILL_CHUNK
from elision.middleware.engines.follower import Follower
from elision.testing import tiny_model

from .slow_branches import slow_scores

V = 31
MODEL: Any = tiny_model("gemma3", vocab_size=V, context=24)  # a window of six tokens
Text = tuple[int, ...]


@cache
def oracle(text: Text) -> Tensor:
    return slow_scores(MODEL, text)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[Text], list[Text]]]:
    """What rows do: grow, fork, end, come back to an earlier length; some ask and some do not."""
    token = st.integers(0, 3)  # few, so that texts meet again
    live = draw(
        st.lists(st.lists(token, min_size=1, max_size=9).map(tuple), min_size=1, max_size=3)
    )
    history = []
    for _ in range(draw(st.integers(1, 5))):
        asks = draw(st.lists(st.booleans(), min_size=len(live), max_size=len(live)))
        history.append(([t for t, asked in zip(live, asks, strict=True) if asked], live))
        forks = draw(st.lists(st.sampled_from(live), min_size=1, max_size=3))
        live = [draw(_next(text, token)) for text in forks]
    return history


@st.composite
def _next(draw: st.DrawFn, text: Text, token: st.SearchStrategy[int]) -> Text:
    """What becomes of *text*: it grows or stays, and may have been cut back before."""
    n_kept = draw(st.just(len(text)) | st.integers(1, len(text)))
    return (*text[:n_kept], *draw(st.lists(token, max_size=2)))


@settings(max_examples=25)
@given(history=histories())
def test_whatever_rows_do_their_scores_are_those_of_a_recompute(
    history: list[tuple[list[Text], list[Text]]],
) -> None:
    follower = _known()
    for wanted, live in history:
        found = follower.score(wanted, live=live)
        assert found.keys() == set(wanted)
        for text, scores in found.items():
            torch.testing.assert_close(scores.float(), oracle(text), atol=1e-4, rtol=0)


def _known() -> Follower:
    """A follower that need not find out again whether its model takes several rows."""
    follower = Follower(MODEL)
    follower.__dict__["_takes_several"] = True
    return follower


def test_the_model_takes_several_rows_so_the_law_above_tries_them() -> None:
    assert Follower(MODEL)._takes_several


def test_a_long_prompt_is_read_in_chunks_and_a_step_reads_one_token() -> None:
    widths: list[int] = []
    handle = MODEL.register_forward_pre_hook(
        lambda _, __, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    text = tuple(n % V for n in range(PREFILL_CHUNK + 10))
    follower = Follower(MODEL)
    try:
        follower.score([text], live=[text])
        follower.score([(*text, 5)], live=[(*text, 5)])
        follower.score([(*text, 5)], live=[(*text, 5)])
    finally:
        handle.remove()
    assert widths == [PREFILL_CHUNK, 10, 1]


def test_scores_may_be_changed_by_whoever_asked() -> None:
    follower = Follower(MODEL)
    first = follower.score([(1, 2)], live=[(1, 2)])[(1, 2)]
    first += 1  # neither kept nor an inference tensor
    again = follower.score([(1, 2)], live=[(1, 2)])[(1, 2)]
    torch.testing.assert_close(again, oracle((1, 2)), atol=1e-4, rtol=0)


def test_no_text_is_in_a_repr() -> None:
    follower = Follower(MODEL)
    follower.score([(1, 2)], live=[(1, 2)])
    assert "1, 2" not in repr(follower._strands)
