"""Traces: what is told is what happened, telling it changes nothing, nothing withheld is told."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elision.contract import (
    Choice,
    Completion,
    Context,
    Delta,
    Here,
    OtherModel,
    OtherPrompt,
    Plan,
    Recipe,
    Redact,
    Refuse,
    Session,
    Stage,
    Stateless,
    Suffix,
    TokenTrace,
    collect,
    in_order,
)
from elision.errors import CapabilityError, RequestError
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.lexicon import TokenizerLexicon
from elision.middleware.buffering import hold_all
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.tracing import Tracer, divergence, entropy, kinds_of
from elision.middleware.interventions import INTERVENTIONS, EntropyMinimisation, LogitBias
from elision.middleware.interventions.base import Chain
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.pipeline import Pipeline
from elision.middleware.profiles import PROFILES
from elision.middleware.rendering import ChatChunks, Head, chat_completion
from elision.middleware.wire import parse_chat
from elision.testing.agents import forgetful
from elision.testing.branches import made_up_branch, with_branches
from elision.testing.laws import check_never_leaks
from elision.testing.scripted import ScriptedEngine
from elision.testing.text_engine import TextEngine

from .test_drafting import causal, free
from .test_rewind import Every, back_to, plan

V = 24
LEXICON = TokenizerLexicon([bytes([97 + n]) for n in range(V)])
CONTEXT = with_branches(Context(lexicon=LEXICON, vocab_size=V, prompt_ids=(1, 2, 3)))
SAMPLED = {"temperature": 0.9, "seed": 5}
SECRET = "Marguerite Delacroix"
FIGURES = [figure.name for figure in fields(TokenTrace)][3:]

rows = st.lists(
    st.one_of(st.floats(-12, 12, width=32), st.just(-math.inf)), min_size=V, max_size=V
).filter(lambda row: max(row) > -math.inf)
chosen = st.lists(st.sampled_from(sorted(INTERVENTIONS)), max_size=5, unique=True)


@dataclass(frozen=True, kw_only=True)
class Forbid(Stateless):
    """Takes tokens out."""

    tokens: tuple[int, ...]
    stage: Stage = Stage.HARD_MASK

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.index_fill(0, torch.tensor(self.tokens), -torch.inf)


@dataclass(frozen=True, kw_only=True)
class Asks(Stateless):
    """Reads branches, each twice, and leaves the row as it is."""

    keys: tuple[Suffix | OtherPrompt | OtherModel, ...]
    stage: Stage = Stage.MIXER

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        for key in (*self.keys, *self.keys):
            here.branch(key)
        return logits


@dataclass(frozen=True)
class Wrapper:
    """Stands for another recipe."""

    inner: Recipe

    @property
    def stage(self) -> Stage:
        return self.inner.stage

    @property
    def rank(self) -> int:
        return self.inner.rank

    def begin(self, context: Context) -> Session:
        return self.inner.begin(context)


def trace_of(row: list[float], *recipes: Recipe, banned: tuple[int, ...] = ()) -> TokenTrace | None:
    """Return what is told of the likeliest token; None where none is left."""
    here = Here(torch.tensor(row), branch=made_up_branch(V))
    tracer = Tracer.of(recipes)
    start = here.raw.index_fill(0, torch.tensor(banned, dtype=torch.long), -torch.inf)
    seen = tracer.watch(Chain.begin(recipes, CONTEXT), start, here)
    if float(seen.final.max()) == -math.inf:
        return None
    return tracer.entry(seen, int(seen.final.argmax()), LEXICON)


def slow(row: list[float]) -> list[float]:
    best = max(row)
    weights = [math.exp(score - best) for score in row]
    return [weight / sum(weights) for weight in weights]


def recipes_of(names: list[str]) -> list[Recipe]:
    return [INTERVENTIONS[name]() for name in names]


# --- what is told of one position ----------------------------------------------------------------


@given(rows, chosen)
def test_a_watched_chain_returns_what_the_chain_returns_and_notes_as_much(
    row: list[float], names: list[str]
) -> None:
    recipes = recipes_of(names)
    chain = Chain.begin(recipes, CONTEXT)
    plain, watched = (Here(torch.tensor(row), branch=made_up_branch(V)) for _ in range(2))
    scores = chain.score(plain.raw, plain)
    seen = Tracer.of(recipes).watch(chain, watched.raw, watched)
    assert torch.equal(seen.reported, scores)
    assert torch.equal(seen.final, chain.choose_from(scores, plain))
    assert (watched.notes, watched.read) == (plain.notes, plain.read)


@given(rows, chosen, st.sets(st.integers(0, V - 1), max_size=V - 1))
def test_the_figures_are_those_of_a_slow_sum(
    row: list[float], names: list[str], forbidden: set[int]
) -> None:
    recipes = [*recipes_of(names), *([Forbid(tokens=tuple(forbidden))] if forbidden else [])]
    told = trace_of(row, *recipes)
    if told is None:
        return
    here = Here(torch.tensor(row), branch=made_up_branch(V))
    after = slow(Chain.begin(recipes, CONTEXT).score(here.raw, here).tolist())
    before, token = slow(row), ord(told.token) - 97
    near = {"rel": 1e-5, "abs": 1e-6}
    assert told.entropy_before == pytest.approx(-sum(p * math.log(p) for p in before if p), **near)
    assert told.entropy_after == pytest.approx(-sum(q * math.log(q) for q in after if q), **near)
    kl = sum(q * math.log(q / p) for q, p in zip(after, before, strict=True) if q > 1e-300)
    assert told.kl == pytest.approx(kl, rel=1e-4, abs=1e-5)
    assert told.kl >= 0
    assert told.prob_before == pytest.approx(before[token], **near)
    assert told.prob_after == pytest.approx(after[token], **near)
    # What a mixer has found implausible is gone before a mask can forbid it.
    mixers = [recipe for recipe in recipes if recipe.stage < Stage.HARD_MASK]
    left = Chain.begin(mixers, CONTEXT).score(here.raw, here)
    banned = sum(before[t] for t in forbidden if left[t] > -math.inf)
    assert told.banned == pytest.approx(banned, **near)


@given(rows, st.sets(st.integers(0, V - 1), max_size=V - 1), st.sets(st.integers(0, V - 1)))
def test_what_a_mask_alone_costs_is_the_logarithm_of_what_it_leaves(
    row: list[float], by_mask: set[int], by_going_back: set[int]
) -> None:
    mask = Forbid(tokens=tuple(by_mask) or (0,))
    told = trace_of(row, mask, banned=tuple(by_going_back))
    if told is not None and told.banned < 1 - 1e-6:
        assert told.kl == pytest.approx(-math.log1p(-told.banned), rel=1e-6, abs=1e-7)


@given(rows)
def test_where_nobody_acts_nothing_has_changed(row: list[float]) -> None:
    told = trace_of(row)
    assert told is not None
    assert (told.acted, told.branches, told.kl, told.banned) == ((), (), 0, 0)
    assert told.entropy_before == told.entropy_after
    assert told.prob_before == told.prob_after


@given(rows, chosen)
def test_who_acted_is_told_in_order_and_is_among_the_recipes(
    row: list[float], names: list[str]
) -> None:
    recipes = recipes_of(names)
    told = trace_of(row, *recipes)
    if told is not None:
        left = iter(type(recipe).__name__ for recipe in in_order(recipes))
        assert all(name in left for name in told.acted)


def test_what_bans_where_nothing_shows_has_not_acted() -> None:
    row = [0.0] * (V - 1) + [-9.0]
    quiet, loud = trace_of(row, Forbid(tokens=(V - 1,))), trace_of(row, Forbid(tokens=(3,)))
    assert quiet is not None
    assert loud is not None
    assert (quiet.acted, loud.acted) == ((), ("Forbid",))
    assert 0 < quiet.banned < 1e-4 < loud.banned
    assert trace_of(row, LogitBias(bias={V - 1: -1.0})).acted == ()  # type: ignore[union-attr]
    assert trace_of(row, LogitBias(bias={0: 1.0})).acted == ("LogitBias",)  # type: ignore[union-attr]


def test_a_recipe_is_told_under_the_name_of_what_it_stands_for() -> None:
    told = trace_of([0.0] * V, Wrapper(Wrapper(Forbid(tokens=(1,)))))
    assert told is not None
    assert told.acted == ("Forbid",)


def test_each_branch_is_told_once_and_by_kind() -> None:
    keys = (OtherPrompt((1,)), Suffix((2, 3)), OtherPrompt((2,)), OtherModel("amateur"))
    told = trace_of([0.0] * V, Asks(keys=keys), Asks(keys=keys[:1]))
    assert told is not None
    assert told.branches == ("prompt", "suffix", "prompt", "model")
    assert told.acted == ()
    assert kinds_of(()) == ()


def test_what_has_no_chance_adds_nothing_to_entropy_and_divergence() -> None:
    p = torch.tensor([0.5, 0.5, 0.0]).log()
    q = torch.tensor([1.0, 0.0, 0.0]).log()
    assert entropy(p) == pytest.approx(math.log(2))
    assert divergence(q, p) == pytest.approx(math.log(2))
    assert divergence(p, p) == entropy(q) == 0


# --- what is told of a reply ---------------------------------------------------------------------


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(causal())
    yield engine
    await engine.aclose()


async def run(engine: Any, plan: Plan) -> Completion:
    return await collect(engine.stream(plan))


def untold(done: Completion) -> tuple[Any, ...]:
    return (tuple(replace(c, trace=()) for c in done.choices), done.usage, dict(done.report))


def words(choice: Choice) -> str:
    return "".join(entry.token for entry in choice.trace)


PLANS: Mapping[str, Plan] = {
    "greedy": free(),
    "sampled": free(EntropyMinimisation(), sampling={**SAMPLED, "top_p": 0.9}, n=2, logprobs=1),
    "masked": plan(max_tokens=24, sampling=SAMPLED),
    "back": plan(Every(lambda t: len(t) in {9, 14} and t[4] % 2 == 0, back_to(4)), max_tokens=20),
    "stopped": plan(max_tokens=40, sampling=SAMPLED, stop=("q", "xy")),
}


@pytest.mark.parametrize("name", PLANS)
async def test_telling_changes_nothing_and_a_drafted_reply_tells_what_the_plain_one_tells(
    engine: LocalEngine, name: str
) -> None:
    wanted = replace(PLANS[name], trace=True)
    plain, told = await run(engine, PLANS[name]), await run(engine, wanted)
    assert untold(told) == untold(plain)
    assert not any(choice.trace for choice in plain.choices)
    assert all(choice.trace for choice in told.choices)
    drafted = await run(engine, replace(wanted, speculation="force"))
    for one, two in zip(told.choices, drafted.choices, strict=True):
        assert one.text == two.text
        for mine, theirs in zip(one.trace, two.trace, strict=True):
            assert (mine.token, mine.acted) == (theirs.token, theirs.acted)
            for figure in FIGURES:
                near = pytest.approx(getattr(theirs, figure), abs=2e-4)
                assert getattr(mine, figure) == near


@pytest.mark.parametrize("name", ["masked", "back"])
async def test_the_tokens_that_are_told_are_the_text(engine: LocalEngine, name: str) -> None:
    told = await run(engine, replace(PLANS[name], trace=True))
    assert words(told.choices[0]) == told.text
    assert len(told.choices[0].trace) == told.usage.completion_tokens


async def test_log_probabilities_and_traces_speak_of_the_same_tokens(engine: LocalEngine) -> None:
    told = await run(engine, replace(PLANS["sampled"], trace=True))
    for choice in told.choices:
        for entry, logprob in zip(choice.trace, choice.logprobs, strict=True):
            assert entry.token == logprob.token
            assert math.log(entry.prob_after) == pytest.approx(logprob.logprob, abs=1e-4)


async def test_each_delta_tells_of_the_text_that_it_carries(engine: LocalEngine) -> None:
    wanted = replace(PLANS["stopped"], trace=True)
    deltas = [delta async for delta in engine.stream(wanted)]
    text = told = ""
    for delta in deltas:
        text += delta.text
        told += "".join(entry.token for entry in delta.trace)
        assert text.startswith(told) or delta.finish


async def test_who_acted_how_often_is_what_the_report_says(engine: LocalEngine) -> None:
    wanted = plan(EntropyMinimisation(), max_tokens=40, sampling=SAMPLED)
    done = await run(engine, replace(wanted, trace=True))
    acted = [name for entry in done.choices[0].trace for name in entry.acted]
    assert acted.count("EntropyMinimisation") == done.report["notes"]["entropy_minimised"] > 0
    assert acted.count("Temperature") == len(done.choices[0].trace) == 40


@pytest.mark.parametrize("speculation", ["off", "force"])
async def test_the_branches_are_told_where_guidance_read_them(
    engine: LocalEngine, speculation: Any
) -> None:
    guided = MinimalIntervention(tau=1.5, negative=(69, 82, 82))
    wanted = replace(free(guided, sampling=SAMPLED), trace=True, speculation=speculation)
    done = await run(engine, wanted)
    trace, notes = done.choices[0].trace, done.report["notes"]
    told = [entry for entry in trace if entry.branches]
    assert len(told) == notes["mti_guided"] > 0
    assert len(trace) == notes["mti_gate_seen"] > len(told)
    assert all(e.branches == ("suffix",) and "MinimalIntervention" in e.acted for e in told)
    assert all(e.entropy_before > 1.5 for e in told)
    assert all(e.entropy_before < 1.5001 for e in trace if not e.branches)


# --- what is withheld ----------------------------------------------------------------------------


async def test_what_was_taken_back_is_not_told(engine: LocalEngine) -> None:
    plain = await run(engine, plan())
    first = plain.text[3]
    once = Every(lambda t: len(t) == 6 and t[3] == ord(first), back_to(3))
    told = await run(engine, replace(plan(once), trace=True))
    entry = told.choices[0].trace[3]
    assert entry.token != first
    assert entry.banned > 0  # how much was banned there is told, what was is not
    assert words(told.choices[0]) == told.text


async def test_of_a_refused_reply_only_what_has_left_is_told(engine: LocalEngine) -> None:
    refusing = Every(lambda t: len(t) == 6, lambda session: Refuse())
    told = await run(engine, replace(plan(refusing), refusal="no", trace=True))
    assert (told.text, told.choices[0].trace) == ("no", ())


async def test_a_redacted_span_is_told_as_its_marker_without_a_number(engine: LocalEngine) -> None:
    span = Every(lambda t: len(t) == 6, lambda session: Redact(2, 5, "#"))
    told = await run(engine, replace(plan(span, logprobs=0), trace=True))
    (choice,) = told.choices
    assert words(choice) == choice.text == told.text[:2] + "#" + told.text[3:]
    marker = choice.trace[2]
    assert marker == TokenTrace(token="#")
    assert all(math.isnan(asdict(marker)[figure]) for figure in FIGURES)
    assert len(choice.trace) == len(choice.logprobs)


# --- all the way through -------------------------------------------------------------------------


ANSWER = f"It was {SECRET}."


@pytest.fixture
def pipe(tmp_path: Path) -> Pipeline:
    register = Register.open(tmp_path)
    engine = ScriptedEngine({"painter": ANSWER}, name="model")
    return Pipeline(engines={"model": engine}, register=register, agentic=forgetful())


def body(**options: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": "Who was the painter?"}]
    elision = {"trace": True, **options.pop("elision", {})}
    return {"model": "model", "messages": asked, "elision": elision, "temperature": 0} | options


@pytest.mark.parametrize(
    ("profile", "action"),
    [
        *((n, "restrict") for n, p in PROFILES.items() if n != "guard-paper" and p.alu == "off"),
        *((name, action) for name in ("guarded", "buffered") for action in ("redact", "refuse")),
    ],
)
async def test_a_banned_phrase_is_in_no_trace(pipe: Pipeline, profile: str, action: Any) -> None:
    request = parse_chat(body()).request
    before = await collect(pipe.run(request, profile=profile))
    assert SECRET in words(before.choices[0])
    pipe.register.add(ForgetTarget(title="t", phrases=(Phrase(text=SECRET),), action=action))
    done = await collect(pipe.run(request, profile=profile))
    check_never_leaks(done, [SECRET])
    untraced = parse_chat(body(elision={"trace": False})).request
    plain = await collect(pipe.run(untraced, profile=profile))
    assert [c.text for c in done.choices] == [c.text for c in plain.choices]
    assert not any(c.trace for c in plain.choices)


async def test_the_banned_mass_is_what_the_guard_notes(pipe: Pipeline) -> None:
    pipe.register.add(ForgetTarget(title="t", phrases=(Phrase(text=SECRET),)))
    done = await collect(pipe.run(parse_chat(body()).request, profile="plain"))
    (choice,) = done.choices
    assert sum(entry.banned for entry in choice.trace) == pytest.approx(
        done.report["notes"]["guard.masked"], abs=1e-4 * len(choice.trace)
    )
    masked = [entry for entry in choice.trace if entry.acted]
    assert masked
    assert max(entry.banned for entry in masked) > 0.5
    assert all(entry.banned >= 1e-4 for entry in masked)


async def test_a_streamed_reply_tells_over_http_what_a_whole_one_tells(pipe: Pipeline) -> None:
    pipe.register.add(ForgetTarget(title="t", phrases=(Phrase(text=SECRET),), action="redact"))
    request = parse_chat(body(n=2)).request
    head = Head(id="x", created=0, model="model", fingerprint="f")
    chunks, streamed = ChatChunks(head), dict[int, list[Any]]()
    async for delta in pipe.run(request):
        for chunk in chunks.of(delta):
            (choice,) = orjson.loads(orjson.dumps(chunk))["choices"]
            told = choice.get("elision", {"trace": []})["trace"]
            streamed.setdefault(choice["index"], []).extend(told)
    done = await collect(pipe.run(request))
    whole = orjson.loads(orjson.dumps(chat_completion(head, done, logprobs=False)))
    assert {c["index"]: c["elision"]["trace"] for c in whole["choices"]} == streamed
    markers = [entry for entry in streamed[0] if entry["token"] == "[redacted]"]
    assert [entry["kl"] for entry in markers] == [None]
    assert set(streamed[0][0]) == {figure.name for figure in fields(TokenTrace)}


@pytest.mark.parametrize("verdicts", [(), (Redact(0, 2, "#"),)])
async def test_the_last_check_lets_a_trace_go_with_its_text_or_not_at_all(
    verdicts: tuple[Redact, ...],
) -> None:
    entry = TokenTrace(token="ab", kl=0.5)

    async def deltas() -> AsyncGenerator[Delta, None]:
        yield Delta(text="ab", trace=(entry,), finish="stop")

    async with aclosing(hold_all(deltas(), lambda text: verdicts if "a" in text else ())) as held:
        done = await collect(held)
    want = ("#", ()) if verdicts else ("ab", (entry,))
    assert (done.text, done.choices[0].trace) == want


async def test_what_is_not_asked_for_is_not_in_the_body(pipe: Pipeline) -> None:
    request = parse_chat(body(elision={"trace": False})).request
    done = await collect(pipe.run(request))
    head = Head(id="x", created=0, model="model", fingerprint="f")
    assert "elision" not in chat_completion(head, done, logprobs=False)["choices"][0]


async def test_an_engine_that_cannot_tell_says_so(tmp_path: Path) -> None:
    register = Register.open(tmp_path)
    pipe = Pipeline(engines={"model": TextEngine({"painter": ANSWER})}, register=register)
    with pytest.raises(CapabilityError, match="trace"):
        await collect(pipe.run(parse_chat(body()).request))


async def test_a_beam_search_says_that_it_tells_nothing(pipe: Pipeline) -> None:
    with pytest.raises(RequestError, match="trace"):
        await collect(pipe.run(parse_chat(body()).request, profile="guard-paper"))


def test_a_trace_is_asked_for_by_true_or_false() -> None:
    with pytest.raises(RequestError) as refused:
        parse_chat(body(elision={"trace": 1}))
    assert refused.value.param == "elision.trace"
