from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from elision.contract import Context, Here, Session
from elision.errors import ConfigError
from elision.middleware.interventions import FrequencyPresence, Repetition
from elision.middleware.interventions.penalties import History
from elision.testing import byte_lexicon

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "eminf_vectors.json").read_text()
)
V = 16
tokens = st.lists(st.integers(0, V - 1), max_size=30)
rows = st.lists(
    st.one_of(st.floats(-20, 20, width=32), st.just(-float("inf"))), min_size=V, max_size=V
)


def context(prompt: list[int]) -> Context:
    return Context(lexicon=byte_lexicon(), vocab_size=V, prompt_ids=tuple(prompt))


def after(session: Session, reply: list[int]) -> Session:
    for token in reply:
        session = session.advance(token)
    return session


# --- Laws ----------------------------------------------------------------------------------------


@given(way=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=80))
def test_a_history_never_changes_whatever_grows_from_it(way: list[tuple[int, int]]) -> None:
    """Grow from any earlier history, in any order; each must read as the plain tuple does."""
    grown: list[tuple[History, tuple[int, ...]]] = [(History.of([1, 2]), (1, 2))]
    row = torch.zeros(1)
    for parent, token in way:
        history, plain = grown[parent % len(grown)]
        grown.append((history.append(token), (*plain, token)))
    assert all(tuple(h.ids_for(row).tolist()) == plain for h, plain in grown)


@given(prompt=tokens, reply=tokens, row=rows)
def test_the_prompt_does_not_count_for_frequency_and_presence(
    prompt: list[int], reply: list[int], row: list[float]
) -> None:
    z, recipe = torch.tensor(row), FrequencyPresence(frequency=0.5, presence=1)
    with_prompt = after(recipe.begin(context(prompt)), reply).adjust(z, Here(z))
    without = after(recipe.begin(context([])), reply).adjust(z, Here(z))
    assert torch.equal(with_prompt, without)


# --- Parity --------------------------------------------------------------------------------------


@given(
    prompt=tokens.filter(len), reply=tokens, row=rows, penalty=st.sampled_from([0.7, 1.1, 1.3, 2.0])
)
def test_repetition_equals_transformers_to_the_last_bit(
    prompt: list[int], reply: list[int], row: list[float], penalty: float
) -> None:
    z = torch.tensor(row)
    session = after(Repetition(penalty=penalty).begin(context(prompt)), reply)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)
    wanted = theirs(torch.tensor([prompt + reply]), z[None].clone())[0]
    assert torch.equal(session.adjust(z, Here(z)), wanted)


@given(
    reply=tokens,
    row=rows,
    frequency=st.floats(-2, 2, width=16),
    presence=st.floats(-2, 2, width=16),
)
def test_frequency_and_presence_are_what_openai_writes(
    reply: list[int], row: list[float], frequency: float, presence: float
) -> None:
    z, counts = torch.tensor(row), Counter(reply)
    recipe = FrequencyPresence(frequency=frequency, presence=presence)
    got = after(recipe.begin(context([])), reply).adjust(z, Here(z))
    wanted = [
        score - counts[token] * frequency - (counts[token] > 0) * presence
        for token, score in enumerate(row)
    ]
    assert torch.allclose(got, torch.tensor(wanted), atol=1e-4)


# --- Examples ------------------------------------------------------------------------------------


def test_the_worked_example() -> None:
    case = VECTORS["rep_penalty_1.3_token0"]
    z = torch.tensor(case["z"])
    small = Context(lexicon=byte_lexicon(), vocab_size=3, prompt_ids=(0,))
    session = Repetition(penalty=1.3).begin(small)
    raw = session.adjust(z, Here(z)).softmax(-1)
    assert torch.allclose(raw, torch.tensor(case["p_on_raw_logits"]), atol=1e-6)
    logp = z.log_softmax(-1)
    mixed = session.adjust(logp, Here(logp)).softmax(-1)
    assert torch.allclose(mixed, torch.tensor(case["p_on_logprobs"]), atol=1e-6)


def test_a_hundred_occurrences_cost_a_hundred_times_the_penalty_exactly() -> None:
    z = torch.zeros(V)
    session = after(FrequencyPresence(frequency=0.1).begin(context([])), [3] * 1000)
    assert session.adjust(z, Here(z))[3].item() == pytest.approx(-100, rel=1e-7)


def test_ids_that_the_model_does_not_score_are_left_out() -> None:
    z = torch.ones(V)
    out = Repetition(penalty=2).begin(context([-100, V, 10**9, 2])).adjust(z, Here(z))
    assert out.tolist() == [1.0, 1.0, 0.5] + [1.0] * (V - 3)


def test_a_long_reply_is_written_on_a_few_tapes_not_copied_per_token() -> None:
    history, tapes = History.of([]), set()
    for token in range(2000):
        history = history.append(token)
        tapes.add(id(history._tape))
        history_is_whole = history.length == token + 1
        assert history_is_whole
    assert len(tapes) <= 8


def test_a_session_does_not_print_what_was_written() -> None:
    session = after(Repetition(penalty=2).begin(context([13])), [7])
    assert "13" not in repr(session)
    assert "7" not in repr(session)


@pytest.mark.parametrize("penalty", [0, -1, float("nan"), float("inf")])
def test_a_repetition_penalty_is_above_0(penalty: float) -> None:
    with pytest.raises(ConfigError):
        Repetition(penalty=penalty)


@pytest.mark.parametrize("name", ["frequency", "presence"])
def test_penalties_are_finite(name: str) -> None:
    with pytest.raises(ConfigError):
        FrequencyPresence(**{name: float("inf")})
