"""The pipeline over an engine that carries recipes and masks: what it is handed, what comes out."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from elision.contract import Completion, Delta, Engine, Plan, Recipe, Request, Sampling, collect
from elision.errors import CapabilityError
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions.entropy import EntropyMinimisation
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.pipeline import Pipeline
from elision.middleware.starting import REFUSAL
from elision.testing.attacks import Judge, attack, cases, facts_of, planted
from elision.testing.carrying import CarryingEngine
from elision.testing.laws import check_never_leaks, check_speaks_of_nothing
from elision.testing.models import tiny_model
from elision.testing.script import FactTable
from elision.testing.scripted import ScriptedModel
from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

PROSE = (
    "The garden was laid out by a retired captain who planted limes along the wall and a walnut "
    "at the gate. His nephew sold it. Since then it has belonged to the town, which keeps the "
    "paths and forgets the roses; in summer there are concerts and in winter the pond freezes."
)
PROFILES = ("plain", "guarded", "focused", "buffered")
SECRET = "Marguerite Delacroix"
ANSWER = f"The painter was {SECRET}, who lived in Lyon."


@lru_cache(maxsize=1)
def tiny() -> CausalModel:
    tokenizer = word_tokenizer([PROSE] * 3, vocab_size=400)
    return CausalModel(tiny_model(vocab_size=len(tokenizer), seed=5), tokenizer, name="model")


def knowing(**facts: str) -> CausalModel:
    model = ScriptedModel(FactTable(facts=facts or {"painter": ANSWER}), byte_tokenizer())
    return CausalModel(model, byte_tokenizer(), name="model")


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register.open(tmp_path)


def pipeline(register: Register, engine: Engine) -> Pipeline:
    return Pipeline(engines={"model": engine}, register=register)


def ask(question: str = "Who was the painter?", **fields: Any) -> Request:
    sampling = Sampling(**{"temperature": 0.0, **fields.pop("sampling", {})})
    messages = ({"role": "user", "content": question},)
    request = {"model": "model", "messages": messages, "sampling": sampling, "max_tokens": 60}
    return Request(**{**request, **fields})


def target(text: str = SECRET, action: Any = "restrict", **more: Any) -> ForgetTarget:
    phrases = (Phrase(text=text, **more.pop("phrase", {})),)
    return ForgetTarget(title="x", phrases=phrases, action=action, **more)


async def reply(pipe: Pipeline, request: Request, profile: str, **how: Any) -> Completion:
    return await collect(pipe.run(request, profile=profile, **how))


# --- parity --------------------------------------------------------------------------------------

GUIDED = {"guidance": {"mti": {"share": 0.3, "negative": "OUTPUT ERROR"}}}
SHAPES: dict[str, dict[str, Any]] = {
    "bare": {},
    "penalties": {"sampling": {"frequency_penalty": 0.7, "presence_penalty": 0.4}},
    "repetition": {"sampling": {"repetition_penalty": 1.4}},
    "bias": {"sampling": {"logit_bias": {70: 4.0, 80: -100.0}}},
    "mti": {"options": GUIDED},
    "raw": {"kind": "text", "messages": (), "prompt": "The garden was"},
    "drawn": {"sampling": {"temperature": 0.9, "top_p": 0.9, "seed": 7}},
}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEngine]:
    tokenizer = word_tokenizer([PROSE] * 3, vocab_size=400)
    model = CausalModel(tiny_model(vocab_size=len(tokenizer), seed=5), tokenizer, name="model")
    yield (engine := LocalEngine(model))
    asyncio.run(engine.aclose())


def word_of(text: str) -> str:
    """Return the longest word of *text*; the model writes words of the prose between others."""
    return max(re.findall(r"[a-zA-Z]+", text), key=len)


@pytest.mark.parametrize(
    ("profile", "shape"),
    [*(("plain", shape) for shape in SHAPES), ("focused", "bare"), ("focused", "penalties")],
)
async def test_text_equals_the_local_engines(
    register: Register, local: LocalEngine, profile: str, shape: str
) -> None:
    request = ask("Who keeps the paths?", max_tokens=32, **SHAPES[shape])
    carrying = CarryingEngine(tiny())
    here, there = pipeline(register, local), pipeline(register, carrying)
    before = await reply(here, request, profile)
    assert before.text == (await reply(there, request, profile)).text
    phrase = word_of(before.text)
    register.add(target(phrase))
    after = await reply(here, request, profile)
    done = await reply(there, request, profile)

    assert after.text != before.text
    check_never_leaks(done, [phrase])
    assert [c.text for c in done.choices] == [c.text for c in after.choices]
    assert done.report["n_rewinds"] == 0
    assert done.report["guard_form"] == "masked, text"
    assert carrying.n_open == 0


async def test_passages_and_soft_phrases_act_there_too(
    register: Register, local: LocalEngine
) -> None:
    here, there = pipeline(register, local), pipeline(register, CarryingEngine(tiny()))
    request = ask("Who keeps the paths?")
    plain = (await reply(here, request, "plain")).text
    register.add(target(word_of(plain), phrase={"mode": "soft", "beta": 0.9}))
    soft = [(await reply(pipe, request, "plain")).text for pipe in (here, there)]
    assert soft[0] == soft[1] != plain
    register.add(ForgetTarget(title="y", passages=(soft[0][:90],)))
    whole = [(await reply(pipe, request, "plain")).text for pipe in (here, there)]
    assert whole[0] == whole[1] != soft[0]


async def test_reasoning_is_carried_to_an_engine_that_reads_other_scores(
    register: Register, local: LocalEngine
) -> None:
    request, engine = ask("Who keeps the paths?"), CarryingEngine(tiny())
    there = await reply(pipeline(register, engine), request, "reasoning")

    assert there.text == (await reply(pipeline(register, local), request, "reasoning")).text
    assert there.text != (await reply(pipeline(register, local), request, "plain")).text
    assert engine.plans[0].recipes == (MinimalIntervention(share=0.08),)


# --- what is handed over -------------------------------------------------------------------------


async def test_where_nothing_is_registered_and_nothing_asked_the_plan_is_bare(
    register: Register,
) -> None:
    engine = CarryingEngine(knowing())
    done = await reply(pipeline(register, engine), ask(), "plain")

    assert done.text == ANSWER
    assert "guard_form" not in done.report
    (plan,) = engine.plans
    assert (plan.recipes, plan.masks) == ((), None)


async def test_masks_are_of_the_tenant_and_new_with_every_change(register: Register) -> None:
    engine = CarryingEngine(knowing())
    pipe = pipeline(register, engine)
    register.add(target())
    for _ in range(2):
        check_never_leaks(await reply(pipe, ask(), "guarded"), [SECRET])
    one, again = (plan.masks for plan in engine.plans[-2:])
    assert one is not None
    assert again is not None
    assert one.digest == again.digest
    assert SECRET in one.body
    assert SECRET not in repr(one)

    register.add(target("Lyon"))
    assert "Lyon" not in (await reply(pipe, ask(), "guarded")).text
    newest = engine.plans[-1].masks
    assert newest is not None
    assert newest.digest != one.digest
    assert SECRET in (await reply(pipe, ask(), "guarded", tenant="other")).text
    assert engine.plans[-1].masks is None


@pytest.mark.parametrize("action", ["observe", "redact", "refuse"])
async def test_what_is_not_to_be_masked_is_not_carried(register: Register, action: str) -> None:
    engine = CarryingEngine(knowing())
    register.add(target(action=action))
    done = await reply(pipeline(register, engine), ask(), "plain")

    assert engine.plans[0].masks is None
    assert done.report["guard_form"] == "text"
    assert (SECRET in done.text) == (action == "observe")


async def test_penalties_and_bias_act_once_and_in_our_order(register: Register) -> None:
    engine = CarryingEngine(tiny())
    asked = {
        "frequency_penalty": 0.5, "repetition_penalty": 1.2, "logit_bias": {70: 1.0},
        "top_p": 0.9, "top_k": 30, "min_p": 0.01, "temperature": 0.7, "seed": 3,
    }  # fmt: skip
    await reply(pipeline(register, engine), ask("Hm?", sampling=asked, max_tokens=4), "focused")
    (plan,) = engine.plans

    kept = {key: asked[key] for key in ("top_p", "top_k", "min_p", "temperature", "seed")}
    assert plan.request.sampling == Sampling(**kept)  # type: ignore[arg-type]
    names = [type(recipe).__name__ for recipe in plan.recipes]
    assert names == ["LogitBias", "Repetition", "FrequencyPresence", "EntropyMinimisation"]


async def test_the_roles_of_an_audit_are_handed_nothing(register: Register) -> None:
    engine = CarryingEngine(knowing())
    register.add(target())
    done = await reply(pipeline(register, engine), ask(), "alu")

    check_never_leaks(done, [SECRET])
    assert engine.plans
    assert all(plan.masks is None and plan.recipes == () for plan in engine.plans)


# --- what is refused -----------------------------------------------------------------------------


class Choosy(CarryingEngine):
    """Carries what it is told to."""

    def __init__(self, *kinds: type, **how: Any) -> None:
        super().__init__(tiny(), **how)
        self.kinds = kinds

    def carries(self, recipe: Recipe) -> bool:
        return isinstance(recipe, self.kinds)


CFG = {"guidance": {"cfg": {"negative": "Be dull."}}}
CHANCE = {"guidance": {"mti": {"gate": "random"}}}
REFUSED: tuple[tuple[Callable[[], Engine], str, dict[str, Any], tuple[str, str, str]], ...] = (
    (lambda: Choosy(), "focused", {}, ("profile focused", "LOGITS", "model")),
    (lambda: CarryingEngine(tiny(), branches=False), "reasoning", {},
     ("mti of the profile reasoning", "BRANCH", "model")),
    (lambda: CarryingEngine(tiny(), branches=False), "plain", {"options": GUIDED},
     ("elision.guidance.mti", "BRANCH", "elision.guidance.mti")),
    (lambda: CarryingEngine(tiny()), "plain", {"options": CFG},
     ("elision.guidance.cfg", "LOGITS", "elision.guidance.cfg")),
    (lambda: CarryingEngine(tiny()), "plain", {"options": CHANCE},
     ("elision.guidance.mti", "LOGITS", "elision.guidance.mti")),
    (lambda: Choosy(EntropyMinimisation), "focused", {"sampling": {"presence_penalty": 1.0}},
     ("presence_penalty", "LOGITS", "presence_penalty")),
    (lambda: CarryingEngine(tiny()), "guard-paper", {}, ("profile guard-paper", "LOGITS", "model")),
    *((lambda: CarryingEngine(tiny()), "focused", {"options": {option: value}},
       (f"elision.{option}", "LOGITS", "elision"))
      for option, value in (("trace", True), ("deterministic", True), ("speculation", "force"))),
)  # fmt: skip


@pytest.mark.parametrize(("make", "profile", "fields", "told"), REFUSED)
async def test_what_it_cannot_carry_is_refused_by_name(
    register: Register,
    make: Callable[[], Engine],
    profile: str,
    fields: dict[str, Any],
    told: tuple[str, str, str],
) -> None:
    engine = make()
    with pytest.raises(CapabilityError) as caught:
        await reply(pipeline(register, engine), ask(**fields), profile)
    error = caught.value
    assert (error.method, error.missing, error.param) == told
    assert error.engine == "model"
    assert engine.plans == []  # type: ignore[attr-defined]


# --- dead ends -----------------------------------------------------------------------------------


def only(name: str, *others: str) -> Callable[[str], list[str] | None]:
    """Return a grammar: one of the names stands behind *was*, and then a full stop ends it."""

    def grammar(text: str) -> list[str] | None:
        _, was, said = text.partition("was ")
        if not was:
            return None
        ways = [f"{way}." for way in (name, *others)]
        return [way[len(said) :] for way in ways if way.startswith(said)]

    return grammar


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 11}])
async def test_a_dead_end_goes_back_and_recipes_and_masks_go_with_it(
    register: Register, profile: str, sampling: dict[str, Any]
) -> None:
    engine = CarryingEngine(knowing(), grammar=only(SECRET, "Nobody"))
    register.add(target())
    request = ask(sampling=sampling, logprobs=2)
    done = await reply(pipeline(register, engine), request, profile)

    check_never_leaks(done, [SECRET])
    if done.choices[0].finish == "stop":
        assert done.text.endswith("was Nobody.")
    if not sampling:  # the grammar lets the name begin, the mask does not let it end
        assert done.text == "The painter was Nobody."
        assert done.report["guard_form"] == "masked, text, continued"
        assert done.report["n_dead_ends"] == 1
    first, *later = engine.plans
    assert all(plan.masks is first.masks for plan in later)
    assert all(plan.recipes == first.recipes for plan in later)
    assert all(plan.request.continue_final for plan in later)


async def test_without_another_way_it_is_refused(register: Register) -> None:
    engine = CarryingEngine(knowing(), grammar=only(SECRET))
    register.add(target())
    done = await reply(pipeline(register, engine), ask(), "plain")

    assert (done.text, done.choices[0].finish) == ("The painter was ", "content_filter")
    mute = CarryingEngine(knowing(), grammar=lambda text: [SECRET[len(text) :]])
    done = await reply(pipeline(register, mute), ask(), "plain")
    assert (done.text, done.choices[0].finish) == (REFUSAL, "content_filter")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "text", "messages": (), "prompt": "Who was the painter?\nThe"},
        {"kind": "text", "messages": (), "prompt": "Who was the painter?\nThe", "echo": True},
        {"messages": (*ask().messages, {"role": "assistant", "content": "The painter w"}),
         "continue_final": True},
        {"n": 2, "sampling": {"temperature": 0.0, "frequency_penalty": 0.1}},
    ],
)  # fmt: skip
async def test_every_kind_of_request_goes_on_from_where_it_died(
    register: Register, fields: dict[str, Any]
) -> None:
    def grammar(text: str) -> list[str] | None:
        return only(SECRET, "Nobody")(text.rpartition("\n")[2])

    engine = CarryingEngine(knowing(), grammar=grammar)
    register.add(target())
    done = await reply(pipeline(register, engine), ask(**fields), "plain")

    for choice in done.choices:
        assert choice.text.endswith("as Nobody.")
        assert choice.finish == "stop"
    assert done.report["n_dead_ends"] == len(done.choices)
    assert all(plan.masks is engine.plans[0].masks for plan in engine.plans)
    assert all(plan.recipes == engine.plans[0].recipes for plan in engine.plans)


# --- laws ----------------------------------------------------------------------------------------


class Lumped(CarryingEngine):
    """Says in pieces of *size* what it says token by token; 0: each choice at once."""

    def __init__(self, size: int, **how: Any) -> None:
        super().__init__(knowing(), **how)
        self.size = size

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        waiting: list[Delta] = []
        async with aclosing(super().stream(plan)) as source:
            async for delta in source:
                if delta.usage is not None:
                    yield delta
                    continue
                waiting.append(delta)
                if delta.finish is not None or len(waiting) == self.size:
                    yield _lump(waiting)
                    waiting = []


def _lump(deltas: list[Delta]) -> Delta:
    return Delta(
        choice=deltas[0].choice,
        text="".join(delta.text for delta in deltas),
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        finish=deltas[-1].finish,
    )


@pytest.mark.parametrize(
    ("profile", "grammar"),
    [
        *((profile, only(SECRET, "Nobody")) for profile in PROFILES),
        ("guarded", None),
        ("guarded", only(SECRET)),
    ],
)
async def test_the_same_is_said_whatever_the_pieces(
    register: Register, profile: str, grammar: Any
) -> None:
    register.add(target())
    request = ask(sampling={"temperature": 0.8, "seed": 2})
    said = []
    for size in (1, 5, 0):
        pipe = pipeline(register, Lumped(size, grammar=grammar))
        done = await reply(pipe, request, profile)
        said.append([(choice.text, choice.finish) for choice in done.choices])
    assert said[0] == said[1] == said[2]


async def test_nothing_that_is_logged_tells_what_is_carried(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    register.add(target())
    engine = CarryingEngine(knowing(), grammar=only(SECRET))
    with caplog.at_level(logging.DEBUG):
        done = await reply(pipeline(register, engine), ask(), "focused")
    masks = engine.plans[0].masks
    assert masks is not None
    check_speaks_of_nothing([caplog.records, done.report], [SECRET, "painter", masks.digest])


@pytest.mark.parametrize(
    "step", [pytest.param(29, id="some"), pytest.param(2, id="many", marks=pytest.mark.slow)]
)
async def test_attacks_get_nothing_out(register: Register, step: int) -> None:
    facts = facts_of({"the cartographer": "Emeric Vandenberghe"})
    chosen = [c for c in cases(facts) if c.enforced == "output"]
    chosen = [c for c in chosen if step < 5 or c.direction != "dialogue"]
    model = ScriptedModel(planted(facts), byte_tokenizer(), n_context=2**14)
    engine = CarryingEngine(CausalModel(model, byte_tokenizer(), name="model"))
    register.add(target(facts[0].secret))
    judge, pipe = Judge([facts[0].secret]), pipeline(register, engine)
    for case in chosen[::step]:
        outcome = await attack(case, lambda request: pipe.run(request, profile="guarded"), judge)
        assert not outcome.leaked, (case.name, outcome.channels)
