"""The chain where vLLM drafts: the same tokens as one by one, drafted or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .scripted_orders import MASKS, NEGATIVE, ORDERS, PROMPT, SECRETS, alone
from .scripted_runner import ScriptedRunner

pytestmark = pytest.mark.usefixtures("scripted_vllm")


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pads", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("name", ORDERS)
def test_a_reply_is_what_is_written_token_by_token(name: str, pads: bool, runner: Any) -> None:
    runner.pads = pads
    runner.add("a", PROMPT, ORDERS[name])
    assert runner.run("a", 40) == alone(PROMPT, ORDERS[name], 40)


def test_the_oracle_tells_orders_apart() -> None:
    texts = {name: bytes(alone(PROMPT, one, 40)).decode() for name, one in ORDERS.items() if one}
    assert len({*texts.values()}) >= 4
    leaked = {name for name, text in texts.items() if any(one in text for one in SECRETS)}
    assert leaked == {"plain", "em-inf", "recycling"}
    assert bytes(NEGATIVE).decode() in texts["mti-guarded"]


TURNS = st.lists(
    st.tuples(st.sampled_from([*ORDERS]), st.integers(1, 3), st.integers(0), st.integers(0, 3)),
    min_size=3,
    max_size=7,
)


@settings(max_examples=12)
@given(turns=TURNS)
def test_replies_side_by_side_that_come_and_wait_are_each_as_alone(turns: list[Any]) -> None:
    runner = ScriptedRunner()
    runner.load_model()
    for n, (name, n_steps, chosen, n_kept) in enumerate(turns):
        prompt = (*PROMPT, 97 + n)
        runner.add(f"{n} {name}", prompt, ORDERS[name])
        runner.pads = bool(chosen & 1)
        runner.cut = {one: n_kept for one in runner.requests if "mti" not in one}
        waiting = [one for place, one in enumerate(runner.requests) if chosen >> place & 1]
        for _ in range(n_steps):
            runner.step([one for one in runner.requests if one not in waiting] or waiting)
    for n, (name, *_) in enumerate(turns):
        tokens = runner.end(f"{n} {name}")
        assert tokens == alone((*PROMPT, 97 + n), ORDERS[name], len(tokens))


def test_recycling_takes_fewer_steps_for_the_same_reply() -> None:
    steps, replies = [], []
    for one in (ORDERS["plain"], ORDERS["recycling"]):
        runner = ScriptedRunner()
        runner.load_model()
        for name in ("a", "b"):
            runner.add(name, PROMPT, one)
            runner.run(name, 40, [name])
        steps.append(runner.n_steps)
        replies.append([state.output_token_ids[:40] for state in runner.requests.values()])
    assert replies[0] == replies[1]
    assert steps[1] < 0.75 * steps[0]


@pytest.mark.parametrize("n_kept", [0, 1])
def test_where_the_draft_is_cut_mti_leaves_the_position_alone(n_kept: int, runner: Any) -> None:
    runner.cut = {"a": n_kept}
    runner.add("a", PROMPT, ORDERS["mti"])
    assert runner.run("a", 16) == alone(PROMPT, ORDERS["plain"], 16)


def test_a_draft_of_other_tokens_is_not_read_as_the_negative_prompt_s(runner: Any) -> None:
    runner.add("a", PROMPT, ORDERS["mti"])
    free = alone(PROMPT, ORDERS["plain"], 8)
    for n in range(8):
        runner._drafts = {"a": [0, 0]}
        runner.step()
        assert runner.requests["a"].output_token_ids[: n + 1] == free[: n + 1]


def test_sampling_scores_are_float32_and_a_half_s_are_not_written_into(runner: Any) -> None:
    runner.model.inner.to(torch.bfloat16)
    runner.add("a", PROMPT, ORDERS["guarded"])
    logits = runner.step()
    assert logits.dtype == torch.float32
    assert not logits.isnan().any()


def test_rows_that_pad_are_followed_by_nobody_and_taught_to_nobody(
    runner: Any, caplog: Any
) -> None:
    runner.pads = True
    runner.add("a", PROMPT, ORDERS["recycling-guarded"])
    runner.add("b", PROMPT, ORDERS["recycling-penalty"])
    scores = runner.step()
    assert scores.isfinite().sum(-1).tolist()[1:5] == [1, 1, 1, 1]
    assert runner.drafter._recycled.propose(("p", ""), PROMPT[-1], 1, ())
    assert runner.drafter._recycled.propose(("p", MASKS.digest), PROMPT[-1], 1, ())
    assert not caplog.records
