from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Context, Here
from elision.errors import ConfigError, RequestError
from elision.middleware.interventions import LogitBias
from elision.testing import byte_lexicon

CONTEXT = Context(lexicon=byte_lexicon(), vocab_size=20)


@given(bias=st.dictionaries(st.integers(0, 19), st.floats(-100, 100, width=32)))
def test_every_named_token_moves_by_its_nats_and_no_other(bias: dict[int, float]) -> None:
    z = torch.linspace(-3, 3, 20)
    out = LogitBias(bias=bias).begin(CONTEXT).adjust(z, Here(z))
    wanted = torch.tensor([score + bias.get(n, 0.0) for n, score in enumerate(z.tolist())])
    assert torch.allclose(out, wanted, atol=1e-5)


def test_minus_100_ends_a_tokens_chances_but_leaves_it_as_the_last_resort() -> None:
    session = LogitBias(bias={0: -100}).begin(CONTEXT)
    z = torch.zeros(20)
    z[0] = 30
    assert session.adjust(z, Here(z)).softmax(-1)[0] < 1e-30
    alone = torch.full((20,), -torch.inf)
    alone[0] = 1
    assert session.adjust(alone, Here(alone)).argmax() == 0


@pytest.mark.parametrize("token", [-1, 20, 10**12])
def test_a_token_beyond_the_vocabulary_is_the_callers_mistake(token: int) -> None:
    with pytest.raises(
        RequestError, match=f"token {token}; the model's tokens are 0 to 19"
    ) as told:
        LogitBias(bias={3: 1.0, token: 1.0}).begin(CONTEXT)
    assert told.value.param == "logit_bias"
    assert told.value.status == 400


@pytest.mark.parametrize("nats", [float("inf"), -float("inf"), float("nan")])
def test_a_bias_is_finite(nats: float) -> None:
    with pytest.raises(ConfigError, match="not finite"):
        LogitBias(bias={0: nats})


def test_a_later_change_of_the_callers_dict_changes_nothing() -> None:
    bias = {1: 1.0}
    recipe = LogitBias(bias=bias)
    bias[2] = 5.0
    assert recipe == LogitBias(bias={1: 1.0})
