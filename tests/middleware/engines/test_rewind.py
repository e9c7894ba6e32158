"""Going back: what was written since is gone, what was chosen there is banned there alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elision.contract import (
    ALLOW,
    Completion,
    Context,
    Delta,
    Here,
    Plan,
    Recipe,
    Redact,
    Refuse,
    Request,
    Rewind,
    Sampling,
    Stage,
    Stateless,
    Verdict,
    collect,
    in_order,
)
from elision.errors import BusyError
from elision.guards.guard import Guard
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.decoding import Reply
from elision.middleware.engines.draw import Greedy
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.past import MAX_REWINDS
from elision.middleware.profiles import sampling_recipes
from elision.testing.models import Architecture, tiny_model
from elision.testing.tokenizers import byte_tokenizer

PROMPT = tuple(b"Once upon a time")


@dataclass(frozen=True)
class Every:
    """Hold everything; call for *verdict* whenever *when* says so of the tokens written."""

    when: Any
    verdict: Any
    at_end: bool = False
    rank: int = 0
    stage = Stage.SIGNAL

    def begin(self, context: Context) -> Held:
        return Held(self)


@dataclass(frozen=True)
class Held:
    recipe: Every
    tokens: tuple[int, ...] = ()
    verdict: Verdict = ALLOW
    ended: bool = False

    @property
    def held(self) -> int:
        return 0 if self.ended else 10_000

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        here.note("visited", 1)
        return logits

    def advance(self, token: int) -> Held:
        after = replace(self, tokens=(*self.tokens, token), verdict=ALLOW)
        return replace(after, verdict=self.recipe.verdict(after)) if self._due(after) else after

    def finish(self) -> Held:
        due = self.recipe.at_end and self.recipe.when(self.tokens)
        return replace(self, ended=True, verdict=self.recipe.verdict(self) if due else ALLOW)

    def _due(self, after: Held) -> bool:
        return not self.recipe.at_end and self.recipe.when(after.tokens)


@dataclass(frozen=True)
class Letters(Stateless):
    """Let the model write small letters only, so that a token is a character."""

    stage: Stage = Stage.HARD_MASK

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return letters(logits)


def letters(row: Tensor) -> Tensor:
    masked = torch.full_like(row, -torch.inf)
    masked[97:123] = row[97:123]
    return masked


def causal(architecture: Architecture = "llama") -> CausalModel:
    tokenizer = byte_tokenizer()
    return CausalModel(tiny_model(architecture, vocab_size=len(tokenizer)), tokenizer, name="tiny")


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(causal())
    yield engine
    await engine.aclose()


def plan(*recipes: Recipe, max_tokens: int = 12, **fields: Any) -> Plan:
    sampling = Sampling(**{"temperature": 0.0, **fields.pop("sampling", {})})
    request = Request(
        kind="text", prompt=PROMPT, sampling=sampling, max_tokens=max_tokens, **fields
    )
    return Plan(
        request=request, recipes=in_order((*sampling_recipes(sampling), Letters(), *recipes))
    )


async def run(engine: LocalEngine, plan: Plan) -> Completion:
    return await collect(engine.stream(plan))


async def ids(engine: LocalEngine, *recipes: Recipe, **fields: Any) -> list[int]:
    done = await run(engine, plan(*recipes, logprobs=0, **fields))
    return [entry.data[0] for entry in done.choices[0].logprobs]


def back_to(to: int, **more: Any) -> Any:
    return lambda session: Rewind(to, frozenset(), **more)


async def test_the_token_is_banned_at_its_position_and_nowhere_else(engine: LocalEngine) -> None:
    plain = await ids(engine)
    at = 3
    once = Every(lambda t: len(t) == 6 and t[at] == plain[at], back_to(at))
    mended = await ids(engine, once)
    assert mended[:at] == plain[:at]
    assert mended[at] != plain[at]
    assert len(mended) == len(plain)
    model = causal()
    with torch.inference_mode():
        cache = model.new_cache()
        row = letters(model.score((*PROMPT, *plain[:at]), cache))
        row[plain[at]] = -torch.inf
        want = [int(row.argmax())]
        while len(want) < len(plain) - at:
            want.append(int(letters(model.score((want[-1],), cache)).argmax()))
    assert mended[at:] == want


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
async def test_what_follows_a_rewind_is_what_a_fresh_engine_would_say(
    architecture: Architecture,
) -> None:
    engine = LocalEngine(causal(architecture))
    try:
        first = await ids(engine)
        second = Every(lambda t: len(t) == 9 and t[4] == first[4], back_to(4))
        mended = await ids(engine, second, max_tokens=9)
    finally:
        await engine.aclose()
    model = causal(architecture)
    with torch.inference_mode():
        for at in range(5, 9):  # behind the ban the greedy choice is the model's own
            row = model.score((*PROMPT, *mended[:at]), model.new_cache())
            assert mended[at] == int(letters(row).argmax())


@settings(max_examples=20)
@given(st.integers(0, 7), st.integers(0, 5), st.booleans())
def test_any_rewind_streams_what_it_collects_and_ends_within_its_length(
    to: int, retries: int, sampled: bool
) -> None:
    async def both() -> tuple[str, list[Delta]]:
        engine = LocalEngine(causal())
        greedy = Every(lambda t: len(t) == 8, back_to(to, retries=retries, otherwise=Refuse()))
        wanted = plan(
            greedy, sampling={"temperature": 1.0 if sampled else 0.0, "seed": 7}, logprobs=0
        )
        whole = await run(engine, wanted)
        pieces = [delta async for delta in engine.stream(wanted)]
        await engine.aclose()
        return whole.text, pieces

    text, pieces = asyncio.run(both())
    assert "".join(delta.text for delta in pieces) == text
    report = pieces[-1].report or {}
    tries = min(retries, MAX_REWINDS)
    assert report.get("usage", {}).get("n_rewinds", 0) == tries
    assert report.get("usage", {}).get("rewound_tokens", 0) == tries * (8 - to)


async def test_a_place_is_tried_anew_as_often_as_asked_then_the_other_verdict_holds(
    engine: LocalEngine,
) -> None:
    always = Every(lambda t: len(t) == 5, back_to(2, retries=2, otherwise=Refuse()))
    done = await run(engine, replace(plan(always), refusal="no"))
    assert (done.text, done.choices[0].finish) == ("no", "content_filter")
    assert done.report["usage"] == {"n_rewinds": 2, "rewound_tokens": 6}


async def test_no_reply_goes_back_more_than_eight_times(engine: LocalEngine) -> None:
    always = Every(lambda t: len(t) == 3, back_to(0, retries=1000, otherwise=Refuse()))
    done = await run(engine, plan(always))
    assert done.report["usage"]["n_rewinds"] == MAX_REWINDS
    assert done.choices[0].finish == "content_filter"


async def test_the_other_verdict_may_redact_and_the_reply_goes_on(engine: LocalEngine) -> None:
    plain = (await run(engine, plan())).text
    always = Every(lambda t: len(t) == 5, back_to(2, retries=0, otherwise=Redact(1, 3, "[gone]")))
    assert (await run(engine, plan(always))).text == plain[:1] + "[gone]" + plain[3:]


async def test_text_that_has_left_is_never_taken_back(engine: LocalEngine) -> None:
    @dataclass(frozen=True)
    class Open(Held):
        held: int = field(default=0)

    class Loose(Every):
        def begin(self, context: Context) -> Held:
            return Open(self)

    deltas = [
        delta
        async for delta in engine.stream(
            plan(Loose(lambda t: len(t) == 5, back_to(2, otherwise=Refuse())))
        )
    ]
    plain = (await run(engine, plan())).text
    assert "".join(d.text for d in deltas) == plain[:4]
    assert deltas[-2].finish == "content_filter"


async def test_the_end_of_the_text_may_be_taken_back_too(engine: LocalEngine) -> None:
    plain = await ids(engine)
    at_end = Every(lambda t: t[10] == plain[10], back_to(10), at_end=True)
    mended = await ids(engine, at_end)
    assert mended[:10] == plain[:10]
    assert mended[10] != plain[10]
    assert len(mended) == len(plain)


async def test_a_text_cut_by_a_stop_goes_back_within_what_is_left(engine: LocalEngine) -> None:
    fields: dict[str, Any] = {"max_tokens": 40, "sampling": {"temperature": 1.5, "seed": 1}}
    plain = (await run(engine, plan(**fields))).text
    stop = plain[9:12]
    assert plain.index(stop) == 9
    again = Every(lambda t: t[3] == ord(plain[3]), back_to(3), at_end=True)
    done = await run(engine, plan(again, stop=(stop,), **fields))
    assert done.text[:3] == plain[:3]
    assert done.text[3] != plain[3]


async def test_what_was_noted_and_counted_on_the_way_is_undone(engine: LocalEngine) -> None:
    once = Every(lambda t: len(t) == 6, back_to(2, retries=1, otherwise=Redact(0, 0, "")))
    done = await run(engine, plan(once, logprobs=0))
    assert done.report["notes"]["visited"] == 12
    assert done.usage.completion_tokens == 12
    assert len(done.choices[0].logprobs) == 12
    assert "".join(e.token for e in done.choices[0].logprobs) == done.text


async def test_choices_go_back_on_their_own(engine: LocalEngine) -> None:
    sampling = {"temperature": 1.0, "seed": 3}
    plain = await run(engine, plan(n=3, sampling=sampling))
    first = [ord(c.text[0]) for c in plain.choices]
    one = Every(lambda t: len(t) == 4 and t[0] == first[1], back_to(0))
    mended = await run(engine, plan(one, n=3, sampling=sampling))
    for before, after in zip(plain.choices, mended.choices, strict=True):
        assert (before.text == after.text) == (ord(before.text[0]) != first[1])


async def test_of_two_rewinds_the_farther_one_is_done(engine: LocalEngine) -> None:
    plain = await ids(engine)
    near = Every(lambda t: len(t) == 6 and t[4] == plain[4], back_to(4))
    far = Every(lambda t: len(t) == 6 and t[1] == plain[1], back_to(1), rank=1)
    mended = await ids(engine, near, far)
    assert mended[0] == plain[0]
    assert mended[1] != plain[1]


async def test_of_two_that_cannot_go_back_the_stricter_wish_is_done(engine: LocalEngine) -> None:
    mild = Every(lambda t: len(t) == 5, back_to(1, retries=0, otherwise=Redact(0, 2, "x")))
    strict = Every(lambda t: len(t) == 5, back_to(3, retries=0, otherwise=Refuse()), rank=1)
    done = await run(engine, replace(plan(mild, strict), refusal="no"))
    assert (done.text, done.choices[0].finish) == ("no", "content_filter")


async def test_one_that_cannot_go_back_is_heard_beside_one_that_can(engine: LocalEngine) -> None:
    can = Every(lambda t: len(t) == 5, back_to(1))
    cannot = Every(lambda t: len(t) == 5, back_to(3, retries=0, otherwise=Refuse()), rank=1)
    done = await run(engine, replace(plan(can, cannot), refusal="no"))
    assert (done.text, done.choices[0].finish) == ("no", "content_filter")


async def test_a_session_may_refuse_before_the_first_token(engine: LocalEngine) -> None:
    class Closed(Every):
        def begin(self, context: Context) -> Held:
            return replace(Held(self), verdict=Refuse())

    no = Closed(lambda t: False, None)
    done = await run(engine, replace(plan(no, n=2), refusal="no"))
    assert [(c.text, c.finish) for c in done.choices] == [("no", "content_filter")] * 2
    assert done.usage.completion_tokens == 0


async def test_the_first_token_waits_for_what_is_pending_and_others_do_not(
    engine: LocalEngine,
) -> None:
    gate: Future[None] = Future()
    waiting = asyncio.create_task(run(engine, replace(plan(), pending=(gate,))))
    other = await asyncio.wait_for(run(engine, plan()), timeout=20)
    assert not waiting.done()
    gate.set_result(None)
    assert (await asyncio.wait_for(waiting, timeout=20)).text == other.text


async def test_what_stays_pending_past_the_deadline_fails_the_request(engine: LocalEngine) -> None:
    began = time.monotonic()
    with pytest.raises(BusyError, match="before the first token"):
        await run(engine, replace(plan(timeout_s=0.2), pending=(Future(),)))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("before", ["", "He is the secret"])
def test_where_only_the_phrase_is_wanted_the_reply_goes_back_to_its_beginning(before: str) -> None:
    lexicon = causal().lexicon
    guard = Guard.compile([ForgetTarget(title="t", phrases=(Phrase(text="secret phrase"),))])
    context = Context(lexicon=lexicon, vocab_size=len(lexicon), before=before)
    script = "A secret phrase." if not before else " phrase. A secret phrase."
    wanted = replace(plan(max_tokens=len(script)), recipes=guard.recipes(lexicon), refusal="no")
    reply = Reply.begin(wanted, context, Greedy(), max_tokens=len(script))
    left = ""
    while reply.finish is None:
        row = torch.full((len(lexicon),), -50.0)
        row[ord(script[len(reply.tokens)])] = 10.0
        row[ord("z")] = 1.0
        reply.visit(reply.here(row))
        if delta := reply.take():
            left += delta.text
    assert left == reply.release.text
    assert not guard.hides(before + left)
    want = (" zhrase. A z", 2) if before else ("A zecret phr", 1)
    assert (left[:12], reply.past.n_rewinds) == want
    assert reply.finish == "length"


@dataclass(frozen=True)
class Cornered(Stateless):
    """After *dead* there is nothing; what it grows from began three tokens ago, one is held."""

    dead: str
    text: str = ""
    n_growing = 3
    held = 1
    verdict = ALLOW
    stage = Stage.HARD_MASK
    rank = 0

    def begin(self, context: Context) -> Cornered:
        return self

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return torch.full_like(logits, -torch.inf) if self.text.endswith(self.dead) else logits

    def advance(self, token: int) -> Cornered:
        return replace(self, text=self.text + chr(token))


def test_from_a_dead_end_the_reply_goes_back_at_least_behind_what_has_left() -> None:
    lexicon = causal().lexicon
    wanted = replace(plan(max_tokens=5), recipes=(Cornered("aab"),), refusal="no")
    context = Context(lexicon=lexicon, vocab_size=len(lexicon))
    reply, left = Reply.begin(wanted, context, Greedy(), max_tokens=5), ""
    while reply.finish is None:
        row = torch.full((len(lexicon),), -50.0)
        row[ord("aabaa"[len(reply.tokens)])] = 10.0
        row[ord("z")] = 1.0
        reply.visit(reply.here(row))
        if delta := reply.take():
            left += delta.text
    assert (left, reply.finish, reply.past.n_rewinds) == ("aazaa", "length", 1)
