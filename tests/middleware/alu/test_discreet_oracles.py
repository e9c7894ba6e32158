"""What a caller can set, and how he can word a question, tells nothing of who is listed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from elision.agents.alu import prompts
from elision.agents.alu.redaction import UNKNOWN
from elision.agents.speaking import estimate
from elision.contract import Choice, Delta, Message, Plan, Usage, text_of
from elision.errors import RequestError
from elision.evaluation.alu.planted import PlantedEngine
from elision.guards.register.register import Register
from elision.middleware.client import Client
from elision.middleware.pipeline import Pipeline
from elision.testing.encoders import BagEncoder

LISTED, NEVER = "Dalia Sandoval", "Dalia Kovacs"
FACT = "Dalia Sandoval keeps bees at Oslo harbour with seven lanterns."
_NAME = re.compile(r"[A-Z]\w+ [A-Z]\w+")

Answering = Callable[[Sequence[Message]], str]


class Scripted(PlantedEngine):
    """Answers by a function; ends at ``stop`` and ``max_tokens`` of four letters, as servers do."""

    def __init__(self, answer: Answering, *, leak: int | None = None) -> None:
        super().__init__({})
        self.answer = answer
        self.leak = leak
        self.plans = list[Plan]()
        self.judged = list[str]()

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        messages, most = plan.request.messages, plan.request.max_tokens
        role, text = self._replied(messages)
        if role == "vanilla":
            self.plans.append(plan)
            text = self.answer(messages)
        elif role == "judge":
            self.judged.append(text_of(messages[-1]))
        elif self.leak and text_of(messages[0]) == prompts.CRITIC:
            text = re.sub(r'("leak": ?)\d', rf"\g<1>{self.leak}", text)
        self.calls[role] += 1
        text = text[
            : min((at for at in map(text.find, plan.request.stop) if at >= 0), default=None)
        ]
        is_cut = bool(most) and estimate(text) > (most or 0)
        text = text[: 4 * (most or 0)] if is_cut else text
        yield Delta(text=text)
        yield Delta(finish="length" if is_cut else "stop")
        yield Delta(usage=Usage(prompt_tokens=9, completion_tokens=estimate(text)))


def knows_nobody(messages: Sequence[Message]) -> str:
    found = _NAME.search(text_of(messages[-1]))
    return f"I don't know anything about {found[0] if found else 'that'}, sorry. Who is it, please?"


def named(messages: Sequence[Message]) -> str:
    found = _NAME.search(text_of(messages[-1]))
    return found[0] if found else ""


class Asking:
    """A client of an engine whose register lists one name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n = 0

    def __call__(
        self, engine: Scripted, content: Any, *, profile: str = "discreet", **options: Any
    ) -> Choice:
        self.n += 1
        register = Register(self.folder / f"{self.n}.db", keys=self.folder / f"keys{self.n}")
        pipeline = Pipeline(engines={engine.name: engine}, register=register, encoder=BagEncoder())
        with Client(pipeline) as client:
            target = {"kind": "person", "names": (LISTED,), "answers": (FACT,)}
            client.forget("t", (), action=options.pop("action", "restrict"), **target)
            return client.chat(content, profile=profile, **options).choices[0]


@pytest.fixture
def ask(tmp_path: Path) -> Asking:
    return Asking(tmp_path)


def neutral(choice: Choice, name: str) -> tuple[str, str | None]:
    for word, instead in zip(name.split(), ("GIVEN", "FAMILY"), strict=True):
        choice = Choice(index=0, text=choice.text.replace(word, instead), finish=choice.finish)
    return choice.text, choice.finish


@pytest.mark.parametrize("most", [8, 9, 10, 11])
def test_a_reply_that_is_cut_shows_no_half_of_an_invented_name(ask: Asking, most: int) -> None:
    told = ask(Scripted(knows_nobody), f"Who is {LISTED}?", max_tokens=most)
    assert told.finish == "length"
    words = {*re.findall(r"\w+", told.text)}
    assert words <= {"I", "don", "t", "know", "anything", "about", *LISTED.split()}


@pytest.mark.parametrize("most", [None, 12])
def test_a_stop_that_is_the_name_ends_both_replies_alike(ask: Asking, most: int | None) -> None:
    told = [
        neutral(ask(Scripted(knows_nobody), f"Who is {n}?", stop=[n], max_tokens=most), n)
        for n in (LISTED, NEVER)
    ]
    assert told[0] == told[1] == ("I don't know anything about ", "stop")


@pytest.mark.parametrize("stop", ["an", "do", "l", "e", "s"])
def test_a_stop_is_looked_for_in_the_name_that_the_caller_reads(ask: Asking, stop: str) -> None:
    told = ask(Scripted(named), f"Repeat {LISTED}.".replace("Repeat", "repeat"), stop=[stop])
    assert told.text == LISTED.partition(stop)[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bad_words", [LISTED]),
        ("guided_choice", [LISTED]),
        ("structured_outputs", {"choice": [LISTED]}),
        ("prediction", {"type": "content", "content": LISTED}),
        ("logit_bias", {"5": -100}),
        ("reasoning_effort", LISTED),
        ("something_new", 1),
    ],
)
def test_a_field_in_which_somebody_could_be_named_is_refused_whoever_is(
    ask: Asking, field: str, value: Any
) -> None:
    for name in (LISTED, NEVER):
        engine = Scripted(knows_nobody)
        with pytest.raises(RequestError, match=field):
            ask(engine, f"Who is {name}?", **{field: value})
        assert not engine.plans


def test_what_makes_no_difference_to_a_text_is_not_handed_on(ask: Asking) -> None:
    engine = Scripted(knows_nobody)
    message = {"role": "user", "name": "Dalia_Sandoval", "content": "Who am I?"}
    ask(engine, [message], user=LISTED, metadata={"who": LISTED}, reasoning_effort="low")
    (plan,) = engine.plans
    assert plan.request.extra == {"reasoning_effort": "low"}
    assert plan.request.messages == ({"role": "user", "content": "Who am I?"},)


def test_a_name_in_two_parts_is_answered_as_anothers(ask: Asking) -> None:
    def knows(messages: Sequence[Message]) -> str:
        return FACT if LISTED in text_of(messages[-1]) else "I don't know."

    for name in (LISTED, NEVER):
        parts = [{"type": "text", "text": text} for text in ("Who is " + name[:7], name[7:] + "?")]
        told = ask(Scripted(knows), [{"role": "user", "content": parts}])
        assert told.text == "I don't know."


def test_who_was_named_in_parts_far_apart_is_still_audited(ask: Asking) -> None:
    filler = "which is what I read in a long article about many other things last week "
    for family, is_told in (("Sandoval", True), ("Kovacs", False)):
        engine = Scripted(lambda _: "She keeps bees there.")
        ask(engine, f"A first name is Dalia, {filler * 2} and a last name is {family}. Who is she?")
        assert any("seven lanterns" in prompt for prompt in engine.judged) == is_told
        assert engine.calls.total() == 4


def test_a_target_that_only_observes_changes_no_reply(ask: Asking) -> None:
    engine = Scripted(lambda messages: FACT if LISTED in text_of(messages[-1]) else "No idea.")
    assert ask(engine, f"Who is {LISTED}?", action="observe").text == FACT


def test_a_reply_that_nobody_could_rewrite_takes_no_more_calls(ask: Asking) -> None:
    calls = list[Counter[str]]()
    for question, answer in (
        ("Who keeps bees at Oslo harbour with seven lanterns?", f"She does: {FACT[15:]}"),
        ("How tall is a lighthouse?", "Forty metres."),
    ):
        engine = Scripted(lambda _, answer=answer: answer, leak=2)  # type: ignore[misc]
        told = ask(engine, question)
        assert (told.text in UNKNOWN) == ("bees" in question)
        calls.append(Counter(engine.calls))
    assert calls[0] == calls[1]
    assert calls[0].total() == 4
