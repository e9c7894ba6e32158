from __future__ import annotations

from typing import Any

import pytest

from elision.contract import Request, text_of
from elision.errors import ConfigError, RequestError
from elision.guards.baselines.guardrail import TEMPLATES, Family, guardrail, with_guardrail
from elision.guards.targets import ForgetTarget, Phrase

ASK = {"role": "user", "content": "Who was he?"}


def target(*names: str, **more: Any) -> ForgetTarget:
    return ForgetTarget(
        title="Zebedee's file", names=names, phrases=(Phrase(text="Xylom"),), **more
    )


@pytest.mark.parametrize("family", ["a", "b"])
def test_names_are_told_and_nothing_else_of_a_target(family: Family) -> None:
    text = guardrail([target("Ada Quill", "A. Quill"), target("Bo\n Wren")], family=family)
    assert "Ada Quill; A. Quill; Bo Wren" in text
    assert "Zebedee" not in text
    assert "Xylom" not in text


def test_names_are_bounded_and_each_told_once() -> None:
    names = [f"Person {n}" for n in range(50)]
    text = guardrail([target("Ada Quill"), target("ADA QUILL", *names)], limit=3)
    assert "Ada Quill; Person 0; Person 1." in text
    assert len(guardrail([target("x" * 10_000)])) < len(TEMPLATES["a"]) + 300


def test_a_name_cannot_pretend_to_be_two() -> None:
    assert "Ada, Bo." in guardrail([target("Ada; Bo")])


def test_the_third_family_speaks_of_texts_and_names_nobody() -> None:
    assert guardrail([target("Ada Quill")], family="c") == TEMPLATES["c"]


def test_a_system_message_is_put_first_or_extended_where_it_stands() -> None:
    added = with_guardrail(Request(messages=(ASK,)), [target("Ada")])
    assert [m["role"] for m in added.messages] == ["system", "user"]
    system = {"role": "system", "content": "Be brief.", "name": "s"}
    longer = with_guardrail(Request(messages=(system, ASK)), [target("Ada")])
    assert text_of(longer.messages[0]).startswith("Be brief.\n\nThere are subjects")
    assert longer.messages[0]["name"] == "s"
    assert longer.messages[1] == ASK
    assert system["content"] == "Be brief."


def test_a_system_message_of_parts_gets_one_more() -> None:
    system = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    longer = with_guardrail(Request(messages=(system, ASK)), [target("Ada")])
    assert text_of(longer.messages[0]).startswith("Be brief.\n\nThere are subjects")
    assert len(system["content"]) == 1


def test_a_raw_prompt_is_preceded_by_it() -> None:
    request = Request(kind="text", prompt="Once upon")
    assert with_guardrail(request, [target("Ada")]).prompt == (
        guardrail([target("Ada")]) + "\n\nOnce upon"
    )


def test_without_anything_to_say_the_request_stays_the_same_object() -> None:
    request = Request(messages=(ASK,))
    assert with_guardrail(request, []) is request
    assert with_guardrail(request, [target("Ada", state="suspended")], family="c") is request
    assert with_guardrail(request, [target()]) is request


def test_token_ids_and_echo_are_refused_without_a_name_in_the_message() -> None:
    for request in (
        Request(kind="text", prompt=(1, 2)),
        Request(kind="text", prompt="a", echo=True),
    ):
        with pytest.raises(RequestError) as caught:
            with_guardrail(request, [target("Ada")])
        assert "Ada" not in str(caught.value)


def test_unknown_families_and_limits_are_refused() -> None:
    with pytest.raises(ConfigError):
        guardrail([], family="z")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        guardrail([], limit=0)
