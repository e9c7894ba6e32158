r"""Text that its reader will parse as JSON is guarded as what it will be: ``Marlowe\nStreet``."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from elision.contract import Completion, Delta, Plan, Request, collect
from elision.guards.phrases.normal import N
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.holding.layers import Layers, Phrases
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES
from elision.testing import TextEngine

STREET = "Marlowe Street"
SPACED = "12 Marlowe\nStreet, Oldham"
JSON = {"response_format": {"type": "json_object"}}


def nested(value: str, depth: int) -> str:
    """Return JSON source that must be parsed *depth* times to show *value*."""
    for _ in range(depth):
        value = json.dumps({"at": value})
    return value


def answered(*pieces: str | Delta, action: Action = "restrict", **extra: Any) -> Completion:
    target = ForgetTarget(id="t", title="x", phrases=(Phrase(text=STREET),), action=action)
    rules = Enforcement([target], tenant="default", epoch=1, encoder=None)
    plan = Plan(request=Request(messages=({"role": "user", "content": "Where?"},), extra=extra))
    defence = Defence(profile=PROFILES["plain"], rules=rules)

    async def ask() -> Completion:
        replies = guarded_replies(TextEngine(pieces), plan, defence, refusal="No.")
        return await collect(replies)

    return asyncio.run(ask())


def arguments(piece: str) -> Delta:
    return Delta(message={"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})


@pytest.mark.parametrize("action", ["restrict", "redact", "refuse"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_content_asked_for_as_json_is_read_as_json(action: Action, depth: int) -> None:
    source = nested(SPACED, depth)
    whole = answered(source, action=action, **JSON).choices[0]

    assert whole.finish == "content_filter"
    assert N(STREET) not in N(whole.text.replace("\\n", " "))
    for at in range(0, len(source), 3):
        assert answered(source[:at], source[at:], action=action, **JSON).choices[0] == whole


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_arguments_are_read_as_deep_as_they_are_nested(depth: int) -> None:
    source = nested(SPACED, depth)
    for at in range(0, len(source), 3):
        choice = answered(arguments(source[:at]), arguments(source[at:])).choices[0]

        assert choice.finish == "content_filter"
        assert "Street" not in json.dumps(dict(choice.message))


@pytest.mark.parametrize("source", [nested(r"C:\new\tab\"Marlowe\u00e9\"", 3), '{"a": "\\\\'])
def test_clean_json_leaves_byte_for_byte(source: str) -> None:
    for at in range(len(source)):
        pieces = source[:at], source[at:]
        assert answered(*pieces, **JSON).choices[0].text == source
        calls = answered(*map(arguments, pieces)).choices[0].message["tool_calls"]
        assert calls[0]["function"]["arguments"] == source


def test_what_stands_in_json_unescaped_is_still_redacted() -> None:
    choice = answered(f'{{"at": "{STREET}"}}', action="redact", **JSON).choices[0]

    assert (choice.text, choice.finish) == ('{"at": "[redacted]"}', "stop")


@pytest.mark.parametrize(("action", "may"), [("restrict", True), ("refuse", False)])
def test_what_is_refused_once_unescaped_may_go_on_otherwise(action: Action, may: bool) -> None:
    target = ForgetTarget(id="t", title="x", phrases=(Phrase(text=STREET),), action=action)
    rules = Enforcement([target], tenant="default", epoch=1, encoder=None)
    layers = Layers(layers=(Phrases(rules, ""),), rules=rules, user="", speaks_json=True)
    chain = layers.content()

    assert chain.feed('{"at": "12 Marlowe\\nStreet"}') == '{"at": "12 '
    assert chain.place().may_go_otherwise is may
    chain.go_back()
    assert chain.feed('a mill"}') + chain.finish() == 'a mill"}'
