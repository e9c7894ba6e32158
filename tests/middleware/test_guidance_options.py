"""What a request's ``guidance`` becomes, and what is told when it cannot be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Capability, Context, Recipe, Request, in_order
from elision.errors import CapabilityError, RequestError
from elision.middleware.guidance import METHODS, SUFFIX_CHARS, guidance_of, guidance_recipes
from elision.middleware.guiding import AsAsked, guidance_for
from elision.middleware.interventions.contrast import ContextAware, ContextualContrast
from elision.middleware.interventions.difference import (
    ContrastiveDecoding,
    DeltaUnlearning,
    LogitDifference,
)
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.views import After, LastToken, System, Tokens, Without
from elision.middleware.profiles import PROFILES
from elision.middleware.wire import parse_chat
from elision.testing import byte_lexicon
from elision.testing.branches import with_branches
from elision.testing.text_engine import TextEngine

CANARY = "Marguerite Delacroix"


# --- what is asked for ---------------------------------------------------------------------------

ASKED: list[tuple[dict[str, Any], Recipe]] = [
    ({"mti": True}, MinimalIntervention()),
    ({"mti": {}}, MinimalIntervention()),
    ({"mti": {"tau": None, "share": None}}, MinimalIntervention()),
    ({"mti": {"tau": 1}}, MinimalIntervention(tau=1.0)),
    ({"mti": {"tau": "q0.92"}}, MinimalIntervention(share=0.08)),
    ({"mti": {"tau": "q.5"}}, MinimalIntervention(share=0.5)),
    ({"mti": {"tau": "q0"}}, MinimalIntervention(share=1.0)),
    ({"mti": {"share": 0.2, "gate": "random"}}, MinimalIntervention(share=0.2, gate="random")),
    (
        {"mti": {"scale": 2, "negative": "apple", "branch": "prompt", "gate": "always"}},
        MinimalIntervention(scale=2.0, negative="apple", branch="prompt", gate="always"),
    ),
    ({"mti": {"negative": [3, 4]}}, MinimalIntervention(negative=(3, 4))),
    (
        {"mti": {"negative": "a" * 2 * SUFFIX_CHARS, "branch": "prompt"}},
        MinimalIntervention(negative="a" * 2 * SUFFIX_CHARS, branch="prompt"),
    ),
    ({"cfg": True}, Guidance()),
    ({"cfg": {"last_token": True}}, Guidance(other=LastToken())),
    ({"cfg": {"last_token": False, "negative": "be rude"}}, Guidance(other=System("be rude"))),
    ({"cfg": {"negative": ""}}, Guidance(other=System(""))),
    ({"cfg": {"negative": [1, 2], "scale": 3}}, Guidance(scale=3.0, other=Tokens((1, 2)))),
    (
        {"cfg": {"context": "a text", "plausibility": 0.1}},
        Guidance(other=Without("a text"), plausibility=0.1),
    ),
    ({"cad": {"context": "a text"}}, ContextAware(other=Without("a text"))),
    ({"cad": {"avoid": "a text", "scale": 2}}, ContextAware(scale=2.0, other=After("a text"))),
    (
        {"contrast": {"towards": "novice", "away": "expert", "plausibility": 0}},
        ContextualContrast(towards=System("novice"), away=System("expert"), plausibility=0.0),
    ),
    ({"cd": {"assistant": "small"}}, ContrastiveDecoding(assistant="small")),
    (
        {"cd": {"assistant": "small", "scale": 0.5, "plausibility": 0.2, "temperature": 0.5}},
        ContrastiveDecoding(assistant="small", scale=0.5, plausibility=0.2, temperature=0.5),
    ),
    (
        {"uld": {"assistant": "a", "weight": -0.5, "keep": 0.1}},
        LogitDifference(assistant="a", weight=-0.5, keep=0.1),
    ),
    ({"delta": {"before": "a", "after": "b"}}, DeltaUnlearning(before="a", after="b")),
]


@pytest.mark.parametrize(("asked", "recipe"), ASKED, ids=lambda value: str(value)[:40])
def test_an_object_reads_as_its_recipe(asked: dict[str, Any], recipe: Recipe) -> None:
    assert guidance_recipes(asked) == (recipe,)


def test_every_field_of_a_recipe_can_be_asked_for_and_nothing_else() -> None:
    """The views stand for the other prompt; all else goes by the recipe's own names."""
    recipes = {next(iter(asked)): recipe for asked, recipe in ASKED}
    assert recipes.keys() == METHODS.keys()
    views = {"avoid", "context", "last_token", "negative"}
    for name, method in METHODS.items():
        own = {field.name for field in fields(recipes[name])}  # type: ignore[arg-type]
        wanted = (own - {"other"}) | views if "other" in own else own
        assert set(method.keys) == wanted, name


def test_methods_come_in_the_order_in_which_they_act() -> None:
    asked = {name: next(a[name] for a, _ in reversed(ASKED) if name in a) for name in METHODS}
    found = guidance_recipes(dict(reversed(asked.items())))
    assert len(found) == len(METHODS)
    assert in_order(found) == found


@given(st.sets(st.sampled_from([*METHODS])), st.sets(st.sampled_from([*METHODS])))
def test_a_request_adds_to_its_profile_replaces_and_switches_off(
    under: set[str], off: set[str]
) -> None:
    asked = {name: next(a[name] for a, _ in ASKED if name in a) for name in METHODS}
    profile = {name: asked[name] for name in under}
    assert set(guidance_of(dict.fromkeys(off), profile)) == under - off
    assert set(guidance_of(dict.fromkeys(off, False), profile)) == under - off
    assert set(guidance_of({name: asked[name] for name in off}, profile)) == under | off
    assert guidance_of(None, profile) == guidance_of({}, profile) == guidance_of(profile)


def test_what_a_request_says_of_a_method_is_not_mixed_with_its_profile() -> None:
    found = guidance_of({"mti": {"scale": 2}}, {"mti": {"tau": 3.0, "gate": "entropy"}})
    assert found == {"mti": MinimalIntervention(scale=2.0)}


# --- what is refused -----------------------------------------------------------------------------

REFUSED: list[tuple[Any, str]] = [
    ([], ""),
    (CANARY, ""),
    (5, ""),
    ({CANARY: {}}, ""),
    ({"mti": CANARY}, ".mti"),
    ({"mti": []}, ".mti"),
    ({"mti": 0}, ".mti"),
    ({"mti": {CANARY: 1}}, ".mti"),
    ({"mti": {"scale": "1"}}, ".mti.scale"),
    ({"mti": {"scale": True}}, ".mti.scale"),
    ({"mti": {"scale": nan}}, ".mti.scale"),
    ({"mti": {"scale": 101}}, ".mti.scale"),
    ({"mti": {"tau": inf}}, ".mti.tau"),
    ({"mti": {"tau": "0.92"}}, ".mti.tau"),
    ({"mti": {"tau": "q1"}}, ".mti.tau"),
    ({"mti": {"tau": "q٠"}}, ".mti.tau"),
    ({"mti": {"tau": CANARY}}, ".mti.tau"),
    ({"mti": {"tau": [1]}}, ".mti.tau"),
    ({"mti": {"tau": 1, "share": 0.1}}, ".mti.tau"),
    ({"mti": {"share": 0}}, ".mti.share"),
    ({"mti": {"share": 1.1}}, ".mti.share"),
    ({"mti": {"gate": CANARY}}, ".mti.gate"),
    ({"mti": {"branch": ["suffix"]}}, ".mti.branch"),
    ({"mti": {"negative": 5}}, ".mti.negative"),
    ({"mti": {"negative": []}}, ".mti.negative"),
    ({"mti": {"negative": [True]}}, ".mti.negative"),
    ({"mti": {"negative": [-1]}}, ".mti.negative"),
    ({"mti": {"negative": CANARY * SUFFIX_CHARS}}, ".mti.negative"),
    ({"mti": {"negative": ""}}, ".mti"),
    ({"mti": {"tau": 1.0, "gate": "random"}}, ".mti"),
    ({"mti": {"share": 0.5, "gate": "always"}}, ".mti"),
    ({"cfg": {"negative": "\ud800"}}, ".cfg.negative"),
    ({"cfg": {"context": ""}}, ".cfg.context"),
    ({"cfg": {"avoid": [1]}}, ".cfg.avoid"),
    ({"cfg": {"last_token": 1}}, ".cfg.last_token"),
    ({"cfg": {"negative": CANARY, "last_token": True}}, ".cfg.negative"),
    ({"cfg": {"plausibility": 1.1}}, ".cfg.plausibility"),
    ({"cfg": {"tau": 1}}, ".cfg"),
    ({"cad": True}, ".cad.context"),
    ({"cad": {"contxt": CANARY}}, ".cad"),
    ({"contrast": {"towards": CANARY}}, ".contrast.away"),
    ({"contrast": {"towards": CANARY, "away": CANARY}}, ".contrast"),
    ({"cd": True}, ".cd.assistant"),
    ({"cd": {"assistant": ""}}, ".cd.assistant"),
    ({"cd": {"assistant": 5}}, ".cd.assistant"),
    ({"cd": {"assistant": "a", "temperature": 0}}, ".cd.temperature"),
    ({"uld": {"weight": -0.5}}, ".uld.assistant"),
    ({"uld": {"assistant": "a", "keep": 2}}, ".uld.keep"),
    ({"delta": {"before": "a"}}, ".delta.after"),
    ({"delta": {"before": "a", "after": "a"}}, ".delta"),
]


@pytest.mark.parametrize(("asked", "where"), REFUSED, ids=lambda value: repr(value)[:40])
def test_what_is_wrong_is_named_and_not_repeated(asked: Any, where: str) -> None:
    message = {"role": "user", "content": "hello"}
    body = {"model": "m", "messages": [message], "elision": {"guidance": asked}}
    for refused in (lambda: guidance_recipes(asked), lambda: parse_chat(body)):
        with pytest.raises(RequestError) as caught:
            refused()
        assert (caught.value.status, caught.value.param) == (400, f"elision.guidance{where}")
        assert caught.value.code is not None
        assert CANARY not in str(caught.value)


def test_no_guidance_is_none() -> None:
    message = {"role": "user", "content": "hello"}
    for asked in (None, {}, {"mti": None}, {"cfg": False}):
        body = {"model": "m", "messages": [message], "elision": {"guidance": asked}}
        assert parse_chat(body).request.options.get("guidance") == asked
        assert guidance_of(asked) == {}


# --- on an engine --------------------------------------------------------------------------------


def request(**guidance: Any) -> Request:
    return Request(model="m", options={"guidance": guidance} if guidance else {})


class Scores(TextEngine):
    """Says that it has what is asked of it."""

    def __init__(self, reply: list[str], **options: Any) -> None:
        super().__init__(reply, **options)
        self.capabilities = ~Capability.NONE


@pytest.mark.parametrize("missing", [Capability.LOGITS, Capability.BRANCH])
def test_an_engine_that_lacks_what_guidance_needs_is_told_with_method_and_capability(
    missing: Capability,
) -> None:
    engine = Scores(["a"], name="far away")
    engine.capabilities = ~missing
    with pytest.raises(CapabilityError, match=r"elision\.guidance\.cfg.*far away") as caught:
        guidance_for(request(cfg=True), PROFILES["plain"], engine)
    assert (caught.value.missing, caught.value.param) == (missing.name, "elision.guidance.cfg")
    with pytest.raises(CapabilityError, match=r"mti of the profile reasoning") as caught:
        guidance_for(request(), PROFILES["reasoning"], engine)
    assert caught.value.param == "model"
    assert guidance_for(request(mti=None), PROFILES["reasoning"], engine) == ()
    assert guidance_for(request(), PROFILES["guarded"], engine) == ()


def test_a_search_by_beams_is_not_guided() -> None:
    with pytest.raises(CapabilityError, match="by beam search"):
        guidance_for(request(mti=True), PROFILES["guard-paper"], Scores(["a"]))


def opened(recipe: Recipe, context: Context) -> RequestError:
    with pytest.raises(RequestError) as caught:
        AsAsked(recipe, "cfg", "a model").begin(context)
    return caught.value


def test_what_a_recipe_finds_wrong_is_the_fault_of_its_field() -> None:
    bare = Context(lexicon=byte_lexicon(), vocab_size=259, prompt_ids=(1,))
    able = with_branches(bare)
    unable = opened(Guidance(), bare)
    assert isinstance(unable, CapabilityError)
    assert (unable.engine, unable.missing) == ("a model", "BRANCH")
    faults = (
        unable,
        opened(Guidance(), replace(able, prompt_ids=())),
        opened(Guidance(other=Without("nowhere")), able),
        opened(Guidance(other=System("a")), replace(able, reader=None)),
        absent := opened(ContrastiveDecoding(assistant="nobody"), able),
    )
    assert {fault.param for fault in faults} == {"elision.guidance.cfg"}
    assert absent.code == "assistant_missing"
    assert all(name in str(absent) for name in able.assistants)


def test_a_recipe_that_can_be_opened_is_its_own_session() -> None:
    context = with_branches(Context(lexicon=byte_lexicon(), vocab_size=259, prompt_ids=(1,)))
    recipe = Guidance(scale=2.0)
    asked = AsAsked(recipe, "cfg", "a model")
    assert asked.begin(context) == recipe.begin(context)
    assert (asked.stage, asked.rank) == (recipe.stage, recipe.rank)


@pytest.mark.parametrize("text", [{"negative": CANARY}, {"context": CANARY}, {"avoid": CANARY}])
def test_a_recipe_that_was_asked_for_does_not_tell_its_text(text: Mapping[str, str]) -> None:
    (found,) = guidance_for(request(cfg=dict(text)), PROFILES["plain"], Scores(["a"]))
    assert CANARY not in repr(found)
