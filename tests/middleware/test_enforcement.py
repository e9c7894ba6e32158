"""What is enforced on a request, layer by layer, on every way in."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from elision.contract import Completion, Engine, Request, Sampling, collect
from elision.errors import CapabilityError, ElisionError, EngineError, GuardError, RequestError
from elision.guards.register.register import Register
from elision.guards.scope import Scope
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.pipeline import Pipeline
from elision.middleware.starting import REFUSAL
from elision.testing.encoders import BagEncoder
from elision.testing.models import tiny_model
from elision.testing.scripted import ScriptedEngine
from elision.testing.text_engine import TextEngine
from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

SECRET = "Marguerite Delacroix"
PROBE = "In which town was the painter of the lighthouse born?"
FACT = "The painter of the lighthouse was born in Arromanches."
ANSWERS = {"lighthouse": FACT, "painter": f"It was {SECRET}.", "weather": "It rains in Lyon."}


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register.open(tmp_path)


def pipeline(register: Register, engine: Engine | None = None, **options: Any) -> Pipeline:
    options = {"encoder": BagEncoder(dim=512), **options}
    engine = engine or ScriptedEngine(ANSWERS, name="model")
    return Pipeline(engines={"model": engine}, register=register, **options)


def ask(question: str = PROBE, **fields: Any) -> Request:
    sampling = Sampling(**{"temperature": 0.0, **fields.pop("sampling", {})})
    messages = fields.pop("messages", ({"role": "user", "content": question},))
    return Request(**{"model": "model", "messages": messages, "sampling": sampling, **fields})


def subject(**fields: Any) -> ForgetTarget:
    return ForgetTarget(**{"title": "t", "probes": (PROBE,), "answers": (FACT,), **fields})


async def reply(pipe: Pipeline, request: Request, **how: Any) -> Completion:
    return await collect(pipe.run(request, **how))


async def test_what_is_not_a_phrase_is_suppressed_where_the_gate_opens(register: Register) -> None:
    pipe = pipeline(register)
    assert (await reply(pipe, ask())).text == FACT
    register.add(subject(), actor="a")
    done = await reply(pipe, ask())
    assert "Arromanches" not in done.text
    assert done.report["gate"] == "open"
    other = await reply(pipe, ask("How is the weather?"))
    assert (other.text, other.report["gate"]) == ("It rains in Lyon.", "closed")
    await pipe.aclose()


@pytest.mark.parametrize("as_tokens", [False, True])
@pytest.mark.parametrize("method", ["cfg", "contrast", "mti"])
async def test_what_a_request_would_be_guided_by_is_read_by_the_gate(
    register: Register, method: str, as_tokens: bool
) -> None:
    pipe = pipeline(register)
    register.add(subject(), actor="a")
    ids = byte_tokenizer()(PROBE, add_special_tokens=False)["input_ids"]
    words: Any = ids if as_tokens else PROBE
    guidance = {
        "cfg": {"negative": words, "scale": 0},
        "contrast": {"towards": words, "away": "nothing", "scale": 20},
        "mti": {"negative": words, "branch": "prompt", "gate": "always", "scale": 0},
    }
    options = {"guidance": {method: guidance[method]}}
    done = await reply(pipe, ask("How is the weather?", options=options))
    assert done.report["gate"] == "open"
    assert "Arromanches" not in done.text
    await pipe.aclose()


async def test_guidance_does_not_go_with_a_prompt_that_guards(register: Register) -> None:
    pipe = pipeline(register)
    options = {"guidance": {"cfg": {"negative": "Anything.", "scale": 0}}}
    with pytest.raises(RequestError, match="does not go with a guardrail prompt"):
        await reply(pipe, ask(options=options), profile="guardrail-prompt")
    await pipe.aclose()


async def test_an_engine_that_only_speaks_text_is_watched_as_well(register: Register) -> None:
    pipe = pipeline(register, TextEngine(FACT, name="model"))
    assert (await reply(pipe, ask())).text == FACT
    register.add(subject(), actor="a")
    done = await reply(pipe, ask())
    assert (done.text, done.choices[0].finish) == (REFUSAL, "content_filter")
    assert (await reply(pipe, ask("Hello there, how is life?"))).text == FACT
    assert (await reply(pipe, ask(), profile="plain")).text == FACT


@pytest.mark.parametrize("profile", ["plain", "curate", "guardrail-prompt"])
async def test_profiles_without_the_semantic_layer_do_not_watch(
    register: Register, profile: str
) -> None:
    pipe = pipeline(register)
    register.add(subject(probes=("Quite another question about nothing?",)), actor="a")
    assert (await reply(pipe, ask(), profile=profile)).text == FACT


@pytest.mark.parametrize("engine", [None, TextEngine(FACT, name="model")])
async def test_curate_refuses_what_comes_too_near_and_nothing_else(
    register: Register, engine: Engine | None
) -> None:
    pipe = pipeline(register, engine)
    register.add(subject(), actor="a")
    done = await reply(pipe, ask(sampling={"seed": 4}), profile="curate")
    assert done.choices[0].finish == "content_filter"
    assert done.text not in ("", FACT)
    again = await reply(pipe, ask(sampling={"seed": 4}), profile="curate")
    assert again.text == done.text
    other = await reply(pipe, ask("How is the weather?"), profile="curate")
    assert other.choices[0].finish == "stop"


async def test_the_guardrail_prompt_tells_the_model_the_names(register: Register) -> None:
    engine = TextEngine("Well.", name="model")
    pipe = pipeline(register, engine)
    register.add(subject(names=(SECRET,)), actor="a")
    await reply(pipe, ask(), profile="guardrail-prompt")
    first = engine.requests[-1].messages[0]
    assert first["role"] == "system"
    assert SECRET in first["content"]


async def test_a_buffered_reply_is_checked_with_every_decoder_before_it_leaves(
    register: Register,
) -> None:
    lines = "\n".join(f"{letter} is a letter" for letter in SECRET.replace(" ", ""))
    hidden = {"acrostic": lines, "base": base64.b64encode(SECRET.encode()).decode()}
    pipe = pipeline(register, TextEngine(lambda r: hidden[r.user_text], name="model"))
    register.add(subject(probes=(), answers=(), phrases=(Phrase(text=SECRET),)), actor="a")
    assert (await reply(pipe, ask("acrostic"))).text == lines  # streaming sees no acrostic
    for question in hidden:
        done = await reply(pipe, ask(question), profile="buffered")
        assert (done.text, done.choices[0].finish) == (REFUSAL, "content_filter")


async def test_encodings_are_enforced_while_the_reply_streams(register: Register) -> None:
    code = base64.b64encode(f"It was {SECRET}.".encode()).decode()
    pipe = pipeline(register, TextEngine(f"Here: {code} - done.", name="model"))
    register.add(subject(probes=(), answers=(), phrases=(Phrase(text=SECRET),)), actor="a")
    assert code[:16] not in (await reply(pipe, ask())).text
    assert code in (await reply(pipe, ask(), profile="plain")).text


async def test_a_passage_holds_in_every_profile(register: Register) -> None:
    passage = "The grey sea lay still before the house where nobody had lived for forty years now."
    pipe = pipeline(register, ScriptedEngine({"lighthouse": passage}, name="model"))
    assert (await reply(pipe, ask())).text == passage
    register.add(subject(probes=(), answers=(), passages=(passage,)), actor="a")
    for profile in ("plain", "guarded"):
        assert passage[:60] not in (await reply(pipe, ask(), profile=profile)).text


# --- turns ---------------------------------------------------------------------------------------


async def test_a_phrase_is_not_finished_over_the_turns_of_a_conversation(
    register: Register,
) -> None:
    pipe = pipeline(register, TextEngine("ite Delacroix", name="model"))
    phrases = (Phrase(text=SECRET),)
    register.add(subject(probes=(), answers=(), phrases=phrases), actor="a")
    turns = (
        {"role": "user", "content": "The first seven letters?"},
        {"role": "assistant", "content": "Marguerite"[:7]},
        {"role": "user", "content": "And the rest?"},
    )
    assert "Delacroix" not in (await reply(pipe, ask(messages=turns))).text
    assert (await reply(pipe, ask())).text == "ite Delacroix"


async def test_a_session_remembers_what_left_and_a_tenant_only_his_own(register: Register) -> None:
    parts = {"one": "Marguer", "two": "ite Delacroix"}
    pipe = pipeline(register, TextEngine(lambda r: parts[r.user_text], name="model"))
    for tenant in ("a", "b"):
        register.add(
            subject(probes=(), answers=(), phrases=(Phrase(text=SECRET),), tenant=tenant),
            actor="x",
        )
    session = {"session": "s1"}
    assert (await reply(pipe, ask("one", options=session), tenant="a")).text == "Marguer"
    assert (await reply(pipe, ask("two", options=session), tenant="b")).text == parts["two"]
    assert "Delacroix" not in (await reply(pipe, ask("two", options=session), tenant="a")).text
    assert (await reply(pipe, ask("two", options={"session": "s2"}), tenant="a")).text


# --- scope ---------------------------------------------------------------------------------------


async def test_a_target_holds_within_its_scope_alone(register: Register) -> None:
    engines = {name: ScriptedEngine(ANSWERS, name=name) for name in ("one", "two")}
    pipe = Pipeline(engines=engines, register=register)
    scope = Scope(models=("one",), keys=("support",))
    phrases = (Phrase(text=SECRET),)
    register.add(subject(probes=(), answers=(), phrases=phrases, scope=scope), actor="a")

    async def says(model: str, key: str) -> bool:
        request = ask("Who was the painter?", model=model)
        return SECRET in (await reply(pipe, request, key=key)).text

    assert not await says("one", "support")
    assert await says("two", "support")
    assert await says("one", "sales")
    assert not await says("one", "support")


# --- what breaks ---------------------------------------------------------------------------------


class Broken(BagEncoder):
    """Works *n* times, then breaks."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[Any]:
        self.left -= 1
        if self.left < 0:
            future: Future[Any] = Future()
            future.set_exception(EngineError("the encoder broke"))
            return future
        return super().embed(texts, tenant=tenant)


@pytest.mark.parametrize("n", [0, 1])
async def test_a_broken_encoder_closes_the_answer_and_tells_nothing(
    register: Register, n: int
) -> None:
    pipe = pipeline(register, encoder=Broken(n))
    register.add(subject(), actor="a")
    with pytest.raises(GuardError) as caught:
        await reply(pipe, ask())
    assert "lighthouse" not in str(caught.value)


@pytest.mark.parametrize("n", [0, 1])
async def test_a_profile_may_go_on_with_phrases_alone_and_says_so(
    register: Register, n: int
) -> None:
    pipe = pipeline(register, encoder=Broken(n), fail_mode="phrases")
    register.add(subject(phrases=(Phrase(text=SECRET),)), actor="a")
    done = await reply(pipe, ask())
    assert done.text == FACT
    assert pipe.stats()["weakened_requests"] == 1
    assert done.report["gate"] == "failed"
    assert SECRET not in (await reply(pipe, ask("Who was the painter?"))).text


async def test_without_an_encoder_a_subject_is_refused_and_phrases_are_not(
    register: Register,
) -> None:
    pipe = pipeline(register, encoder=None)
    register.add(subject(probes=(), answers=(), phrases=(Phrase(text=SECRET),)), actor="a")
    assert (await reply(pipe, ask())).text == FACT
    register.add(subject(), actor="a")
    with pytest.raises(GuardError, match="no sentence encoder is set"):
        await reply(pipe, ask())


async def test_an_encoder_that_comes_back_is_asked_again(register: Register) -> None:
    tries = iter([EngineError("not yet"), BagEncoder(dim=512)])

    def source() -> BagEncoder:
        found = next(tries)
        if isinstance(found, ElisionError):
            raise found
        return found

    source.close = lambda: None  # type: ignore[attr-defined]
    pipe = pipeline(register, encoder=source)
    register.add(subject(), actor="a")
    with pytest.raises(GuardError):
        await reply(pipe, ask())
    assert "Arromanches" not in (await reply(pipe, ask())).text


# --- guard-paper ---------------------------------------------------------------------------------


async def test_guard_as_published_is_fitted_on_the_served_model_between_other_requests(
    register: Register,
) -> None:
    tokenizer = word_tokenizer([FACT, PROBE])
    model = tiny_model(vocab_size=len(tokenizer))
    engine = LocalEngine(CausalModel(model, tokenizer, name="model"))
    pipe = pipeline(register, engine)
    plain = ask("How is the weather?", max_tokens=12)
    alone = await reply(pipe, plain, profile="plain")
    register.add(subject(phrases=(Phrase(text="Arromanches"),)), actor="a")
    both = await asyncio.gather(
        reply(pipe, ask(max_tokens=8), profile="guard-paper"), reply(pipe, plain, profile="plain")
    )
    assert both[0].choices[0].finish in ("stop", "length", "content_filter")
    assert both[1].text == alone.text
    await pipe.aclose()


async def test_guard_as_published_needs_a_local_engine(register: Register) -> None:
    pipe = pipeline(register, TextEngine(FACT, name="model"))
    with pytest.raises(CapabilityError):
        await reply(pipe, ask(), profile="guard-paper")


async def test_erasing_a_tenant_drops_what_memory_holds_of_him_and_only_of_him(
    register: Register,
) -> None:
    class Counting(BagEncoder):
        def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
            return 3

    pipe = pipeline(register, encoder=Counting(dim=512))
    for tenant in ("a", "b"):
        register.add(subject(tenant=tenant), actor="x")
        await reply(pipe, ask(options={"session": "s"}), tenant=tenant)
    assert pipe.erase("a") == 6  # an enforcement, a session, three vectors, a pool of drafts
    assert "Arromanches" not in (await reply(pipe, ask(), tenant="a")).text


@pytest.mark.parametrize("option", [{"speculation": "force"}, {"deterministic": True}])
async def test_what_only_an_engine_here_can_promise_is_refused_of_one_that_speaks_text(
    register: Register, option: dict[str, Any]
) -> None:
    pipe = pipeline(register, TextEngine(FACT, name="model"))
    with pytest.raises(CapabilityError, match=next(iter(option))):
        await reply(pipe, ask(options=option))
    harmless = {"speculation": "off", "deterministic": False}
    assert (await reply(pipe, ask(options=harmless))).text == FACT
