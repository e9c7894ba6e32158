"""Token Recycling inside transformers' generate: the same tokens, its processors and criteria."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

import elision
from elision.errors import ConfigError
from elision.testing.models import ARCHITECTURES, Architecture, tiny_model

PROMPT = torch.tensor([[*b"Once upon a time there was"]])
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "temperature": {"do_sample": True, "temperature": 0.7, "top_k": 0},
    "all": {
        "do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.9,
        "repetition_penalty": 1.2, "no_repeat_ngram_size": 3,
    },
}  # fmt: skip


def tiny(architecture: Architecture = "llama", **options: Any) -> Any:
    return tiny_model(architecture, **options)


def generate(model: Any, ids: torch.Tensor = PROMPT, *, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    asked = {"max_new_tokens": 60, "pad_token_id": 258, "do_sample": False, **options}
    asked.setdefault("attention_mask", torch.ones_like(ids))
    return model.generate(ids, **asked)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        pytest.param(a, n, marks=() if a == "llama" or n == "all" else pytest.mark.slow)
        for a in ARCHITECTURES
        for n in SAMPLING
    ],
)
def test_the_tokens_are_those_of_generate(architecture: Architecture, name: str) -> None:
    model, recycling = tiny(architecture), elision.recycling(speculation="force")
    for seed in (0, 1, 2):
        want = generate(model, seed=seed, **SAMPLING[name])
        got = generate(model, seed=seed, **SAMPLING[name], custom_generate=recycling)
        assert got.tolist() == want.tolist()


@pytest.mark.parametrize("speculation", ["auto", "off", "force"])
def test_an_end_token_inside_a_draft_ends_the_reply(speculation: Any) -> None:
    model = tiny()
    plain = generate(model)[0, PROMPT.shape[1] :].tolist()
    end = plain[40]
    recycling = elision.recycling(speculation=speculation)
    for _ in range(2):
        got = generate(model, eos_token_id=end, custom_generate=recycling)
        assert got[0, PROMPT.shape[1] :].tolist() == plain[: plain.index(end) + 1]


@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_never_more_tokens_than_asked_for(n: int) -> None:
    model, recycling = tiny(), elision.recycling(speculation="force")
    for _ in range(2):
        got = generate(model, max_new_tokens=n, custom_generate=recycling)
        assert got.shape[1] == PROMPT.shape[1] + n


def test_rows_of_different_lengths_are_each_what_they_are_alone() -> None:
    model, recycling = tiny(), elision.recycling(speculation="force")
    prompts = [[*b"Once upon"], [*b"It was the best of times, it was"], [*b"Call me"]]
    longest = max(map(len, prompts))
    padded = torch.tensor([[258] * (longest - len(p)) + p for p in prompts])
    mask = (padded != 258).long()
    got = generate(model, padded, attention_mask=mask, custom_generate=recycling)
    for n, prompt in enumerate(prompts):
        alone = generate(model, torch.tensor([prompt]))
        assert got[n, longest:].tolist() == alone[0, len(prompt) :].tolist()


class Counts(torch.nn.Module):
    """A processor with a memory: it must see a prefix that grows token by token."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append(ids[0].tolist())
        return scores.index_fill(1, ids[0, -1:], -torch.inf)


def test_a_processor_with_a_memory_sees_what_it_sees_in_generate() -> None:
    model, recycling = tiny(), elision.recycling(speculation="force")
    plain, drafted = Counts(), Counts()
    want = generate(model, logits_processor=[plain])
    generate(model, custom_generate=recycling)
    got = generate(model, logits_processor=[drafted], custom_generate=recycling)
    assert got.tolist() == want.tolist()
    assert drafted.seen == plain.seen


class After(StoppingCriteria):
    """Stop behind the first occurrence of a token."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return input_ids[:, -1] == self.token


def test_stopping_criteria_stop_where_they_stop_generate() -> None:
    model, recycling = tiny(), elision.recycling(speculation="force")
    token = int(generate(model)[0, -20])
    stops = StoppingCriteriaList([After(token)])
    want = generate(model, stopping_criteria=stops)
    generate(model, custom_generate=recycling)
    got = generate(model, stopping_criteria=stops, custom_generate=recycling)
    assert got.tolist() == want.tolist()


class Listens(BaseStreamer):  # type: ignore[misc] # untyped in transformers
    def __init__(self) -> None:
        self.heard: list[int] = []
        self.n_ends = 0

    def put(self, value: torch.Tensor) -> None:
        self.heard += value.flatten().tolist()

    def end(self) -> None:
        self.n_ends += 1


def test_a_streamer_hears_prompt_and_tokens_in_order() -> None:
    model, streamer = tiny(), Listens()
    recycling = elision.recycling(speculation="force", streamer=streamer)
    got = generate(model, custom_generate=recycling)
    assert streamer.heard == got[0].tolist()
    assert streamer.n_ends == 1


def test_scores_come_as_from_generate() -> None:
    model, recycling = tiny(), elision.recycling(speculation="force")
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    want = generate(model, **asked, repetition_penalty=1.3)
    generate(model, custom_generate=recycling)
    got = generate(model, **asked, repetition_penalty=1.3, custom_generate=recycling)
    assert got.sequences.tolist() == want.sequences.tolist()
    for mine, plain in zip((*got.scores, *got.logits), (*want.scores, *want.logits), strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"num_beams": 2}, "num_beams"),
        ({"return_dict_in_generate": True, "output_attentions": True}, "attentions"),
    ],
)
def test_what_it_cannot_do_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        generate(tiny(), custom_generate=elision.recycling(), **asked)


def test_a_model_that_is_gone_is_forgotten() -> None:
    model, recycling = tiny(), elision.recycling()
    generate(model, custom_generate=recycling)
    assert len(recycling._desks) == 1
    del model
    gc.collect()
    assert len(recycling._desks) == 0
