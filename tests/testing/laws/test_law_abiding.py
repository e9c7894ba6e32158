"""The form of a stream, and the engines that abide by every law."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elision.contract import Delta, Plan, Request, Sampling, Usage
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.testing import ARCHITECTURES, TextEngine, byte_tokenizer, tiny_model
from elision.testing.laws import (
    acheck_restored,
    check_fails_closed,
    check_restored,
    check_stream_equals_whole,
    check_stream_form,
)

END = Delta(usage=Usage(), report={})


def _plan(*, n: int = 1) -> Plan:
    messages = ({"role": "user", "content": "What is the capital of France?"},)
    sampling = Sampling(temperature=1.0, seed=7)
    return Plan(request=Request(messages=messages, max_tokens=24, sampling=sampling, n=n))


@pytest.mark.parametrize(
    ("deltas", "said"),
    [
        ([], "empty"),
        ([Delta(finish="stop")], "no usage"),
        ([Delta(finish="stop"), replace(END, report=None)], "no report"),
        ([Delta(finish="stop"), replace(END, text="x")], "carries text"),
        ([END, Delta(finish="stop"), END], "usage before the end"),
        ([Delta(report={}), END], "a report before the end"),
        ([Delta(finish="stop"), Delta(text="x"), END], "follows the end of choice 0"),
        ([Delta(finish="stop"), Delta(finish="stop"), END], "follows the end of choice 0"),
        ([Delta(text="x"), END], r"choices \[\] ended; 1 were"),
        ([Delta(finish="stop"), Delta(choice=1, finish="stop"), END], r"choices \[0, 1\] ended"),
    ],
)
def test_a_stream_of_another_form_is_caught(deltas: list[Delta], said: str) -> None:
    check_stream_form([Delta(text="x"), Delta(finish="stop"), END], n=1)

    with pytest.raises(AssertionError, match=said):
        check_stream_form(deltas, n=1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_local_engine_is_lawful_on_every_tiny_model(architecture) -> None:
    def make() -> LocalEngine:
        model = CausalModel(tiny_model(architecture), byte_tokenizer(), name=architecture)
        return LocalEngine(model)

    plan = _plan()
    check_restored(make, plan)
    check_fails_closed(make, plan, after=(1,))
    check_stream_equals_whole(make(), plan)


def test_a_text_engine_streams_what_it_says_whole() -> None:
    check_stream_equals_whole(TextEngine("Some text, as it comes."), _plan(n=2))


async def test_a_text_engine_is_restored() -> None:
    await acheck_restored(lambda: TextEngine("Some text."), _plan())
