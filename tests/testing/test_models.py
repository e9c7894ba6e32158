from __future__ import annotations

import pytest
import torch

from elision.errors import ConfigError
from elision.testing.models import ARCHITECTURES, tiny_model

PROMPTS = [[65 + n, 70, 80] for n in range(4)]


def _greedy(model, prompt: list[int], n: int = 40) -> list[int]:
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([prompt]), max_new_tokens=n, do_sample=False, pad_token_id=0
        )
    return out[0, len(prompt) :].tolist()


def _scores(model, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_seed_gives_the_same_model_and_another_seed_another(architecture) -> None:
    one, same = tiny_model(architecture, seed=1), tiny_model(architecture, seed=1)
    other = tiny_model(architecture, seed=2)

    assert torch.equal(_scores(one, PROMPTS[0]), _scores(same, PROMPTS[0]))
    assert not torch.equal(_scores(one, PROMPTS[0]), _scores(other, PROMPTS[0]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_replies_wander_and_differ_by_prompt(architecture) -> None:
    model = tiny_model(architecture)
    replies = [_greedy(model, prompt) for prompt in PROMPTS]

    assert len({tuple(reply) for reply in replies}) == len(PROMPTS)
    assert min(len(set(reply)) for reply in replies) >= 5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_depend_on_the_whole_prefix(architecture) -> None:
    model = tiny_model(architecture)
    ends = [_scores(model, [n, 70, 80, 90])[-1] for n in range(2)]

    assert (ends[0] - ends[1]).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_float32_and_spread_as_asked(architecture) -> None:
    rows = _scores(tiny_model(architecture, vocab_size=1000, sharpness=2.0), list(range(20)))

    assert rows.dtype == torch.float32
    assert rows.shape == (20, 1000)
    assert rows.std(dim=-1).mean() == pytest.approx(2.0, rel=0.15)


def test_building_a_model_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    tiny_model("qwen2")

    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_reply_ends_at_the_given_token() -> None:
    free = _greedy(tiny_model(), PROMPTS[0])
    bound = _greedy(tiny_model(eos=free[3]), PROMPTS[0])

    assert bound == free[: free.index(free[3]) + 1]


def test_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'mamba'"):
        tiny_model("mamba")  # type: ignore[arg-type]
