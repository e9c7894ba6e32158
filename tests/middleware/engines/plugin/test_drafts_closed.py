"""Where vLLM drafts nothing gets past a guard: what is not known ends the reply or the start."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError, EngineError
from elision.middleware.engines.plugin.layout import slots_of
from elision.middleware.engines.plugin.orders import KEY, Order
from elision.middleware.engines.plugin.proposer import ElisionProposer
from elision.middleware.engines.plugin.restricting import restrict_

from .scripted_orders import MTI, NEGATIVE, ORDERS, PROMPT, alone
from .scripted_runner import EOS, N_CONTEXT, STOP, Batch, ScriptedRunner, TinyModel, vllm_modules
from .scripted_runner import config as vllm_config

pytestmark = pytest.mark.usefixtures("scripted_vllm")


# --- fail closed ---------------------------------------------------------------------------------


def forces(logits: torch.Tensor, token: int) -> bool:
    return bool(
        (logits.isfinite().nonzero()[:, 1] == token).all() and logits.isfinite().any(1).all()
    )


@pytest.mark.parametrize(
    "one",
    [
        Order(stop=STOP, guard="f" * 32),
        Order(stop=STOP, guard="f" * 32, recipes=(MTI,)),
        Order(stop=STOP, recipes=(replace(MTI, negative=(1, 2, 3, 4, 5)),)),
        Order(stop=STOP, recipes=(replace(MTI, tau=None),)),
        Order(stop=STOP, recipes=(MTI, replace(MTI, negative=(9,)))),
    ],
    ids=["unknown masks", "and MTI", "long", "by share", "two"],
)
def test_what_cannot_be_done_here_stops_its_row_alone(one: Order, runner: Any) -> None:
    runner.add("a", PROMPT, one)
    runner.add("b", PROMPT, ORDERS["guarded"])
    assert forces(runner.step()[:1], STOP)
    assert runner.run("b", 12) == alone(PROMPT, ORDERS["guarded"], 12)


@pytest.mark.parametrize(
    "given", [{KEY: "no order"}, {KEY: 5}, {"elision_seal": "00"}], ids=["text", "number", "seal"]
)
def test_an_order_that_cannot_be_read_stops_its_row(given: dict[str, Any], runner: Any) -> None:
    runner.add("a", PROMPT, None, **given)
    assert forces(runner.step(), EOS)


def test_an_order_without_the_secret_s_seal_stops_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELISION_VLLM_SECRET", "a secret")
    runner = ScriptedRunner()
    runner.load_model()
    runner.add("a", PROMPT, ORDERS["plain"])
    assert forces(runner.step(), EOS)


def test_where_rows_do_not_fit_every_reply_ends_if_one_has_an_order(runner: Any) -> None:
    runner.add("a", PROMPT, ORDERS["guarded"])
    runner.add("b", PROMPT, None)
    runner.schedule()
    fit = runner.execute_model()
    runner.input_batch = Batch(["a", "b"], [[5], []])
    hidden = runner.model.hidden(PROMPT)
    scores = [_as_runner(runner, hidden[:n]) for n in (1, 2, 4)]
    assert all(forces(one, STOP) for one in scores)
    assert not runner.drafter._draft(runner.drafter._seats.find("a"), 9)
    assert not forces(fit, STOP)
    runner.end("a")
    runner.input_batch = Batch(["b"], [[]])
    assert not forces(_as_runner(runner, hidden[:4]), EOS)


@pytest.mark.parametrize("name", ["recycling-guarded", "mti-guarded"])
def test_of_a_request_that_was_stopped_nothing_more_comes_whoever_overrules_it(
    name: str, runner: Any
) -> None:
    runner.add("a", PROMPT, ORDERS[name])
    runner.add("b", PROMPT, ORDERS[name])
    runner.run("a", 8)
    row = runner.drafter._seats.find("a").row
    _, row._worker = row._worker, SimpleNamespace(vocab_size=0)  # no token is the model's
    runner.step()
    row._worker = runner.drafter._worker
    n_said = len(runner.requests["a"].output_token_ids)
    assert runner.requests["a"].output_token_ids[-1] == STOP
    runner.requests["a"].output_token_ids[-1] = PROMPT[0]  # as behind a grammar of vLLM's
    runner.run("a", n_said + 4, ["a"])
    assert {*runner.requests["a"].output_token_ids[n_said:]} == {STOP}
    assert not runner._drafts["a"]
    assert runner.run("b", 16, ["b"]) == alone(PROMPT, ORDERS[name], 16)


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"allowed_token_ids": [STOP, 97, 98]}, [98]),
        ({"allowed_token_ids": [STOP, 97]}, [STOP]),
        ({"allowed_token_ids": [STOP, 98], "bad_words_token_ids": [[5, 98], [98]]}, [STOP]),
        ({"allowed_token_ids": [STOP, 98], "bad_words_token_ids": [[5, 98], [5]]}, [98]),
    ],
)
def test_where_masks_and_vllm_s_own_leave_nothing_the_row_is_dead(
    fields: dict[str, Any], left: list[int], runner: Any
) -> None:
    runner.add("a", PROMPT, Order(stop=STOP, bans={0: (97,)}), **fields)
    runner.add("b", PROMPT, ORDERS["guarded"])
    logits = runner.step()
    assert logits[0].isfinite().nonzero().flatten().tolist() == left
    assert runner.run("b", 12) == alone(PROMPT, ORDERS["guarded"], 12)


@given(
    said=st.lists(st.integers(0, 2), max_size=6),
    drafts=st.lists(st.integers(0, 2), max_size=3),
    bad=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), max_size=4),
)
def test_no_row_completes_a_bad_word(
    said: list[int], drafts: list[int], bad: list[list[int]]
) -> None:
    scores = torch.zeros(len(drafts) + 2, 3)  # one more, which pads
    restrict_(scores, SimpleNamespace(bad_words_token_ids=bad), said, drafts)
    for n in range(len(drafts) + 1):
        before = [*said, *drafts[:n]]
        for token in range(3):
            completes = any([*before, token][-len(ids) :] == ids for ids in bad)
            assert scores[n, token].isneginf().item() is completes
    assert scores[-1].eq(0).all()


def test_behind_a_step_that_was_not_adjusted_no_reply_goes_on(runner: Any) -> None:
    runner.add("a", PROMPT, ORDERS["guarded"])
    runner.run("a", 4)
    runner.elsewhere(2)
    assert forces(runner.step(), STOP)


def _as_runner(runner: ScriptedRunner, hidden: torch.Tensor) -> torch.Tensor:
    @torch.inference_mode()
    def execute_model() -> Any:
        return runner.model.compute_logits(hidden)

    scores: torch.Tensor = execute_model()
    return scores


def test_scores_for_prompts_and_for_warming_up_are_the_model_s_own(runner: Any) -> None:
    runner.add("a", PROMPT, ORDERS["guarded"])
    runner.schedule()
    model = TinyModel()
    for n_rows in (1, 3):
        want = model.compute_logits(model.hidden(range(n_rows)))
        assert torch.equal(runner._get_prompt_logprobs_dict(n_rows), want)
        assert torch.equal(runner._dummy_sampler_run(n_rows), want)
        assert forces(runner.elsewhere(n_rows), STOP), "nobody knows what these are for"
    runner.end("a")
    runner.schedule()
    assert torch.equal(runner.elsewhere(3), model.compute_logits(model.hidden(range(3))))


def test_ranks_without_scores_have_none(runner: Any) -> None:
    runner.drafter._hook._compute = lambda *_: None
    runner.add("a", PROMPT, ORDERS["recycling"])
    runner.schedule()
    assert runner.model.compute_logits(None) is None
    assert runner.drafter.propose([[]], [len(PROMPT)], None) == [[]]


def test_a_proposer_that_breaks_drafts_nothing(runner: Any, monkeypatch: Any) -> None:
    runner.add("a", PROMPT, ORDERS["recycling"])
    runner.run("a", 12)

    def broken(*_: Any) -> Any:
        raise RuntimeError("the sea")

    monkeypatch.setattr(type(runner.drafter._recycled), "propose", broken)
    monkeypatch.setattr(type(runner.drafter._recycled), "learn", broken)
    assert runner.run("a", 24) == alone(PROMPT, ORDERS["recycling"], 24)


def test_a_name_that_comes_again_is_another_request(runner: Any) -> None:
    runner.add("a", PROMPT, ORDERS["guarded"])
    runner.run("a", 8)
    runner.end("a")
    runner._drafts = {}
    runner.add("a", PROMPT, ORDERS["em-inf"])
    assert runner.run("a", 8) == alone(PROMPT, ORDERS["em-inf"], 8)
    runner.end("a")
    runner.add("b", PROMPT, None)
    runner.step()
    assert len(runner.drafter._seats) == 0


def test_drafts_stop_at_the_context_s_end_and_at_the_last_token(runner: Any) -> None:
    assert runner.effective_drafter_max_model_len == N_CONTEXT
    runner.add("a", PROMPT, ORDERS["mti"], max_tokens=200)
    runner.add("b", PROMPT, ORDERS["recycling"], max_tokens=6)
    while runner.n_tokens("a") < N_CONTEXT - 1:
        runner.step()
        assert runner.effective_drafter_max_model_len == N_CONTEXT + 4
        left = N_CONTEXT - runner.n_tokens("a") - 1
        assert runner._drafts["a"] == ([*NEGATIVE] if left >= len(NEGATIVE) else [])
        n_said = len(runner.requests["b"].output_token_ids)
        assert len(runner._drafts["b"]) <= max(0, 6 - n_said - 1)


def test_nothing_of_a_request_is_logged(runner: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    runner.add("a", PROMPT, Order(stop=STOP, guard="f" * 32, user_text="the sea"))
    runner.step()
    runner.elsewhere(2)
    told = caplog.text
    assert "GuardError" in told
    assert "EngineError" in told
    assert "the sea" not in told
    assert "ffff" not in told


# --- at the start --------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["requests", "input_batch", "_get_prompt_logprobs_dict"])
def test_a_runner_that_is_not_known_does_not_load(missing: str) -> None:
    runner = ScriptedRunner()
    unknown = type("Unknown", (), {"load_model": ScriptedRunner.load_model})()
    for name, value in {**vars(runner), "execute_model": 1, "_dummy_sampler_run": 1}.items():
        setattr(unknown, name, value)
    unknown._get_prompt_logprobs_dict = 1
    delattr(unknown, missing)
    with pytest.raises(EngineError, match=missing):
        unknown.load_model()


def test_without_a_runner_above_nothing_is_loaded() -> None:
    proposer = ElisionProposer(vllm_config(4))
    with pytest.raises(EngineError, match="not found"):
        proposer.load_model(TinyModel())


@pytest.mark.parametrize(("version", "is_taken"), [("0.32.1+cpu", True), ("0.33.0", False)])
def test_only_versions_that_were_tested_start(
    version: str, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", vllm_modules(version)["vllm"])
    if is_taken:
        ElisionProposer(vllm_config(4))
        return
    with pytest.raises(EngineError, match="ELISION_VLLM_UNTESTED"):
        ElisionProposer(vllm_config(4))
    monkeypatch.setenv("ELISION_VLLM_UNTESTED", "1")
    ElisionProposer(vllm_config(4))


def test_rows_are_the_requests_in_order_each_with_its_drafts() -> None:
    slots = slots_of(Batch(["a", "b", "c"], [[1, 2], [], [3]]), 6)
    assert [(slot.request, slot.first, slot.end) for slot in slots] == [
        ("a", 0, 3),
        ("b", 3, 4),
        ("c", 4, 6),
    ]
    [padded] = slots_of(Batch(["a"], [[5, -1, -1]]), 4)
    assert (padded.drafts, padded.n_padding, padded.end) == ((5,), 2, 4)
    with pytest.raises(EngineError):
        slots_of(Batch(["a"], [[1]]), 1)
    with pytest.raises(EngineError):
        slots_of(Batch(["a", "b"], [[1]]), 2)


def test_a_model_without_an_end_cannot_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ScriptedRunner()
    monkeypatch.setattr(type(runner.drafter._worker), "silent", property(_none))
    with pytest.raises(ConfigError):
        runner.load_model()


def _none(_: object) -> Any:
    raise ConfigError("no end")


def test_the_proposer_brings_none_of_the_gateway_s_packages() -> None:
    unwanted = "pydantic orjson sqlalchemy aiohttp transformers elision.settings"
    code = (
        "import elision.middleware.engines.plugin.proposer, sys;"
        f"print([one for one in {unwanted!r}.split() if one in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
