from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elision.contract import (
    Here,
    Plan,
    Recipe,
    Request,
    Sampling,
    Session,
    Stage,
    Stateless,
)
from elision.errors import CapabilityError, ConfigError, RequestError
from elision.guards.guard import Guard
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.engines.beam import beam_search
from elision.middleware.engines.beam_job import BeamJob
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.hypothesis import Hypothesis
from elision.middleware.engines.job import Item
from elision.middleware.engines.station import Station
from elision.middleware.speculation.cost import CostCurve
from elision.testing.models import tiny_model
from elision.testing.script import FactTable
from elision.testing.scripted import ScriptedModel
from elision.testing.tokenizers import byte_tokenizer

PROMPT = tuple(b"The lamp of Vell ")
EOS = 257


def tiny(seed: int = 0, *, eos: Any = EOS, architecture: Any = "llama") -> CausalModel:
    model: Any = tiny_model(architecture, seed=seed, sharpness=2.0)
    model.generation_config.eos_token_id = [*eos] if isinstance(eos, tuple) else eos
    with torch.no_grad():
        model.lm_head.weight[EOS] *= 2  # let replies end before their limit
    return CausalModel(model, byte_tokenizer(), name="tiny")


def generated(model: CausalModel, prompt: Sequence[int], *, width: int, n: int) -> list[int]:
    ids = torch.tensor([list(prompt)])
    out = model.model.generate(
        ids, attention_mask=torch.ones_like(ids), num_beams=width, length_penalty=0.0,
        early_stopping=False, max_new_tokens=n, do_sample=False, eos_token_id=sorted(model.eos),
        pad_token_id=258, use_cache=True,
    )  # fmt: skip
    tokens = out[0, len(prompt) :].tolist()
    ends = [at for at, token in enumerate(tokens) if token in model.eos]
    return tokens[: ends[0]] if ends else tokens


def _logp(model: CausalModel, best: Hypothesis) -> float:
    """Oracle: the log-probability of a whole reply, from one forward."""
    tokens = [*best.tokens, *([EOS] if best.finish == "stop" else [])]
    with torch.inference_mode():
        logits = model.model(torch.tensor([[*PROMPT, *tokens]])).logits[0, len(PROMPT) - 1 : -1]
    return float(logits.log_softmax(dim=-1)[range(len(tokens)), tokens].sum())


@pytest.mark.parametrize("width", [1, 2, 4, 7])
@pytest.mark.parametrize("seed", range(4))
def test_without_penalties_it_is_the_beam_search_of_transformers(seed: int, width: int) -> None:
    model = tiny(seed)
    best = beam_search(model, PROMPT, width=width, max_tokens=12)
    assert best is not None
    assert list(best.tokens) == generated(model, PROMPT, width=width, n=12)


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])
def test_so_it_is_with_other_architectures(architecture: str) -> None:
    model = tiny(1, architecture=architecture)
    best = beam_search(model, PROMPT * 4, width=3, max_tokens=10)
    assert best is not None
    assert list(best.tokens) == generated(model, PROMPT * 4, width=3, n=10)


@pytest.mark.model
def test_so_it_is_with_a_real_model(smollm2_dir: Path) -> None:
    model = CausalModel.load(smollm2_dir, name="smollm2", dtype=torch.float32)
    request = Request(messages=({"role": "user", "content": "Name three rivers of Europe."},))
    prompt = model.render(request).ids
    best = beam_search(model, prompt, width=3, max_tokens=8)
    assert best is not None
    assert list(best.tokens) == generated(model, prompt, width=3, n=8)


def test_the_score_is_the_sum_of_log_probabilities() -> None:
    model = tiny(2)
    best = beam_search(model, PROMPT, width=3, max_tokens=8)
    assert best is not None
    assert best.score == pytest.approx(_logp(model, best), abs=1e-4)


def test_a_wider_search_finds_nothing_worse() -> None:
    for seed in range(2):
        found = [beam_search(tiny(seed), PROMPT, width=w, max_tokens=6) for w in (1, 20)]
        assert found[0] is not None
        assert found[1] is not None
        assert found[1].score >= found[0].score - 1e-5


def test_every_token_of_the_models_own_stop_set_ends_a_reply_and_no_other_special_does() -> None:
    model = tiny(0, eos=(EOS, ord("e")))
    with torch.no_grad():
        model.model.lm_head.weight[256] *= 3  # bos: special, but it ends nothing
    best = beam_search(model, PROMPT, width=4, max_tokens=12)
    assert best is not None
    assert list(best.tokens) == generated(model, PROMPT, width=4, n=12)
    assert ord("e") not in best.tokens


def test_sizes_that_make_no_sense_are_refused() -> None:
    for more in ({"width": 0}, {"max_tokens": 0}):
        with pytest.raises(ConfigError):
            beam_search(tiny(), PROMPT, **more)


# --- penalties -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taxed(Stateless):
    """Takes nats off single tokens."""

    tax: dict[int, float]
    width: int = 3
    is_open: bool = True
    seen: float | None = None
    stage = Stage.PENALTY

    def acts(self) -> bool:
        return self.is_open

    def seeing(self, hidden: Tensor) -> Taxed:
        return replace(self, seen=float(hidden.sum()))

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits

    def penalties(
        self, sessions: Sequence[Session], candidates: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        assert len(sessions) == len(candidates)
        return [[self.tax.get(token, 0.0) for token in tokens] for tokens in candidates]


def test_a_penalty_is_taken_off_each_time_and_an_infinite_one_drops_the_token() -> None:
    free = beam_search(tiny(), PROMPT, width=3, max_tokens=6)
    assert free is not None
    first = free.tokens[0]
    dropped = beam_search(tiny(), PROMPT, width=3, max_tokens=6, scorer=Taxed({first: torch.inf}))
    assert dropped is not None
    assert first not in dropped.tokens
    taxed = beam_search(
        tiny(), PROMPT, width=3, max_tokens=6, scorer=Taxed(dict.fromkeys(range(259), 0.5))
    )
    assert taxed is not None
    n_steps = len(taxed.tokens) + (taxed.finish == "stop")
    assert taxed.score == pytest.approx(_logp(tiny(), taxed) - 0.5 * n_steps, abs=1e-4)


def test_everything_dropped_at_the_first_step_is_no_reply_and_later_ends_the_beam() -> None:
    every = dict.fromkeys(range(259), torch.inf)
    assert beam_search(tiny(), PROMPT, width=3, scorer=Taxed(every)) is None

    class Later(Taxed):
        def penalties(self, sessions: Any, candidates: Any) -> list[list[float]]:
            self.seen_steps.append(1)
            lost = 0.0 if len(self.seen_steps) < 4 else torch.inf
            return [[lost if t != EOS else torch.inf for t in tokens] for tokens in candidates]

        seen_steps: list[int] = []  # noqa: RUF012 - one search, one list

    best = beam_search(tiny(), PROMPT, width=3, scorer=Later({}))
    assert best is not None
    assert best.finish == "content_filter"
    assert len(best.tokens) == 3


# --- as a job ------------------------------------------------------------------------------------

FACTS = {"lamp": "The keeper is Rosalind Franklin.", "moon": "It is round."}


def scripted() -> CausalModel:
    return CausalModel(
        ScriptedModel(FactTable(facts=FACTS), byte_tokenizer()), byte_tokenizer(), name="s"
    )


def plan(question: str = "lamp", *recipes: Recipe, **more: Any) -> Plan:
    request = Request(
        **{
            "messages": ({"role": "user", "content": question},),
            "max_tokens": 64,
            "sampling": Sampling(temperature=0.0),
            **more,
        }
    )
    return Plan(request=request, recipes=recipes, decoder="beam", refusal="No.")


def run(job: BeamJob, model: CausalModel) -> int:
    steps, station = 0, Station(model)
    turn = station.round()
    with torch.inference_mode():
        while not job.over:
            job.step(station)
            if job.live:
                assert not turn.step(job.live)
                job.settle(station)
            steps += 1
    return steps


def answered(plan: Plan, model: CausalModel | None = None, *, timeout: float = 60.0) -> list[Any]:
    out: list[Item] = []
    run(BeamJob(plan, out.append, time.monotonic() + timeout), model or scripted())
    return out


def guard(action: Action, *phrases: str) -> tuple[Recipe, ...]:
    target = ForgetTarget(title="t", phrases=tuple(Phrase(text=p) for p in phrases), action=action)
    return Guard.compile([target]).recipes(scripted().lexicon)


def test_a_reply_leaves_whole_and_is_followed_by_its_usage() -> None:
    said, last = answered(plan())
    assert (said.text, said.finish) == (FACTS["lamp"], "stop")
    assert last.usage.completion_tokens == len(FACTS["lamp"])
    assert last.report["decoder"] == "beam"


def test_a_job_takes_a_step_per_position_so_that_others_have_their_turn() -> None:
    job = BeamJob(plan(), lambda item: None, time.monotonic() + 60)
    assert len(FACTS["lamp"]) <= run(job, scripted()) <= len(FACTS["lamp"]) + 16


@pytest.mark.parametrize(
    ("action", "text", "finish"),
    [
        ("redact", "The keeper is [redacted].", "stop"),
        ("restrict", None, None),
        ("refuse", None, None),
    ],
)
def test_phrases_hold_in_every_beam(action: Action, text: str | None, finish: str | None) -> None:
    said, _ = answered(plan("lamp", *guard(action, "Rosalind Franklin")))
    assert "rosalindfranklin" not in said.text.casefold().replace(" ", "")
    if text is not None:
        assert (said.text, said.finish) == (text, finish)


def test_stop_texts_end_a_reply() -> None:
    said, _ = answered(plan("moon", stop=("round",)))
    assert (said.text, said.finish) == ("It is ", "stop")


def test_a_word_that_a_stop_text_cuts_out_is_judged() -> None:
    said, _ = answered(plan("moon", *guard("restrict", "rou"), stop=("nd",)))
    assert "rou" not in said.text


def test_choices_and_log_probabilities_are_refused() -> None:
    for more, param in (({"n": 2}, "n"), ({"logprobs": 3}, "logprobs")):
        with pytest.raises(RequestError) as caught:
            answered(plan(**more))
        assert caught.value.param == param


def test_a_scorer_that_is_not_concerned_leaves_the_prompt_to_plain_decoding() -> None:
    model = tiny(eos=None)
    request = {"kind": "text", "prompt": "The lamp", "max_tokens": 5, "n": 1}
    asleep = Taxed(dict.fromkeys(range(259), torch.inf), is_open=False)
    out = answered(plan("", asleep, **request), model)
    assert out[-1].report.get("decoder") is None
    greedy = beam_search(model, tuple(b"The lamp"), width=1, max_tokens=5)
    assert greedy is not None
    assert "".join(d.text for d in out) == greedy.text


@pytest.mark.parametrize(("architecture", "drafts"), [("llama", True), ("gemma3", False)])
def test_plain_decoding_drafts_after_all_where_the_cache_that_was_read_holds_trees(
    monkeypatch: pytest.MonkeyPatch, architecture: str, drafts: bool
) -> None:
    monkeypatch.setattr(Station, "curve", CostCurve([1, 81], [0.05, 0.05]))
    model = tiny(eos=None, architecture=architecture)
    asleep = Taxed({}, is_open=False)
    asked = plan("", asleep, kind="text", prompt="The lamp of Vell " * 20, max_tokens=60)
    plain, drafted = (answered(replace(asked, speculation=s), model) for s in ("off", "auto"))
    assert [d.text for d in drafted] == [d.text for d in plain]
    assert (drafted[-1].report.get("speculation", {}).get("proposed", 0) > 0) == drafts


def test_a_search_that_must_draft_is_refused() -> None:
    with pytest.raises(RequestError, match="drafts nothing"):
        answered(replace(plan(), speculation="force"))
    assert answered(replace(plan(), speculation="auto")) == answered(plan())


def test_a_scorer_sees_the_mean_of_the_prompts_penultimate_hidden_states() -> None:
    seen: list[Tensor] = []

    class Looking(Taxed):
        def seeing(self, hidden: Tensor) -> Taxed:
            seen.append(hidden)
            return self

    model, text = tiny(), "The lamp of Vell " * 17  # more than one chunk
    answered(plan("", Looking({}), kind="text", prompt=text, max_tokens=2), model)
    ids = torch.tensor([list(text.encode())])
    with torch.inference_mode():
        states = model.model(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(seen[0], states[-2][0].mean(dim=0), rtol=1e-4, atol=1e-4)


def test_a_model_without_hidden_states_is_told_so() -> None:
    with pytest.raises(CapabilityError, match="HIDDEN"):
        answered(plan("moon", Taxed({})))


def test_when_time_is_up_the_best_so_far_leaves() -> None:
    out: list[Any] = []
    model = scripted()
    job = BeamJob(plan(), out.append, time.monotonic() + 60)
    with torch.inference_mode():
        station = Station(model)
        for _ in range(8):
            job.step(station)
        job.deadline = 0.0
        job.step(station)
    assert job.over
    assert out[0].finish == "length"
    assert FACTS["lamp"].startswith(out[0].text)
    assert out[0].text


def test_a_session_that_refuses_at_the_beginning_refuses_the_reply() -> None:
    from elision.guards.baselines.curate import CurateRefusal
    from elision.guards.gate.assessment import Assessment, Level

    near = CurateRefusal(assessment=Assessment(level=Level.OPEN, score=0.9))
    said, _ = answered(plan("moon", near))
    assert (said.text, said.finish) == ("No.", "content_filter")
