"""The one way from a request to a stream."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from elision.contract import Completion, Engine, Request, Sampling, Verdict, collect
from elision.errors import CapabilityError, GuardError, NotFoundError
from elision.guards.phrases.holdback import HoldBack
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.pipeline import Pipeline
from elision.middleware.profiles import PROFILES
from elision.middleware.starting import REFUSAL
from elision.testing.agents import forgetful
from elision.testing.laws import check_never_leaks
from elision.testing.models import tiny_model
from elision.testing.scripted import ScriptedEngine
from elision.testing.text_engine import TextEngine
from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

SECRET = "Marguerite Delacroix"
ANSWER = f"The painter was {SECRET}, who lived in Lyon."


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register.open(tmp_path)


def pipeline(register: Register, engine: Engine | None = None) -> Pipeline:
    engines = {"model": engine or knowing()}
    return Pipeline(engines=engines, register=register, agentic=forgetful())


def knowing() -> ScriptedEngine:
    return ScriptedEngine({"painter": ANSWER, "weather": "It rains in Lyon."}, name="model")


def ask(question: str = "Who was the painter?", **fields: Any) -> Request:
    sampling = Sampling(**{"temperature": 0.0, **fields.pop("sampling", {})})
    messages = ({"role": "user", "content": question},)
    return Request(**{"model": "model", "messages": messages, "sampling": sampling, **fields})


def target(action: Any = "restrict", tenant: str = "default", **phrase: Any) -> ForgetTarget:
    phrases = (Phrase(text=SECRET, **phrase),)
    return ForgetTarget(title="the painter", phrases=phrases, action=action, tenant=tenant)


async def reply(pipeline: Pipeline, request: Request, **how: Any) -> Completion:
    return await collect(pipeline.run(request, **how))


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_phrase_holds_in_every_profile(register: Register, profile: str) -> None:
    pipe = pipeline(register)
    assert SECRET in (await reply(pipe, ask(), profile=profile)).text
    register.add(target())
    done = await reply(pipe, ask(), profile=profile)
    check_never_leaks(done, [SECRET])


async def test_a_target_holds_from_the_next_request_and_revoking_restores_every_byte(
    register: Register,
) -> None:
    pipe = pipeline(register)
    request = ask(sampling={"temperature": 1.0, "seed": 4})
    before = await reply(pipe, request)
    added = register.add(target())
    during = await reply(pipe, request)
    register.revoke("default", added.target.id, reason="done")
    after = await reply(pipe, request)

    check_never_leaks(during, [SECRET])
    assert after.choices == before.choices
    assert (after.report["epoch"], during.report["epoch"]) == (2, 1)


async def test_unrelated_answers_do_not_change_by_a_byte(register: Register) -> None:
    pipe = pipeline(register)
    requests = [ask("What is the weather?", sampling={"temperature": t, "seed": 7}) for t in (0, 1)]
    before = [(await reply(pipe, r)).choices for r in requests]
    register.add(target())
    assert [(await reply(pipe, r)).choices for r in requests] == before


async def test_a_target_of_one_tenant_changes_nothing_for_another(register: Register) -> None:
    pipe = pipeline(register)
    before = (await reply(pipe, ask(), tenant="other")).choices
    register.add(target())
    assert (await reply(pipe, ask(), tenant="other")).choices == before
    check_never_leaks(await reply(pipe, ask(), tenant="default"), [SECRET])


async def test_a_redacted_phrase_leaves_as_its_marker(register: Register) -> None:
    register.add(target("redact"))
    done = await reply(pipeline(register), ask())
    assert done.text == ANSWER.replace(SECRET, "[redacted]")
    assert done.choices[0].finish == "stop"


async def test_a_refused_answer_ends_before_the_phrase(register: Register) -> None:
    register.add(target("refuse"))
    done = await reply(pipeline(register), ask())
    assert done.choices[0].finish == "content_filter"
    assert ANSWER.startswith(done.text)
    check_never_leaks(done, [SECRET])


@pytest.mark.parametrize("answer", [f"{SECRET}.", ANSWER])
async def test_the_tokens_of_a_refused_answer_are_not_reported_either(
    register: Register, answer: str
) -> None:
    register.add(target("refuse"))
    engine = ScriptedEngine({"painter": answer}, name="model")
    done = await reply(pipeline(register, engine), ask(logprobs=5))
    assert done.choices[0].finish == "content_filter"
    reported = "".join(entry.token for entry in done.choices[0].logprobs)
    assert done.text.startswith(reported)
    check_never_leaks(done, [SECRET])


async def test_an_observed_phrase_is_counted_and_left_alone(register: Register) -> None:
    register.add(target("observe"))
    done = await reply(pipeline(register), ask())
    assert done.text == ANSWER
    assert done.report["notes"]["guard.observed"] == 1


@pytest.mark.parametrize(("stop", "max_tokens"), [((), None), ((" in",), None), ((), 36)])
async def test_an_observed_phrase_at_the_very_end_is_counted_too(
    register: Register, stop: tuple[str, ...], max_tokens: int | None
) -> None:
    register.add(target("observe"))
    pipe = pipeline(register, ScriptedEngine({"painter": f"It was {SECRET} in Lyon"}, name="model"))
    done = await reply(pipe, ask(stop=stop, max_tokens=max_tokens))
    assert SECRET in done.text
    assert done.report["notes"]["guard.observed"] == 1


async def test_who_wrote_a_phrase_may_hear_it_back_if_it_allows_echo(register: Register) -> None:
    register.add(target(allow_echo=True))
    pipe = pipeline(register)
    asked = ask(f"Was {SECRET} the painter?")
    assert (await reply(pipe, asked)).text == ANSWER
    check_never_leaks(await reply(pipe, ask()), [SECRET])


async def test_every_choice_is_guarded(register: Register) -> None:
    register.add(target())
    request = ask(n=4, logprobs=5, sampling={"temperature": 1.2, "seed": 1})
    done = await reply(pipeline(register), request)
    assert len(done.choices) == 4
    check_never_leaks(done, [SECRET])


# --- engines that only speak text ----------------------------------------------------------------


def speaking(text: str = ANSWER, size: int = 3) -> TextEngine:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return TextEngine(pieces, name="model")


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_a_text_engine_never_lets_a_restricted_phrase_out(
    register: Register, size: int
) -> None:
    register.add(target())
    done = await reply(pipeline(register, speaking(size=size)), ask())
    assert done.text == "The painter was "
    assert done.choices[0].finish == "content_filter"
    assert done.report["guard_form"] == "text"
    check_never_leaks(done, [SECRET])


@pytest.mark.parametrize("size", [1, 4, 100])
async def test_a_text_engine_redacts(register: Register, size: int) -> None:
    register.add(target("redact"))
    done = await reply(pipeline(register, speaking(size=size)), ask())
    assert done.text == ANSWER.replace(SECRET, "[redacted]")


async def test_a_refusal_before_the_first_word_is_said_in_words(register: Register) -> None:
    register.add(target())
    done = await reply(pipeline(register, speaking(SECRET)), ask())
    assert done.text == REFUSAL


async def test_without_targets_a_text_engine_is_passed_on_as_it_is(register: Register) -> None:
    assert (await reply(pipeline(register, speaking()), ask())).text == ANSWER


async def test_a_profile_that_needs_scores_is_refused_on_a_text_engine(register: Register) -> None:
    with pytest.raises(CapabilityError, match=r"focused.*LOGITS"):
        await reply(pipeline(register, speaking()), ask(model="model@focused"))


# --- names ---------------------------------------------------------------------------------------


async def test_models_and_profiles_are_named_in_every_place(register: Register) -> None:
    pipe = pipeline(register)
    named = {
        "plain": ask(model="model@plain"),
        "focused": ask(options={"profile": "focused"}),
        "guarded": ask(),
    }
    for profile, request in named.items():
        assert (await reply(pipe, request)).report["profile"] == profile
    assert (await reply(pipe, ask(), profile="plain")).report["profile"] == "plain"
    assert pipe.models() == ("model", *(f"model@{name}" for name in PROFILES))


@pytest.mark.parametrize("model", ["nobody", "model@nothing", "@plain@", "nobody@plain"])
async def test_an_unknown_model_or_profile_is_not_found(register: Register, model: str) -> None:
    with pytest.raises(NotFoundError) as missing:
        await reply(pipeline(register), ask(model=model))
    assert missing.value.status == 404


async def test_a_hub_id_with_an_at_sign_is_no_profile(register: Register) -> None:
    pipe = Pipeline(engines={"org/a@b": knowing()}, register=register)
    assert SECRET in (await reply(pipe, ask(model="org/a@b"))).text


# --- what goes wrong -----------------------------------------------------------------------------


async def test_a_register_that_breaks_lets_nothing_through(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(tenant: str) -> int:
        raise OSError("disk")

    pipe = pipeline(register)
    monkeypatch.setattr(register, "epoch", broken)
    with pytest.raises(GuardError, match="register could not be read"):
        await reply(pipe, ask())


async def test_a_hold_back_that_breaks_lets_nothing_through(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: HoldBack, text: str) -> tuple[str, Verdict]:
        raise RuntimeError(text)

    register.add(target("redact"))
    monkeypatch.setattr(HoldBack, "feed", broken)
    with pytest.raises(GuardError, match="hold-back broke") as failure:
        await reply(pipeline(register, speaking()), ask())
    assert "painter" not in str(failure.value)


async def test_the_audit_line_has_ids_and_counts_and_no_text(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    register.add(target())
    with caplog.at_level(logging.DEBUG):
        await reply(pipeline(register), ask())
    (line,) = [r.getMessage() for r in caplog.records if r.name == "elision.audit"]
    assert "tenant=default profile=guarded engine=model epoch=1 targets=1 outcome=finished" in line
    for secret in (SECRET, "painter", "Lyon"):
        assert secret not in caplog.text


async def test_a_stream_that_is_left_is_audited_as_abandoned(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="elision.audit"):
        stream = pipeline(register).run(ask())
        await anext(stream)
        await stream.aclose()
    assert "outcome=abandoned" in caplog.text


# --- the real loop -------------------------------------------------------------------------------


@pytest.fixture
async def tiny(register: Register) -> AsyncIterator[Pipeline]:
    tokenizer = byte_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer), sharpness=1.0)
    engine = LocalEngine(CausalModel(model, tokenizer, name="model"))
    pipe = pipeline(register, engine)
    yield pipe
    await pipe.aclose()


async def test_a_stop_text_cannot_make_a_short_phrase_out_of_a_longer_word(
    register: Register,
) -> None:
    said = "a malevolent man"
    tokenizer = word_tokenizer([said] * 9, vocab_size=400)
    assert len(tokenizer.encode(said)) == 3  # the mask sees the longer word only
    pipe = pipeline(register, ScriptedEngine({"word": said}, tokenizer=tokenizer, name="model"))
    register.add(ForgetTarget(title="t", phrases=(Phrase(text="male"),)))

    assert (await reply(pipe, ask("the word?"))).text == said
    done = await reply(pipe, ask("the word?", stop=("volent",)))

    assert done.choices[0].finish == "content_filter"
    check_never_leaks(done, ["male"])


async def test_closing_twice_is_closing_once(tiny: Pipeline) -> None:
    assert tiny.ready
    await tiny.aclose()
    await tiny.aclose()
    assert not tiny.ready
