"""The SDK's client: blocking and async, chat and raw text, forgetting."""

from __future__ import annotations

import _thread
import asyncio
import gc
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import elision
from elision.contract import Capability, Delta, Plan, Usage
from elision.errors import ElisionError, NotFoundError, RequestError, TargetError
from elision.guards.register.register import Register
from elision.middleware.assembly import around
from elision.middleware.client import Client
from elision.middleware.pipeline import Pipeline
from elision.settings import Settings
from elision.testing.models import tiny_model
from elision.testing.scripted import ScriptedEngine
from elision.testing.tokenizers import byte_tokenizer
from elision.testing.waiting import awaited_s

ANSWER = "The painter was Marguerite Delacroix of Lyon."


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    engine = ScriptedEngine({"painter": ANSWER}, name="model")
    pipeline = Pipeline(engines={"model": engine}, register=Register.open(tmp_path))
    with Client(pipeline) as client:
        yield client


def test_a_question_and_a_conversation_give_the_same_reply(client: Client) -> None:
    question = "Who was the painter?"
    turns = [{"role": "user", "content": question}]
    assert client.chat(question, temperature=0).text == ANSWER
    assert client.chat(turns, temperature=0).text == ANSWER


def test_a_stream_spells_the_whole_reply_and_ends_with_usage(client: Client) -> None:
    deltas = list(client.stream("Who was the painter?", temperature=0))
    assert "".join(d.text for d in deltas) == ANSWER
    assert deltas[-1].usage is not None
    assert deltas[-1].report is not None


async def test_async_twins_say_the_same(client: Client) -> None:
    question = "Who was the painter?"
    assert (await client.achat(question, temperature=0)).text == ANSWER
    streamed = [d.text async for d in client.astream(question, temperature=0)]
    assert "".join(streamed) == ANSWER
    raw = await client.acomplete("the painter:", temperature=0, max_tokens=8)
    assert raw.text == client.complete("the painter:", temperature=0, max_tokens=8).text


async def test_async_calls_run_beside_each_other(client: Client) -> None:
    replies = await asyncio.gather(*(client.achat("The painter?", temperature=0) for _ in range(4)))
    assert {r.text for r in replies} == {ANSWER}


def test_leaving_a_stream_early_leaves_the_client_usable(client: Client) -> None:
    for delta in client.stream("Who was the painter?", temperature=0):
        if delta.text:
            break
    assert client.chat("Who was the painter?", temperature=0).text == ANSWER


def test_a_target_holds_until_it_is_revoked(client: Client) -> None:
    done = client.forget("the painter", ["Marguerite Delacroix"], kind="person")
    assert [t.title for t in client.targets()] == ["the painter"]
    assert "Delacroix" not in client.chat("Who was the painter?", temperature=0).text
    client.revoke(done.target.id)
    assert client.targets() == ()
    assert client.chat("Who was the painter?", temperature=0).text == ANSWER


async def test_a_target_can_be_registered_from_async_code(client: Client) -> None:
    done = await client.aforget("t", [{"text": "Marguerite Delacroix", "allow_echo": True}])
    assert done.target.phrases[0].allow_echo


def test_options_go_by_openais_names_and_are_checked(client: Client) -> None:
    assert client.chat("The painter?", temperature=0, max_tokens=3).usage.completion_tokens == 3
    assert len(client.chat("The painter?", n=2, temperature=0).choices) == 2
    assert client.chat("The painter?", temperature=0, profile="plain").report["profile"] == "plain"
    with pytest.raises(RequestError, match="temperature"):
        client.chat("The painter?", temperature=-1)
    with pytest.raises(NotFoundError, match="there is no profile"):
        client.chat("The painter?", profile="nonsense")
    with pytest.raises(TargetError):
        client.forget("nothing", [])


def test_a_deadline_is_an_option(client: Client) -> None:
    done = client.complete("the painter", temperature=1, max_tokens=4000, timeout_s=0.2)
    assert done.usage.completion_tokens < 4000


def test_closing_twice_is_closing_once(client: Client) -> None:
    client.close()
    client.close()


def test_a_model_in_memory_can_be_wrapped(home: Path) -> None:
    tokenizer = byte_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer))
    with elision.wrap(model, tokenizer, profile="plain") as client:
        first = client.complete("abc", temperature=0, max_tokens=8)
        assert client.complete("abc", temperature=0, max_tokens=8).choices == first.choices
        assert first.report["profile"] == "plain"
    assert (home / "register.db").exists()


def test_an_unknown_model_is_not_found(home: Path) -> None:
    with pytest.raises(ElisionError, match="no model is called"):
        elision.load("nonsense-model")


class Dripping:
    """An engine whose streams take a while to close, and say when they have."""

    name = "dripping"
    capabilities = Capability.NONE
    lexicon = None

    def __init__(self) -> None:
        self.words = 500
        self.begun = threading.Event()
        self.ended: list[str] = []
        self.closed = False

    async def stream(self, _plan: Plan) -> AsyncIterator[Delta]:
        self.begun.set()
        try:
            for n in range(self.words):
                yield Delta(text=f"word{n} ")
                await asyncio.sleep(0.01)
            yield Delta(finish="stop")
            yield Delta(usage=Usage(), report={"engine": self.name})
        finally:
            await asyncio.sleep(0.1)
            self.ended.append("too late" if self.closed else "in time")

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def dripping() -> Dripping:
    return Dripping()


@pytest.fixture
def slow(dripping: Dripping, tmp_path: Path) -> Iterator[Client]:
    with Client(around(dripping, Settings(home=tmp_path, encoder=None))) as client:
        yield client


@pytest.mark.parametrize("profile", ["plain", "guarded", "agentic"])
async def test_a_cancelled_stream_is_cancelled_and_leaves_nothing_halfway(
    profile: str, slow: Client, dripping: Dripping
) -> None:
    async def read() -> None:
        async for _delta in slow.astream("Which lamp?", profile=profile, memory={"lane": "auto"}):
            pass

    reading = asyncio.create_task(read())
    await asyncio.to_thread(dripping.begun.wait)
    await asyncio.sleep(0.03)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await slow.aclose()
    assert len(dripping.ended) == 1


async def test_a_stream_cancelled_while_it_closes_closes_all_the_same(
    slow: Client, dripping: Dripping
) -> None:
    async def read() -> None:
        async for _delta in slow.astream("Which lamp?", profile="plain"):
            pass

    reading = asyncio.create_task(read())
    await asyncio.to_thread(dripping.begun.wait)
    for _twice in range(2):
        reading.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await reading
    await awaited_s(lambda: dripping.ended)


def test_an_interrupted_stream_ends_with_the_interrupt(slow: Client, dripping: Dripping) -> None:
    def interrupt() -> None:
        dripping.begun.wait()
        time.sleep(0.1)  # the caller is reading by now
        _thread.interrupt_main()

    # What a shell starts in the background is deaf to interrupts.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            for _delta in slow.stream("Which lamp?", profile="plain"):
                pass
    finally:
        signal.signal(signal.SIGINT, heard)
    assert len(dripping.ended) == 1


def test_an_abandoned_stream_may_be_collected_on_the_clients_own_thread(
    slow: Client, dripping: Dripping
) -> None:
    deltas = slow.stream("Which lamp?", profile="plain")
    next(deltas)
    held = [deltas]
    held.append(held)  # type: ignore[arg-type]
    del deltas, held

    async def collect() -> None:
        gc.collect()

    asyncio.run_coroutine_threadsafe(collect(), slow._loop._loop).result(5)
    dripping.words = 1
    assert slow.chat("Which lamp?", profile="plain").text == "word0 "
    assert len(dripping.ended) == 2


def test_closing_ends_streams_that_nobody_reads_before_the_engine(
    slow: Client, dripping: Dripping
) -> None:
    deltas = slow.stream("Which lamp?", profile="plain")
    next(deltas)
    slow.close()
    assert dripping.closed
    assert dripping.ended == ["in time"]
    with pytest.raises(RuntimeError, match="the client is closed"):
        next(deltas)


def test_closing_ends_what_runs_on_the_loop_before_it_stops(slow: Client) -> None:
    ended = threading.Event()

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
            ended.set()

    left = asyncio.run_coroutine_threadsafe(linger(), slow._loop._loop)
    time.sleep(0.02)
    slow.close()
    assert ended.is_set()
    assert left.cancelled()


def test_a_blocking_call_on_the_clients_own_loop_is_refused_instead_of_waiting(
    slow: Client,
) -> None:
    async def block() -> None:
        slow.chat("Which lamp?")

    with pytest.raises(RuntimeError, match="own loop"):
        slow._loop.run(block())


@pytest.mark.parametrize(("reward", "success"), [(0.6, False), (0.8, True)])
def test_a_reward_counts_as_success_from_where_the_settings_say(
    reward: float, success: bool, dripping: Dripping, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, encoder=None, atlas={"success_from": 0.7})
    dripping.words = 1
    with Client(around(dripping, settings)) as client:
        reply = client.chat("Which lamp?", profile="agentic", memory={"lane": "auto"})
        episode = reply.report["episode"]
        with pytest.raises(RequestError, match="a reward is a number"):
            client.reward(episode, "much")  # type: ignore[arg-type]
        assert client.reward(episode, reward)
        assert client.memory.episodes.get(client.tenant, episode).success is success
