"""Grammar and guard together: what leaves is valid and holds no phrase, or the reply is refused."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from elision.contract import (
    Completion,
    Context,
    Here,
    Plan,
    Recipe,
    Request,
    Sampling,
    collect,
    in_order,
)
from elision.guards.guard import Guard
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions import (
    EntropyMinimisation,
    Grammar,
    Guidance,
    MinimalIntervention,
)
from elision.middleware.interventions.base import Chain
from elision.middleware.interventions.grammar import in_json, of_schema, pruned
from elision.middleware.interventions.grammar.unescaped import UnescapedLexicon, undone
from elision.middleware.interventions.views import LastToken
from elision.middleware.profiles import sampling_recipes
from elision.testing import byte_lexicon, byte_tokenizer, tiny_model
from elision.testing.laws import check_drafted_equals_plain, check_never_leaks

END = 257
LEXICON = byte_lexicon()


def members(**schemas: Any) -> dict[str, Any]:
    return {"type": "object", "properties": schemas, "additionalProperties": False}


def guard_of(*phrases: str) -> Guard:
    return Guard.compile([ForgetTarget(title="t", phrases=tuple(Phrase(text=p) for p in phrases))])


def recipes_of(schema: dict[str, Any], *phrases: str) -> tuple[Recipe, ...]:
    masks = guard_of(*phrases).recipes(LEXICON) if phrases else ()
    return (Grammar(of_schema(schema)), *in_json(masks))


def engine_of() -> LocalEngine:
    tokenizer = byte_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer), eos=END)
    engine = LocalEngine(CausalModel(model, tokenizer, name="tiny"))
    engine.lexicon = LEXICON
    return engine


def plan_of(recipes: tuple[Recipe, ...], *, n: int = 1, max_tokens: int = 80, **more: Any) -> Plan:
    sampling = Sampling(temperature=more.pop("temperature", 1.0), seed=more.pop("seed", 1))
    request = Request(
        messages=({"role": "user", "content": "Go on."},), sampling=sampling, n=n,
        max_tokens=max_tokens, logprobs=5,
    )  # fmt: skip
    return Plan(request=request, recipes=in_order((*recipes, *sampling_recipes(sampling))), **more)


def replies(plans: list[Plan]) -> list[Completion]:
    async def every() -> list[Completion]:
        engine = engine_of()
        try:
            return [*await asyncio.gather(*(collect(engine.stream(plan)) for plan in plans))]
        finally:
            await engine.aclose()

    return asyncio.run(every())


# --- beside the guard ----------------------------------------------------------------------------

ONE_OF = {"enum": ["alpha one", "alpha two", "beta"]}
CASES: list[tuple[str, dict[str, Any], tuple[str, ...], set[str]]] = [
    ("a string", {"type": "string", "pattern": '^[ab \\n"]*$', "maxLength": 9}, ("ab", "bab"),
     {"stop"}),
    ("a choice", ONE_OF, ("alpha one", "alpha two"), {"stop", "content_filter"}),
    ("choices", {"type": "array", "items": ONE_OF, "minItems": 2, "maxItems": 3}, ("alpha two",),
     {"stop", "content_filter"}),
    ("a name", members(alpha={"type": "null"}, beta={"type": "null"}), ("alpha",),
     {"stop", "content_filter"}),
    ("over members", {**members(a={"enum": ["big", "small"]}, b={"enum": ["apple", "pear"]}),
                      "required": ["a", "b"]}, ("big b apple",), {"stop"}),
    ("a constant", {"const": "alpha"}, ("alpha",), {"content_filter"}),
    ("a required name", {**members(alpha={}), "required": ["alpha"]}, ("alpha",),
     {"content_filter"}),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "phrases", "ends"), [c[1:] for c in CASES],
                         ids=[c[0] for c in CASES])  # fmt: skip
def test_what_leaves_is_valid_and_holds_no_phrase_and_what_must_hold_one_is_refused(
    schema: dict[str, Any], phrases: tuple[str, ...], ends: set[str]
) -> None:
    recipes, guard = recipes_of(schema, *phrases), guard_of(*phrases)
    plans = [plan_of(recipes, seed=n, temperature=float(n > 0), n=2) for n in range(5)]
    finishes = Counter[str]()
    for done in replies(plans):
        check_never_leaks(done, phrases)
        for choice in done.choices:
            finishes[choice.finish] += 1
            assert not guard.hides(undone(choice.text)[0])
            if choice.finish == "stop":
                assert Draft202012Validator(schema).is_valid(json.loads(choice.text))
    assert finishes.keys() <= ends
    assert ("stop" not in ends) or finishes["stop"] >= 8


@given(phrase=st.sampled_from(["ab ba", "abba baab", "ab", "n b"]), seed=st.integers(0, 10**6))
def test_no_way_through_masks_and_grammar_spells_a_phrase_once_it_is_parsed(
    phrase: str, seed: int
) -> None:
    schema = {"type": "string", "pattern": '^(ab|a|b|n|\\n|"|\\t|\\\\| )*$', "maxLength": 14}
    guard, draw = guard_of(phrase), Random(seed)
    context = Context(lexicon=LEXICON, vocab_size=259, eos=frozenset({END}))
    chain, reply = Chain.begin(recipes_of(schema, phrase), context), b""
    while True:
        row = torch.zeros(259)
        left = (~chain.adjust(row, Here(row)).isneginf()).nonzero().flatten().tolist()
        if END in left:
            break
        token = draw.choice(left)
        chain, reply = chain.advance(token), reply + bytes([token])
    assert not guard.hides(json.loads(reply))
    assert not guard.hides(reply.decode())


def test_without_the_second_masks_an_escape_would_hide_a_phrase() -> None:
    schema, phrase = {"type": "string"}, "ab ba"
    context = Context(lexicon=LEXICON, vocab_size=259, eos=frozenset({END}))
    guard = guard_of(phrase)
    first = [Grammar(of_schema(schema)), *guard.recipes(LEXICON)]
    told = []
    for recipes in (first, in_json(first)):
        chain, row = Chain.begin(recipes, context), torch.zeros(259)
        for byte in rb'"ab\nb':
            chain = chain.advance(byte)
        told.append(bool(chain.adjust(row, Here(row))[ord("a")].isneginf()))
    assert told == [False, True]
    assert guard.hides(json.loads(rb'"ab\nba"'))


def test_what_must_not_be_said_is_not_offered_unless_the_schema_insists_on_it() -> None:
    hides = guard_of("alpha").hides
    schema = {
        **members(
            alpha={}, beta={"enum": ["alpha 1", {"x": ["alpha"]}, 2]}, gamma={"const": "alpha"}
        ),
        "anyOf": [{"const": "alpha"}, {"enum": ["alpha"]}, {"type": "object"}],
    }
    found = pruned(schema, hides)
    assert found["properties"] == {
        "alpha": False,
        "beta": {"enum": [2]},
        "gamma": {"const": "alpha"},
    }
    assert found["anyOf"] == [{"type": "object"}]
    assert pruned({**members(alpha={}), "required": ["alpha"]}, hides)["properties"] == {
        "alpha": {}
    }
    assert pruned({"enum": ["alpha"]}, hides) == {"enum": ["alpha"]}
    assert pruned(schema, lambda text: False) == schema


def test_a_value_that_the_model_would_never_say_is_better_than_none() -> None:
    context = Context(lexicon=LEXICON, vocab_size=259, eos=frozenset({END}))
    chain = Chain.begin(recipes_of({"enum": ["a", "b"]}, "a"), context).advance(ord('"'))
    row = torch.full((259,), -50.0).index_fill(0, torch.tensor([ord("a")]), 50.0)
    out = chain.adjust(row, Here(row))
    assert (~out.isneginf()).nonzero().flatten().tolist() == [ord("b")]


# --- escapes -------------------------------------------------------------------------------------

escaped_texts = st.text(st.sampled_from('ab\\"/\n\t\x01né𝐀東u'), max_size=9)


@given(value=escaped_texts, cut=st.integers(0, 60), ascii_only=st.booleans())
def test_escapes_are_undone_as_a_parser_does_wherever_the_text_is_cut(
    value: str, cut: int, ascii_only: bool
) -> None:
    source = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
    assert undone(source) == (value, "")
    head, begun = undone(source[:cut])
    tail, left = undone(begun + source[cut:])
    assert (head + tail, left) == (value, "")


@given(value=escaped_texts, ascii_only=st.booleans())
def test_tokens_of_escapes_write_what_a_parser_reads(value: str, ascii_only: bool) -> None:
    lexicon, pending, text = UnescapedLexicon(LEXICON), b"", ""
    for byte in json.dumps(value, ensure_ascii=ascii_only)[1:-1].encode():
        piece, pending = lexicon.write(pending, byte)
        text += piece
    assert (text, pending) == (value, b"")


# --- beside other methods ------------------------------------------------------------------------

NULLS = {"type": "array", "maxItems": 2, "items": {"type": "null"}}
FORM = {**members(a={"type": "string", "maxLength": 9}, b=NULLS), "required": ["a", "b"]}
BESIDE: dict[str, tuple[Recipe, ...]] = {
    "em-inf": (EntropyMinimisation(),),
    "mti": (MinimalIntervention(tau=0.5, negative=(1, 2)),),
    "cfg": (Guidance(scale=1.5, other=LastToken()),),
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_replies_stay_valid_whatever_else_shapes_the_scores(beside: tuple[Recipe, ...]) -> None:
    for done in replies([plan_of((*recipes_of(FORM), *beside), max_tokens=60, n=2)]):
        for choice in done.choices:
            assert choice.finish == "stop"
            assert Draft202012Validator(FORM).is_valid(json.loads(choice.text))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_change_nothing_of_a_reply_that_is_held_to_a_grammar(temperature: float) -> None:
    recipes = recipes_of(FORM, "ab", "x y")
    check_drafted_equals_plain(engine_of, plan_of(recipes, temperature=temperature, max_tokens=24))


def test_alternatives_outside_the_grammar_are_not_told() -> None:
    (done,) = replies([plan_of(recipes_of({"enum": [True, False, None]}), n=2)])
    for choice in done.choices:
        assert {a.token for a in choice.logprobs[0].top} == {"t", "f", "n"}
        assert [len(entry.top) for entry in choice.logprobs[1:]] == [1] * len(choice.logprobs[1:])


def test_a_reply_that_is_cut_short_says_so_and_is_the_beginning_of_a_valid_one() -> None:
    (done,) = replies([plan_of(recipes_of({"type": "array", "minItems": 90}), max_tokens=20)])
    assert done.choices[0].finish == "length"
    assert done.choices[0].text.startswith("[")
    assert done.usage.completion_tokens == 20
