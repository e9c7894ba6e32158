"""Orders: what is written is read back, and nothing else is read."""

from __future__ import annotations

import json
from dataclasses import fields
from math import inf, nan
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Capability, Context, Here
from elision.errors import ConfigError, RequestError
from elision.middleware.engines.plugin import orders
from elision.middleware.engines.plugin.orders import Order, carries, is_sealed, sealed
from elision.middleware.interventions import (
    INTERVENTIONS,
    EntropyMinimisation,
    FrequencyPresence,
    Guidance,
    LogitBias,
    MinimalIntervention,
    Repetition,
    TargetEntropy,
)
from elision.testing.tokenizers import byte_lexicon

nats = st.floats(-5, 5)
recipes = st.one_of(
    st.builds(EntropyMinimisation, threshold=st.floats(0, 3), first=st.booleans()),
    st.builds(LogitBias, bias=st.dictionaries(st.integers(0, 99_999), nats, max_size=3)),
    st.builds(FrequencyPresence, frequency=nats, presence=nats),
    st.builds(Repetition, penalty=st.floats(0.1, 3)),
    st.builds(TargetEntropy, nats=st.floats(0.1, 3)),
    st.builds(MinimalIntervention, tau=st.floats(0, 3), negative=st.just((1, 2))),
    st.builds(MinimalIntervention, tau=st.just(inf), negative=st.text(min_size=1)),
)
written = st.builds(
    Order,
    recipes=st.lists(recipes, max_size=3).map(tuple),
    guard=st.text("0123456789abcdef", max_size=32),
    learn=st.none() | st.text(),
    before=st.none() | st.text(),
    user_text=st.text(),
    stop=st.none() | st.integers(0, 2**31 - 1),
    bans=st.dictionaries(st.integers(0, 999), st.lists(st.integers(0, 999)).map(tuple)),
    seed=st.none() | st.integers(-(2**63), 2**64),
    choice=st.integers(0, 127),
    drafts=st.sampled_from(["none", "recycle"]),
    pool=st.text(max_size=64),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(written)
def test_what_is_written_is_read_back(order: Order) -> None:
    assert Order.loads(order.dumps()) == order


def test_what_is_neutral_is_not_written() -> None:
    assert json.loads(Order().dumps()) == {"format": orders.FORMAT}


@given(anything)
def test_whatever_is_no_order_is_refused_and_breaks_nothing(value: Any) -> None:
    for text in (value, json.dumps(value)):
        with pytest.raises(RequestError):
            Order.loads(text)


@given(name=st.sampled_from([one.name for one in fields(Order)]), value=anything)
def test_a_field_is_read_as_what_it_is_or_the_order_is_refused(name: str, value: Any) -> None:
    body = {"format": orders.FORMAT, name: value}
    try:
        order = Order.loads(json.dumps(body))
    except RequestError:
        return
    read = getattr(order, name)
    assert read == value or (name == "bans" and len(read) == len(value)) or not value
    assert isinstance(read, bool) is False
    assert Order.loads(order.dumps()) == order


@given(maker=st.sampled_from(sorted(orders._MAKERS)), data=st.data())
def test_a_recipe_that_is_read_works_or_says_in_words_of_ours_that_it_cannot(
    maker: str, data: st.DataObject
) -> None:
    kinds = [one for one in fields(orders._MAKERS[maker]) if one.init]  # type: ignore[arg-type]
    table = st.dictionaries(st.integers(-9, 300).map(str), st.floats() | st.booleans())
    value = anything | table | st.floats(0, 2) | st.integers(0, 5) | st.lists(st.integers(0, 9))
    setting = data.draw(st.dictionaries(st.sampled_from([one.name for one in kinds]), value))
    body = json.dumps({"format": orders.FORMAT, "recipes": [[maker, setting]]})
    try:
        (recipe,) = Order.loads(body).recipes
    except RequestError:
        return
    both = Capability.LOGITS | Capability.BRANCH
    context = Context(lexicon=byte_lexicon(), vocab_size=259, capabilities=both)
    row = torch.linspace(-4, 4, 259)
    try:
        session = recipe.begin(context)
    except (RequestError, ConfigError):
        return
    assert not session.adjust(row, Here(row, branch=lambda key: -row)).isnan().any()


@pytest.mark.parametrize(
    "body",
    [
        '{"format":1,"stop":true}',
        '{"format":1,"stop":-1}',
        '{"format":1,"stop":1.0}',
        '{"format":1,"stop":2147483648}',
        '{"format":1,"stop":NaN}',
        '{"format":1,"choice":Infinity}',
        '{"format":1,"bans":{"-1":[1]}}',
        '{"format":1,"bans":{"1":[-1]}}',
        '{"format":1,"bans":{"1":[true]}}',
        '{"format":1,"bans":{"1":[1e999]}}',
        '{"format":1,"bans":{"1":[1],"01":[2]}}',
        '{"format":1,"bans":{"1":[1],"1":[2]}}',
        '{"format":1,"bans":{"1_0":[1]}}',
        '{"format":1,"bans":{" 1":[1]}}',
        '{"format":1,"bans":{"\\u0661":[1]}}',
        '{"format":1,"bans":[[1,2]]}',
        '{"format":1,"guard":"a","guard":""}',
        '{"format":1,"recipes":{"em-inf":{}}}',
        '{"format":1,"recipes":["em-inf"]}',
        '{"format":1,"recipes":[["em-inf"]]}',
        '{"format":1,"recipes":[["em-inf",{},{}]]}',
        '{"format":1,"recipes":[[["em-inf"],{}]]}',
        '{"format":1,"recipes":[["rm",{}]]}',
        '{"format":1,"recipes":[["em-inf",{"steps":true}]]}',
        '{"format":1,"recipes":[["em-inf",{"steps":2.5}]]}',
        '{"format":1,"recipes":[["em-inf",{"lr":"0.1"}]]}',
        '{"format":1,"recipes":[["em-inf",{"lr":NaN}]]}',
        '{"format":1,"recipes":[["em-inf",{"first":1}]]}',
        '{"format":1,"recipes":[["em-inf",{"rank":1}]]}',
        '{"format":1,"recipes":[["repetition-penalty",{}]]}',
        '{"format":1,"recipes":[["repetition-penalty",{"penalty":' + "9" * 400 + "}]]}",
        '{"format":1,"recipes":[["logit-bias",{"bias":{"5":true}}]]}',
        '{"format":1,"recipes":[["logit-bias",{"bias":{"5":1,"5":2}}]]}',
        '{"format":1,"recipes":[["logit-bias",{"bias":[5]}]]}',
        '{"format":1,"recipes":[["mti",{"negative":5}]]}',
        '{"format":1,"recipes":[["mti",{"negative":[]}]]}',
        '{"format":1,"recipes":[["mti",{"negative":["a"]}]]}',
        '{"format":true}',
        '{"format":2}',
        '{"format":1,"drafts":"all"}',
        '{"format":1,"drafts":["none"]}',
        '{"format":1,"pool":"' + "x" * 300 + '"}',
        '{"format":1,"learn":{}}',
        '{"format":1,"unknown":1}',
        '{"format":1,"recipes":[' + ",".join(['["em-inf",{}]'] * 33) + "]}",
        "[" * 100_000,
        "{}",
        "",
        None,
        7,
        b"{}",
    ],
)
def test_malformed_orders_are_refused(body: object) -> None:
    with pytest.raises(RequestError):
        Order.loads(body)


def test_a_refusal_repeats_nothing_of_the_order() -> None:
    setting = {"negative": "zebra", "branch": "zebra", "scale": 777.0}
    for part in ({"zebra": 1}, {"recipes": [["mti", setting]]}, {"drafts": "zebra"}):
        with pytest.raises(RequestError) as caught:
            Order.loads(json.dumps({"format": orders.FORMAT, **part}))
        assert "zebra" not in str(caught.value)
        assert "777" not in str(caught.value)


def test_every_type_of_a_setting_is_read_by_its_kind() -> None:
    for maker in orders._MAKERS.values():
        for one in fields(maker):  # type: ignore[arg-type]
            kind = str(one.type)
            is_word = kind == "Method" or kind.startswith("Literal")
            assert kind in orders._SETTINGS or is_word or not one.init


def test_recipes_that_need_what_is_not_there_are_not_carried() -> None:
    for name, make in INTERVENTIONS.items():
        is_named = type(make()) in orders._NAMES
        assert carries(make()) is (is_named and name != "mti-random")
    assert not carries(MinimalIntervention(branch="last_token"))
    with pytest.raises(ConfigError, match="Guidance"):
        Order(recipes=(Guidance(scale=1.5),)).dumps()


@given(text=st.text(), secret=st.text(min_size=1))
def test_a_seal_fits_its_order_and_its_secret_alone(text: str, secret: str) -> None:
    seal = sealed(text, secret)
    assert is_sealed(text, seal, secret)
    assert not is_sealed(text + "x", seal, secret)
    assert not is_sealed(text, seal, secret + "x")
    for other in (None, "", 5, seal[:-1], seal + "0", "é"):
        assert not is_sealed(text, other, secret)


def test_not_a_number_is_no_setting() -> None:
    with pytest.raises((ConfigError, RequestError)):
        Order.loads(Order(recipes=(MinimalIntervention(tau=nan),)).dumps())
