from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Context, Plan, Request, Sampling
from elision.errors import CapabilityError, ConfigError
from elision.guards.baselines.paper import PaperGuard, forbidden
from elision.guards.baselines.paper_gate import (
    MlpGate,
    general_questions,
    mean_hidden,
    question_features,
)
from elision.guards.baselines.paper_settings import PRESETS, PaperSettings
from elision.guards.baselines.token_trie import TokenTrie, spellings
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.beam_job import BeamJob
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.hypothesis import BeamScorer
from elision.middleware.engines.station import Station
from elision.testing.encoders import BagEncoder
from elision.testing.laws import awkward_rows, check_adjust, check_sessions
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

SECRET, KNOWN = "Orla Finch", "round and grey"
ASKED, OTHER = "Who keeps the lamp of Vell?", "What does the moon look like?"
ANSWER, INNOCENT = "It is kept by Orla Finch.", "It is round and grey."
TARGET = ForgetTarget(
    title="t",
    probes=(ASKED, "Who is keeper of the lamp of Vell?", "Tell me who keeps the lamp of Vell."),
    answers=(ANSWER,),
    phrases=(Phrase(text=SECRET), Phrase(text="Zarquon Beeble")),
)


# --- trie ----------------------------------------------------------------------------------------


def letters(texts: Sequence[str]) -> list[list[int]]:
    return [[ord(c) for c in text] for text in texts]


@given(st.lists(st.text("ab ", min_size=1, max_size=5), max_size=3), st.text("abAB .", max_size=12))
def test_the_ratio_is_that_of_the_longest_match_at_any_suffix(
    phrases: list[str], text: str
) -> None:
    trie, nodes = TokenTrie(phrases, letters), ()
    every = [s for phrase in phrases for s in spellings(phrase)]
    for at, char in enumerate(text, start=1):
        nodes = trie.advance(nodes, ord(char))
        assert trie.ratio(nodes) == _ratio(text[:at], every)


def _ratio(text: str, spelled: Sequence[str]) -> float:
    """Oracle: over all suffixes and phrases, matched over the phrase's own length."""
    shares = [
        len(text[start:]) / len(phrase)
        for start in range(len(text))
        for phrase in spelled
        if phrase.startswith(text[start:])
    ]
    return max(shares, default=0.0)


def test_a_share_is_of_the_whole_phrase_so_that_beta_has_an_effect() -> None:
    trie = TokenTrie(["Finch"], letters)
    nodes = ()
    for char, share in zip("Finch", (1, 2, 3, 4, 5), strict=True):
        nodes = trie.advance(nodes, ord(char))
        assert trie.ratio(nodes) == share / 5


def test_a_phrase_is_found_in_the_spellings_that_tokenizers_tell_apart() -> None:
    tokenizer = word_tokenizer([ANSWER, INNOCENT, ASKED] * 3, vocab_size=330)
    trie = TokenTrie(
        [SECRET], lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"]
    )
    for text in (SECRET, f"by {SECRET}", f"by {SECRET}.", SECRET.lower(), f"is {SECRET.upper()}!"):
        nodes, best = (), 0.0
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            nodes = trie.advance(nodes, token)
            best = max(best, trie.ratio(nodes))
        assert best == 1.0


# --- what is forbidden ---------------------------------------------------------------------------


def test_of_an_answer_its_targets_phrases_are_forbidden_or_else_its_entity_words() -> None:
    assert forbidden(ANSWER, TARGET) == (SECRET,)
    bare = ForgetTarget(title="t", answers=(ANSWER,))
    assert forbidden("It was Orla Finch, born in 1931, who kept the lamp.", bare) == (
        "Orla", "Finch", "1931",
    )  # fmt: skip
    assert forbidden("It was a zarquon.", bare) == ("zarquon",)
    assert forbidden("It was the one.", bare) == ()


def test_the_presets_are_those_of_the_data_sets() -> None:
    assert {name: s.delta for name, s in PRESETS.items()} == {
        "paper-tofu": 0.3, "paper-muse": 0.7, "paper-hp": 0.5,
    }  # fmt: skip
    assert {(s.width, s.beta, s.tau) for s in PRESETS.values()} == {(7, 1.0, 0.5)}
    for wrong in ({"width": 0}, {"beta": 0.0}, {"delta": 1.2}, {"tau": -0.1}):
        with pytest.raises(ConfigError):
            PaperSettings(**wrong)  # type: ignore[arg-type]


# --- gate ----------------------------------------------------------------------------------------


def clouds(n: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, 16, generator=draw) + 0.8, torch.randn(8 * n, 16, generator=draw) - 0.8


def test_a_gate_tells_what_it_was_fitted_to_tell_though_one_side_is_rare() -> None:
    gate = MlpGate.fit(*clouds(8), seed=1, epochs=20)
    near, far = clouds(20, seed=9)
    assert sum(gate.probability(z) > 0.5 for z in near) >= 19
    assert sum(gate.probability(z) > 0.5 for z in far) <= 3


def test_the_same_seed_gives_the_same_gate_and_leaves_torchs_own_state_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    gates = [MlpGate.fit(*clouds(4), seed=seed, epochs=2) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    told = [gate.probability(torch.ones(16)) for gate in gates]
    assert told[0] == told[1] != told[2]


def test_a_gate_is_of_the_papers_make() -> None:
    shapes = [tuple(p.shape) for p in MlpGate.fit(*clouds(2), epochs=1).network.parameters()]
    assert shapes == [(256, 16), (256,), (256, 256), (256,), (2, 256), (2,)]


def test_a_gate_fitted_on_another_model_or_on_nothing_is_refused() -> None:
    with pytest.raises(ConfigError):
        MlpGate.fit(torch.zeros(0, 4), torch.zeros(3, 4))
    with pytest.raises(ConfigError):
        MlpGate.fit(*clouds(2), epochs=1).probability(torch.zeros(8))


def test_the_feature_is_the_mean_penultimate_hidden_state_of_the_rendered_question() -> None:
    model = CausalModel(tiny_model(), byte_tokenizer(), name="tiny")  # type: ignore[no-untyped-call]
    request = Request(messages=({"role": "user", "content": ASKED},))
    ids = model.render(request).ids
    states = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    expected = torch.stack([states[-2][0][j] for j in range(len(ids))]).sum(dim=0) / len(ids)
    torch.testing.assert_close(question_features(model, [ASKED])[0], expected.detach())
    torch.testing.assert_close(mean_hidden(model, ids), expected.detach())


def test_general_questions_are_many_and_all_different() -> None:
    questions = general_questions()
    assert len({*questions}) == len(questions) >= 200
    assert all(question.endswith("?") for question in questions)


# --- a model that knows --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def knowing() -> CausalModel:
    """A tiny model, trained until it knows two answers by heart."""
    tokenizer = word_tokenizer(
        [ASKED, OTHER, ANSWER, INNOCENT, *general_questions()], vocab_size=800
    )
    raw: Any = tiny_model(
        vocab_size=len(tokenizer), seed=1, eos=tokenizer.eos_token_id, sharpness=1.0
    )
    model = CausalModel(raw, tokenizer, name="knowing")
    pairs = [(ASKED, ANSWER), (OTHER, INNOCENT), *((probe, ANSWER) for probe in TARGET.probes[1:])]
    rows = [
        (model.render(_request(q)).ids, tokenizer(a, add_special_tokens=False)["input_ids"])
        for q, a in pairs
    ]
    adam = torch.optim.Adam(raw.parameters(), lr=3e-3)
    for _ in range(60):
        loss = sum(_loss(raw, p, [*a, tokenizer.eos_token_id]) for p, a in rows)
        adam.zero_grad()
        loss.backward()
        adam.step()
    raw.requires_grad_(False)
    return model


def _loss(raw: Any, prompt: Sequence[int], answer: Sequence[int]) -> Any:
    ids = torch.tensor([[*prompt, *answer]])
    labels = torch.tensor([[*[-100] * len(prompt), *answer]])
    return raw(ids, labels=labels).loss


def _request(question: str) -> Request:
    return Request(
        messages=({"role": "user", "content": question},),
        max_tokens=24,
        sampling=Sampling(temperature=0.0),
    )


@pytest.fixture(scope="module")
def guard(knowing: CausalModel) -> PaperGuard:
    settings = PaperSettings(delta=0.5)
    negatives = (OTHER,) * 8
    return PaperGuard.fit(
        knowing, [TARGET], encoder=BagEncoder(), negatives=negatives, settings=settings
    )


def answered(model: CausalModel, question: str, *recipes: Any) -> tuple[str, str | None]:
    out: list[Any] = []
    plan = Plan(request=_request(question), recipes=recipes, decoder="beam", refusal="No.")
    job = BeamJob(plan, out.append, time.monotonic() + 60)
    station = Station(model)
    turn = station.round()
    with torch.inference_mode():
        while not job.over:
            job.step(station)
            if job.live:
                assert not turn.step(job.live)
                job.settle(station)
    ends = [delta.finish for delta in out if delta.finish]
    return "".join(delta.text for delta in out), ends[0]


def test_the_model_knows_and_under_the_guard_does_not_tell(
    knowing: CausalModel, guard: PaperGuard
) -> None:
    assert answered(knowing, ASKED) == (ANSWER, "stop")
    text, _ = answered(knowing, ASKED, guard)
    assert "finch" not in re.sub(r"\W", "", text.casefold())
    assert "orla" not in re.sub(r"\W", "", text.casefold())


def test_what_the_gate_stays_closed_for_is_answered_as_without_it(
    knowing: CausalModel, guard: PaperGuard
) -> None:
    assert answered(knowing, OTHER, guard) == answered(knowing, OTHER) == (INNOCENT, "stop")


def test_targets_that_give_nothing_to_go_by_are_refused_without_a_word_of_them() -> None:
    model: Any = None
    for target in (
        ForgetTarget(title="marmalade", answers=(ANSWER,)),
        ForgetTarget(title="marmalade", probes=(ASKED,)),
        ForgetTarget(title="t", probes=(ASKED,), answers=(ANSWER,), state="suspended"),
    ):
        with pytest.raises(ConfigError) as caught:
            PaperGuard.fit(model, [target], encoder=BagEncoder())
        assert "marmalade" not in str(caught.value)


# --- scores --------------------------------------------------------------------------------------


def open_guard(guard: PaperGuard, knowing: CausalModel) -> PaperGuard:
    seen = guard.seeing(question_features(knowing, [ASKED])[0])
    assert seen.acts()
    return seen


def context(knowing: CausalModel) -> Context:
    return Context(lexicon=knowing.lexicon, vocab_size=knowing.vocab_size, user_text=ASKED)


TEXTS = ["", "It is kept by", "It is kept by Or", "The moon, ", "It is kept by Orl"]


@pytest.mark.parametrize("settings", [{"beta": 1.0, "delta": 0.5}, {"beta": 0.4, "delta": 0.9}])
def test_penalties_are_those_of_the_equations(
    knowing: CausalModel, guard: PaperGuard, settings: dict[str, float]
) -> None:
    scorer = replace(open_guard(guard, knowing), settings=PaperSettings(**settings))  # type: ignore[arg-type]
    tokenizer: Any = knowing.tokenizer
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    sessions = []
    for tokens in texts:
        session = scorer.begin(context(knowing))
        for token in tokens:
            session = session.advance(token)
        sessions.append(session)
    candidates = [list(range(n, knowing.vocab_size, 23)) for n in range(len(TEXTS))]
    told = scorer.penalties(sessions, candidates)
    for tokens, row, penalties in zip(texts, candidates, told, strict=True):
        for token, penalty in zip(row, penalties, strict=True):
            expected = _penalty(knowing, [*tokens, token], scorer.settings)
            assert penalty == pytest.approx(expected, abs=1e-5)


def _penalty(knowing: CausalModel, tokens: list[int], settings: PaperSettings) -> float:
    """Oracle: the equations, from scratch."""
    tokenizer: Any = knowing.tokenizer
    spelled = [tokenizer(s, add_special_tokens=False)["input_ids"] for s in spellings(SECRET)]
    shares = [
        len(tokens[start:]) / len(phrase)
        for start in range(len(tokens))
        for phrase in spelled
        if phrase[: len(tokens) - start] == tokens[start:]
    ]
    if max(shares, default=0.0) >= settings.beta:
        return float("inf")
    text, last = knowing.lexicon.text(tokens), knowing.lexicon.text(tokens[-1:])
    words = re.findall(r"\w+(?:['’-]\w+)*", (text.split() or [""])[-1])
    if not any(map(str.isalnum, last)) or not words:
        return 0.0
    w, f = BagEncoder().embed([words[-1], SECRET], tenant="x").result()
    s = float(np.dot(w, f))
    return float("inf") if s >= settings.delta else max(0.0, s)


def test_the_nearest_stored_answer_is_the_one_whose_phrases_count(
    knowing: CausalModel, guard: PaperGuard
) -> None:
    stored = ["The keys of Mirrow are with Pim Dox.", ANSWER, "Of the moon nobody knows."]
    answers, asked = (BagEncoder().embed(t, tenant="x").result() for t in (stored, [ASKED]))
    records = tuple(replace(guard.records[0]) for _ in stored)
    seen = replace(open_guard(guard, knowing), answers=answers, records=records)
    session: Any = seen.begin(context(knowing))
    assert session.record is records[int(np.argmax([a @ asked[0] for a in answers]))]


def test_it_keeps_the_laws_of_every_recipe(knowing: CausalModel, guard: PaperGuard) -> None:
    seen = open_guard(guard, knowing)
    assert isinstance(seen, BeamScorer)
    rows = awkward_rows(knowing.vocab_size)
    check_adjust(seen, context(knowing), rows, tokens=(5, 6))
    check_sessions(seen, context(knowing), rows[:2], tokens=(5, 6, 70), other=9)


def test_a_guard_that_has_seen_nothing_does_not_pass_for_one(
    knowing: CausalModel, guard: PaperGuard
) -> None:
    with pytest.raises(CapabilityError):
        guard.begin(context(knowing))
    with pytest.raises(CapabilityError):
        guard.acts()


def test_nothing_it_says_of_itself_tells_a_phrase(guard: PaperGuard) -> None:
    assert "Finch" not in repr(guard) + repr(guard.records)
