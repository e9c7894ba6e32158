"""Rows of a batch: laws of `adjust`, rows against the plain chain and against the local engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elision.contract import (
    Capability,
    Context,
    Here,
    Plan,
    Recipe,
    Request,
    Sampling,
    Suffix,
    collect,
    in_order,
)
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.plugin import worker as working
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.engines.plugin.rows import Row
from elision.middleware.engines.plugin.visits import Visit, adjust
from elision.middleware.engines.plugin.worker import Worker
from elision.middleware.interventions import (
    Chain,
    EntropyMinimisation,
    FrequencyPresence,
    LogitBias,
    MinimalIntervention,
    Repetition,
    TargetEntropy,
)
from elision.middleware.profiles import sampling_recipes
from elision.testing.broken import Breaking, Where
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer

V, STOP, EOS = 259, 256, 257
PROMPT = tuple(b"Once upon a time")
RECIPES: dict[str, Recipe] = {
    "em-inf": EntropyMinimisation(),
    "em-inf-first": EntropyMinimisation(first=True),
    "target-entropy": TargetEntropy(ratio=0.7),
    "bias": LogitBias(bias={101: 2.0, 116: -3.0}),
    "frequency": FrequencyPresence(frequency=0.5, presence=0.3),
    "repetition": Repetition(penalty=1.4),
}


def masks(*phrases: str, passages: Sequence[str] = (), **options: Any) -> Carried:
    made = tuple(Phrase(text=text, **options) for text in phrases)
    found = Carried.of([ForgetTarget(title="t", phrases=made, passages=tuple(passages))])
    assert found is not None
    return found


MASKS = masks("abc", "the cat", "zebra crossing", "e")


@pytest.fixture(scope="module")
def worker() -> Worker:
    return _worker()


def _worker() -> Worker:
    worker = Worker(byte_tokenizer, vocab_size=V, eos=(EOS,))
    worker.kept.learn(MASKS.body)
    return worker


WORKER = _worker()


def opened(order: Order, worker: Worker = WORKER, **options: Any) -> Row:
    return Row.open(order, PROMPT, worker, **options)


def scores(seed: int, rows: int = 1, spread: float = 3.0) -> Tensor:
    made = torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))
    return made * spread


def only(row: Tensor) -> list[int]:
    """Return the tokens of *row* that can be chosen."""
    return row.isfinite().nonzero().flatten().tolist()


def context(**fields: Any) -> Context:
    given: dict[str, Any] = {"prompt_ids": PROMPT, "eos": frozenset([EOS]), **fields}
    return Context(lexicon=WORKER.lexicon, vocab_size=V, **given)


orders = st.builds(
    Order,
    recipes=st.lists(st.sampled_from(list(RECIPES.values())), max_size=3, unique_by=id).map(tuple),
    guard=st.sampled_from(["", MASKS.digest]),
    stop=st.sampled_from([None, STOP]),
    bans=st.dictionaries(st.integers(0, 4), st.lists(st.integers(0, V - 1), max_size=3).map(tuple)),
)
replies = st.lists(st.sampled_from(b"abc theczr\xc3\xa9"), max_size=8)


# --- laws of adjust ------------------------------------------------------------------------------


@given(orders=st.lists(orders, min_size=1, max_size=4), reply=replies, seed=st.integers(0, 99))
def test_rows_that_nobody_visits_keep_every_bit(
    orders: list[Order], reply: list[int], seed: int
) -> None:
    logits = scores(seed, rows=2 * len(orders))
    before = logits.clone()
    visits = [opened(order).visit(2 * n, reply) for n, order in enumerate(orders)]
    assert adjust(logits, visits, WORKER) is logits
    assert torch.equal(logits[1::2], before[1::2])


@given(order=orders, reply=replies, seed=st.integers(0, 99), holes=st.integers(0, V - 1))
def test_what_a_grammar_forbids_stays_forbidden_and_nothing_is_not_a_number(
    order: Order, reply: list[int], seed: int, holes: int
) -> None:
    logits = scores(seed)
    cut = torch.randperm(V, generator=torch.Generator().manual_seed(seed))[:holes]
    logits[0, cut] = -torch.inf
    visit = opened(order).visit(0, reply)
    adjust(logits, [visit], WORKER)
    assert not logits.isnan().any()
    assert logits.amax() > -torch.inf
    ends = [*WORKER.ends(order)]
    assert only(logits[0]) == ends or logits[0, cut].eq(-torch.inf).all()


@given(order=orders, reply=replies, seed=st.integers(0, 99))
def test_a_row_equals_the_plain_chain_replayed(order: Order, reply: list[int], seed: int) -> None:
    raw = scores(seed)
    got = adjust(raw.clone(), [opened(order).visit(0, reply)], WORKER)[0]
    guard = WORKER.masks(order)
    chain = Chain.begin((*order.recipes, *guard), context())
    for token in reply:
        chain = chain.advance(token)
    row = raw[0].clone()
    row[[*([] if order.stop is None else [STOP]), *order.bans.get(len(reply), ())]] = -torch.inf
    want = chain.adjust(row, Here(row, position=len(reply)))
    if want.amax() == -torch.inf:
        assert only(got) == [*WORKER.ends(order)]
    else:
        assert torch.allclose(got, want, atol=1e-5)
        assert torch.equal(got.isfinite(), want.isfinite())


@given(reply=replies, seed=st.integers(0, 99), poison=st.sampled_from([torch.nan, torch.inf]))
def test_a_row_without_a_distribution_can_only_stop_and_spoils_no_other(
    reply: list[int], seed: int, poison: float
) -> None:
    order = Order(guard=MASKS.digest, recipes=(EntropyMinimisation(),), stop=STOP)
    logits = scores(seed, rows=2)
    alone = adjust(logits[1:].clone(), [opened(order).visit(0, reply)], WORKER)
    logits[0, 7] = poison
    adjust(logits, [opened(order).visit(n, reply) for n in range(2)], WORKER)
    assert only(logits[0]) == [STOP]
    assert torch.allclose(logits[1], alone[0], atol=1e-6)


def test_the_stop_token_can_be_chosen_nowhere_but_in_a_dead_row() -> None:
    logits = scores(1)
    logits[0, STOP] = 50.0
    adjust(logits, [opened(Order(stop=STOP)).visit(0, [])], WORKER)
    assert logits[0, STOP] == -torch.inf
    assert len(only(logits[0])) == V - 1


def test_a_stop_that_nobody_could_tell_from_an_end_stops_the_row_at_once() -> None:
    row = opened(Order(stop=EOS))
    assert row.is_dead
    assert only(adjust(scores(1), [row.visit(0, [])], WORKER)[0]) == [EOS]
    worker = Worker(byte_tokenizer, vocab_size=V, eos=(EOS, STOP))
    assert opened(Order(stop=STOP), worker).is_dead


def test_an_order_that_asks_for_nothing_touches_nothing() -> None:
    logits = scores(1)
    logits[0, 7] = torch.nan
    before = logits.clone()
    adjust(logits, [opened(Order()).visit(0, [97])], WORKER)
    assert logits.equal(before) or torch.allclose(logits, before, rtol=0, atol=0, equal_nan=True)


def test_tokens_that_the_scores_are_too_narrow_for_stop_nothing_and_break_nothing() -> None:
    for stop, ends in ((STOP, []), (100, [100])):
        logits = scores(1)[:, :200].contiguous()
        adjust(logits, [Row.dead(WORKER, Order(stop=stop)).visit(0, [])], WORKER)
        assert only(logits[0]) == ends
    logits = scores(1)[:, :258].contiguous()
    worker = Worker(byte_tokenizer, vocab_size=300, eos=(EOS,))
    adjust(logits, [Row.dead(worker, Order(stop=290)).visit(0, [])], worker)
    assert only(logits[0]) == [EOS]


@pytest.mark.parametrize(("stop", "ends"), [(STOP, [STOP]), (None, [EOS]), (V + 5, [EOS])])
def test_a_dead_row_forces_its_stop_token_or_else_the_end(
    stop: int | None, ends: list[int]
) -> None:
    for row in (Row.dead(WORKER, Order(stop=stop)), opened(Order(guard="unknown", stop=stop))):
        assert row.is_dead
        logits = adjust(scores(2), [row.visit(0, [5, 6])], WORKER)
        assert only(logits[0]) == ends
        assert logits[0, ends].eq(0).all()


def test_a_model_without_an_end_token_is_stopped_by_one_that_writes_nothing() -> None:
    def silent() -> Any:
        tokenizer = byte_tokenizer()
        tokenizer.eos_token = None
        return tokenizer

    worker = Worker(silent, vocab_size=V)
    logits = adjust(scores(2), [Row.dead(worker).visit(0, [])], worker)
    assert set(only(logits[0])) <= worker.lexicon.special
    assert only(logits[0])


@pytest.mark.parametrize("has_cuda", [True, False])
def test_what_takes_time_is_done_before_a_row_comes(
    has_cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(working, "prepare", lambda: done.append("compiled"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    worker = Worker(byte_tokenizer, vocab_size=V, eos=(EOS,))
    worker.get_ready()
    assert done == ([] if has_cuda else ["compiled"])
    assert {"lexicon", "silent"} <= vars(worker).keys()


def test_where_everything_is_forbidden_the_row_can_only_stop() -> None:
    everything = masks(*map(chr, range(33, 127)), boundary="no")
    worker = Worker(byte_tokenizer, vocab_size=V, eos=(EOS,))
    order = Order(guard=everything.digest, learn=everything.body, stop=STOP)
    logits = torch.full((1, V), -torch.inf)
    logits[0, list(b"abcxyz019")] = 1.0
    assert only(adjust(logits, [opened(order, worker).visit(0, [])], worker)[0]) == [STOP]


def test_a_ban_holds_at_its_position_alone() -> None:
    row = opened(Order(bans={1: (7, 400)}))
    for position, banned in enumerate([False, True, False]):
        logits = adjust(scores(3), [row.visit(0, [5] * position)], WORKER)
        assert logits[0, 7].isneginf().item() is banned


# --- what breaks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["begin", "adjust", "advance", "verdict"])
def test_a_session_that_breaks_kills_its_row_alone_and_no_log_repeats_why(
    at: Where, caplog: pytest.LogCaptureFixture
) -> None:
    good = Order(guard=MASKS.digest, recipes=(EntropyMinimisation(),), stop=STOP)
    bad = replace(good, recipes=(Breaking(where=at, secret="secret"), EntropyMinimisation()))
    logits = scores(4, rows=3)
    want = adjust(logits.clone()[1:2], [opened(good).visit(0, [97])], WORKER)
    with caplog.at_level(logging.DEBUG):
        visits = [opened(o).visit(n, [97]) for n, o in enumerate((bad, good, bad))]
        adjust(logits, visits, WORKER)
    assert only(logits[0]) == only(logits[2]) == [STOP]
    assert torch.allclose(logits[1], want[0], atol=1e-6)
    assert "secret" not in caplog.text


def test_a_recipe_that_needs_what_the_server_lacks_kills_its_row() -> None:
    mti = MinimalIntervention(tau=0.5, negative=(1, 2))
    assert opened(Order(recipes=(mti,))).is_dead
    assert opened(Order(recipes=(MinimalIntervention(),)), capabilities=BRANCH).is_dead
    assert not opened(Order(recipes=(mti,)), capabilities=BRANCH).is_dead


def test_a_server_that_is_unfit_and_a_prompt_that_nobody_can_read_kill_rows() -> None:
    worker = Worker(byte_tokenizer, vocab_size=V, eos=(EOS,), unfit="it was not tested")
    assert opened(Order(), worker).is_dead
    assert Row.open(Order(), None, WORKER).is_dead


def test_masks_that_are_not_those_named_kill_the_row_and_those_learned_stay() -> None:
    other, worker = masks("other"), Worker(byte_tokenizer, vocab_size=V, eos=(EOS,))
    assert opened(Order(guard=MASKS.digest, learn=other.body), worker).is_dead
    assert opened(Order(guard=MASKS.digest), worker).is_dead
    assert not opened(Order(learn=MASKS.body), worker).is_dead
    assert not opened(Order(guard=MASKS.digest), worker).is_dead
    assert opened(Order(guard=MASKS.digest, learn="{}"), worker).is_dead
    assert not opened(Order(guard=other.digest), worker).is_dead


def test_a_token_that_is_not_known_yet_stops_the_row_until_it_is() -> None:
    row = opened(Order(guard=MASKS.digest, stop=STOP))
    output = [97, -1]
    assert row.visit(0, output).is_dead
    output[1] = 98
    visit = row.visit(0, output)
    assert not visit.is_dead
    logits = adjust(scores(5), [visit], WORKER)
    assert logits[0, 99] == -torch.inf  # abc
    assert row.visit(0, [97, 98, V]).is_dead


def test_behind_a_forced_stop_nothing_comes() -> None:
    row = opened(Order(stop=STOP))
    assert row.visit(0, [97], [98, STOP]).is_dead
    assert not row.visit(0, [97], [98]).is_dead
    assert row.visit(0, [97, STOP]).is_dead
    assert row.visit(0, [97, STOP, 98]).is_dead
    assert opened(Order(stop=STOP)).visit(0, [97, STOP, 98]).is_dead


def stopped(row: Row, output: list[int], drafts: list[int]) -> None:
    """Let a row come to a dead end behind *output* and *drafts*."""
    made = torch.full((1, V), -torch.inf)
    adjust(made, [row.visit(0, output, drafts)], WORKER)
    assert only(made[0]) == [STOP]


@given(
    reply=st.lists(st.sampled_from(b"xyz"), min_size=1, max_size=8),
    n_drafts=st.integers(0, 3),
    follows=st.booleans(),
)
def test_a_row_is_dead_for_good_once_its_reply_goes_on_behind_a_forced_stop(
    reply: list[int], n_drafts: int, follows: bool
) -> None:
    row = opened(Order(guard=MASKS.digest, stop=STOP))
    drafts = [*b"xyx"][:n_drafts]
    stopped(row, reply, drafts)
    assert not row.visit(0, reply).is_dead  # scored again, as behind one more part of a prompt
    gone = [*reply, *(drafts if follows else [*b"zzzz"][: len(drafts)])]
    is_dead = follows or not drafts
    assert row.visit(0, [*gone, 120]).is_dead is is_dead
    assert row.visit(0, [*gone, 120, 121, 122]).is_dead is is_dead
    assert row.visit(0, reply).is_dead is is_dead
    assert row.is_dead is is_dead


def test_a_stop_that_was_taken_back_with_what_was_before_it_is_forgotten() -> None:
    row = opened(Order(guard=MASKS.digest, stop=STOP))
    stopped(row, [*b"xyz"], [])
    assert not row.visit(0, [*b"xy"]).is_dead
    assert not row.visit(0, [*b"xyzxyz"]).is_dead


def test_no_repr_names_a_token_or_a_text() -> None:
    order = Order(user_text="zebra", before="lion", bans={0: (777,)}, learn="tiger", stop=STOP)
    row = opened(order)
    told = f"{order!r} {row!r} {row.visit(0, [888])!r} {WORKER!r} {WORKER.kept!r}"
    assert not [word for word in ("zebra", "lion", "tiger", "777", "888") if word in told]


# --- a row follows its reply ---------------------------------------------------------------------


@st.composite
def walks(draw: st.DrawFn) -> list[list[int]]:
    """Draw outputs as visits find them: grown, cut short, exchanged."""
    output: list[int] = []
    found = []
    for step in draw(st.lists(st.sampled_from(["grow", "more", "cut", "other"]), max_size=10)):
        tail = draw(st.lists(st.sampled_from(b"abc the"), min_size=1, max_size=4))
        match step:
            case "grow":
                output = [*output, tail[0]]
            case "more":
                output = [*output, *tail]
            case "cut":
                output = output[: draw(st.integers(0, len(output)))]
            case _:
                output = tail
        found.append(output)
    return found


@given(walk=walks(), drafts=st.lists(st.sampled_from(b"abc the"), max_size=4))
def test_however_a_reply_was_come_to_a_row_stands_where_a_new_one_would(
    walk: list[list[int]], drafts: list[int]
) -> None:
    order = Order(guard=MASKS.digest, recipes=(Repetition(penalty=1.3),), stop=STOP)
    row = opened(order)
    for output in walk:
        for tail in (drafts, []):
            got = adjust(scores(6), [row.visit(0, output, tail)], WORKER)
            fresh = opened(order).visit(0, [*output, *tail])
            assert torch.equal(got, adjust(scores(6), [fresh], WORKER))


@given(steps=st.lists(st.sampled_from(["a", "b", "c", "cut"]), max_size=12))
def test_a_list_that_grows_in_place_is_followed_like_a_new_one(steps: list[str]) -> None:
    order = Order(guard=MASKS.digest, recipes=(Repetition(penalty=1.3),), stop=STOP)
    row, live = opened(order), list[int]()
    for step in steps:
        if step == "cut":
            del live[len(live) // 2 :]
        else:
            live.append(ord(step))
        got = adjust(scores(7), [row.visit(0, live)], WORKER)
        fresh = opened(order).visit(0, [*live])
        assert torch.equal(got, adjust(scores(7), [fresh], WORKER))


def test_a_request_that_comes_back_with_its_reply_goes_on_as_if_it_had_stayed() -> None:
    order = Order(guard=MASKS.digest, recipes=(FrequencyPresence(frequency=0.5),), stop=STOP)
    stayed, reply = opened(order), list(b"the ca")
    for n in range(len(reply) + 1):
        visit = stayed.visit(0, reply[:n])
    got = adjust(scores(8), [opened(order).visit(0, reply)], WORKER)
    want = adjust(scores(8), [visit], WORKER)
    assert torch.equal(got, want)
    assert got[0, ord("t")] == -torch.inf


def test_a_raw_prompt_counts_as_the_beginning_of_the_reply() -> None:
    prompt = tuple(b"look at the ca")
    for before, is_forbidden in ((None, True), ("", False), ("the ca", True)):
        order = Order(guard=MASKS.digest, before=before)
        row = Row.open(order, prompt, WORKER)
        logits = adjust(scores(9), [row.visit(0, [])], WORKER)
        assert logits[0, ord("t")].isneginf().item() is is_forbidden


def test_a_phrase_that_allows_echo_is_free_to_whoever_wrote_it() -> None:
    carried = masks("secret", allow_echo=True)
    for said, is_forbidden in (("my secret", False), ("hello", True)):
        order = Order(guard=carried.digest, learn=carried.body, user_text=said)
        logits = adjust(scores(9), [opened(order).visit(0, list(b"secre"))], WORKER)
        assert logits[0, ord("t")].isneginf().item() is is_forbidden


# --- other scores --------------------------------------------------------------------------------

BRANCH = Capability.LOGITS | Capability.BRANCH


def test_what_reads_a_branch_mixes_it_and_is_left_out_where_there_is_none() -> None:
    mti = MinimalIntervention(tau=0.1, negative=(1, 2), scale=1.5)
    row = opened(Order(recipes=(mti,), stop=STOP), capabilities=BRANCH)
    raw, other = scores(10), scores(11)[0]
    asked = []

    def branch(key: Any) -> Tensor:
        asked.append(key)
        return other

    got = adjust(raw.clone(), [row.visit(0, [], branch=branch)], WORKER)[0]
    assert asked == [Suffix((1, 2))]
    banned = raw[0].clone()
    banned[STOP] = -torch.inf
    here = Here(banned.clone(), branch=lambda key: other)
    want = Chain.begin([mti], context(capabilities=BRANCH)).adjust(banned, here)
    assert torch.allclose(got, want, atol=1e-5)
    bare = adjust(raw.clone(), [row.visit(0, [])], WORKER)[0]
    assert torch.equal(bare, banned)


# --- against the local engine --------------------------------------------------------------------


def causal(seed: int) -> CausalModel:
    tokenizer = byte_tokenizer()
    model = tiny_model("llama", vocab_size=V, seed=seed)
    return CausalModel(model, tokenizer, name="tiny")


@torch.inference_mode()
def decoded(model: CausalModel, order: Order, n: int) -> list[int]:
    """Decode greedily, one forward per token, scores through a row beside an idle one."""
    row, output = Row.open(order, PROMPT, WORKER), list[int]()
    for _ in range(n):
        ids = torch.tensor([[*PROMPT, *output]])
        made = model.model(input_ids=ids).logits[0, -1:].float().repeat(2, 1)
        adjust(made, [row.visit(1, output)], WORKER)
        output.append(int(made[1].argmax()))
    return output


@pytest.mark.parametrize("name", ["none", "guard", "repetition", "all"])
async def test_greedy_replies_are_those_of_the_local_engine(name: str) -> None:
    model = causal(3)
    recipes: tuple[Recipe, ...] = {
        "none": (),
        "guard": (),
        "repetition": (RECIPES["repetition"],),
        "all": (RECIPES["repetition"], RECIPES["bias"], RECIPES["em-inf"]),
    }[name]
    free = decoded(model, Order(), 24)
    letters = sorted({letter for letter in WORKER.lexicon.text(free[3:]) if letter.isalnum()})
    carried = masks(*letters[:3], boundary="no")
    guard = carried if name in ("guard", "all") else None
    order = Order(recipes=recipes, before=None, user_text=bytes(PROMPT).decode())
    if guard:
        order = replace(order, guard=guard.digest, learn=guard.body)
    got = decoded(model, order, 24)
    extra = WORKER.masks(order)
    sampling = Sampling(temperature=0.0)
    request = Request(kind="text", prompt=bytes(PROMPT).decode(), sampling=sampling, max_tokens=24)
    whole = in_order((*sampling_recipes(sampling), *recipes, *extra))
    engine = LocalEngine(model)
    reply = await collect(engine.stream(Plan(request=request, recipes=whole)))
    await engine.aclose()
    assert reply.text == WORKER.lexicon.text(got)
    assert (got == free) is (name == "none")


@settings(max_examples=10)
@given(seed=st.integers(0, 9))
def test_many_rows_at_once_equal_each_by_itself(seed: int) -> None:
    logits, reply = scores(seed, rows=len(RECIPES)), list(b"the ca")
    orders = [Order(recipes=(r,), guard=MASKS.digest, stop=STOP) for r in RECIPES.values()]
    alone = [
        adjust(logits[n : n + 1].clone(), [opened(order).visit(0, reply)], WORKER)
        for n, order in enumerate(orders)
    ]
    visits = [opened(order).visit(n, reply) for n, order in enumerate(orders)]
    assert torch.allclose(adjust(logits, visits, WORKER), torch.cat(alone), atol=1e-5)


@given(order=orders, reply=replies, seed=st.integers(0, 99))
def test_what_is_left_out_where_it_does_not_count_changes_no_choice(
    order: Order, reply: list[int], seed: int
) -> None:
    made = {}
    for how in ({}, {"best_only": True}, {"temperature": 0.5}):
        row = opened(order, **how)
        made[tuple(how)] = adjust(scores(seed), [row.visit(0, reply)], WORKER)[0]
    whole = made[()]
    assert made["best_only",].argmax() == whole.argmax()
    shares = [(row / 0.5).softmax(-1) for row in (whole, made["temperature",])]
    assert (shares[0] - shares[1]).abs().sum() < 1e-5


def test_a_visit_is_a_value() -> None:
    visit = opened(Order(stop=STOP)).visit(0, [])
    assert isinstance(visit, Visit)
    with pytest.raises(AttributeError):
        visit.index = 1  # type: ignore[misc]
