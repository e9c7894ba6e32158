"""The profile ``agentic``: episodes behind a chat, through the real pipeline and a real memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from elision.agents.atlas.lanes import Lane
from elision.contract import Capability, Delta, Message, Plan, Request, Usage, text_of
from elision.errors import RequestError
from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import EntryDraft
from elision.memory.learning.states import Action
from elision.memory.records import Scope, Trust
from elision.middleware.assembly import around
from elision.middleware.client import Client
from elision.settings import Settings

SECRET = "Zyxwv Qponm"


class Words(BaseModel):
    """Any arguments."""

    model_config = ConfigDict(extra="allow")


QUESTION = "Which lamp is lit first?"
Reply = Callable[[tuple[Message, ...]], str]


class Answering:
    """An engine that answers by a function of the messages; it has no scores."""

    name = "answering"
    capabilities = Capability.NONE
    lexicon = None

    def __init__(self) -> None:
        self.reply: Reply = lambda _messages: "The red one."
        self.requests: list[Request] = []
        self.pause_s = 0.0

    @property
    def asked(self) -> list[tuple[Message, ...]]:
        return [request.messages for request in self.requests]

    async def stream(self, plan: Plan) -> AsyncIterator[Delta]:
        messages = plan.request.messages
        self.requests.append(plan.request)
        for word in self.reply(messages).split(" "):
            await asyncio.sleep(self.pause_s)
            yield Delta(text=f" {word}" if word != self.reply(messages).split(" ")[0] else word)
        yield Delta(finish="stop")
        yield Delta(usage=Usage(prompt_tokens=9, completion_tokens=3), report={"engine": self.name})

    async def aclose(self) -> None:
        pass


def teaching(valid: str, answer: str = "The red one.") -> Reply:
    """Return a model that also checks work when it is asked to, and then says *valid*."""

    def reply(messages: tuple[Message, ...]) -> str:
        checks = "check a student's work" in text_of(messages[0])
        return valid if checks else answer

    return reply


@pytest.fixture
def engine() -> Answering:
    return Answering()


@pytest.fixture
def client(engine: Answering, tmp_path: Path) -> Iterator[Client]:
    atlas = {"router": {"explore": 0.0}}
    with Client(around(engine, Settings(home=tmp_path, encoder=None, atlas=atlas))) as opened:
        yield opened


def add_entry(client: Client, imperative: str = "Look at the harbour first.") -> str:
    scope, cue = Scope("default", ("chat",)), Cue(type="keyword", pattern="lamp")
    draft = EntryDraft(imperative=imperative, cue=cue)
    playbook = client.memory.playbook
    entry = playbook.add(scope, draft, actor="operator", trust=Trust.OPERATOR)
    playbook.act("default", entry.id, Action.ADMIT, actor="operator")
    return entry.id


def asked(client: Client, **options: Any) -> Any:
    return client.chat(QUESTION, profile="agentic", **options)


def test_a_reply_tells_its_episode_and_a_reward_counts_once(client: Client) -> None:
    told = asked(client)
    assert told.text == "The red one."
    episode = told.report["episode"]
    assert client.memory.episodes.get("default", episode).reward is None  # unknown, never nought
    assert client.reward(episode, 1.0)
    assert not client.reward(episode, 0.0)
    assert client.memory.episodes.get("default", episode).reward == 1.0


@pytest.mark.parametrize("learning", ["off", "shadow", "frozen", "on"])
def test_a_prompt_without_advice_is_that_of_the_guarded_profile(
    client: Client, engine: Answering, learning: str
) -> None:
    talk = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello."}, {"role": "user", "content": QUESTION},
    ]  # fmt: skip
    for messages in (talk, talk[1:], talk[3:]):
        client.chat(messages, profile="guarded")
        client.chat(messages, profile="agentic", memory={"learning": learning, "lane": "auto"})
        assert engine.asked[-1] == engine.asked[-2]


def test_advice_stands_at_the_end_of_the_system_message(client: Client, engine: Answering) -> None:
    entry = add_entry(client)
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    told = client.chat(talk, profile="agentic", memory={"learning": "frozen", "lane": "auto"})
    system, user = engine.asked[-1]
    assert text_of(system).startswith("Be brief.\n\n")
    assert "Look at the harbour first." in text_of(system)
    assert user == talk[1]
    assert told.report["memory"]["shown"] == [entry]


def test_advice_of_another_namespace_or_tenant_is_not_shown(
    client: Client, engine: Answering
) -> None:
    add_entry(client)
    for memory in ({"namespace": ["desk"]}, {"learning": "shadow"}, {"learning": "off"}):
        asked(client, memory={"lane": "auto", **memory})
        assert engine.asked[-1] == ({"role": "user", "content": QUESTION},)


def test_an_unsupervised_reply_comes_as_it_is_written_and_a_supervised_one_whole(
    client: Client, engine: Answering
) -> None:
    engine.reply = teaching('{"valid": true}')
    pieces = {}
    for lane in ("auto", "paired"):
        deltas = client.stream(QUESTION, profile="agentic", memory={"lane": lane})
        pieces[lane] = [delta.text for delta in deltas if delta.text]
    assert pieces["auto"] == ["The", " red", " one."]
    assert pieces["paired"] == ["The red one."]


@pytest.mark.parametrize("lane", ["auto", "paired", "coach", "escalate"])
@pytest.mark.parametrize("verdict", ['{"valid": true}', '{"valid": false}', "no JSON at all"])
def test_every_lane_answers_whatever_the_teacher_says(
    client: Client, engine: Answering, lane: str, verdict: str
) -> None:
    engine.reply = teaching(verdict)
    told = asked(client, memory={"lane": lane})
    assert told.text == "The red one."
    assert told.choices[0].finish == "stop"
    assert told.report["lane"] == {"name": lane, "source": "forced", "confidence": None}
    wanted = {'{"valid": true}': "passed", '{"valid": false}': "failed"}.get(verdict, "unvalidated")
    assert told.report["status"] == ("unvalidated" if lane == "auto" else wanted)
    roles = told.report["roles"]
    assert set(roles) >= ({"student"} if lane == "auto" else {"student", "teacher"})
    n_read = sum(role["tokens_in"] for role in roles.values())
    assert told.usage.prompt_tokens == n_read


def test_what_must_be_forgotten_is_neither_said_nor_kept(client: Client, engine: Answering) -> None:
    client.forget("a title", [SECRET], action="refuse")
    engine.reply = teaching(f'{{"valid": false, "guidance": "Say {SECRET}."}}', f"It is {SECRET}.")
    for lane in ("auto", "paired", "escalate"):
        told = asked(client, memory={"lane": lane})
        assert SECRET not in told.text
        assert all(SECRET not in text_of(m) for messages in engine.asked for m in messages)
    client.chat(f"Who is {SECRET}?", profile="agentic", memory={"lane": "auto"})
    kept = client.memory.store.list(Scope("default"))
    assert kept
    assert all(SECRET not in record.text for record in kept)


def test_no_phrase_lies_across_the_replies_of_two_steps(tmp_path: Path, engine: Answering) -> None:
    plan = '{"steps": [{"id": "1", "description": "one"}, {"id": "2", "description": "two"}]}'
    first, second = SECRET.split()

    def reply(messages: tuple[Message, ...]) -> str:
        if "check a student's work" in text_of(messages[0]):
            return '{"valid": true}' if "Does the student" in text_of(messages[-1]) else plan
        asked_for = text_of(messages[-1])
        if "Do not do the task yet" in asked_for:
            return plan
        if "Do only this step" not in asked_for:
            return "Both are done."
        return second if "\ntwo\n" in asked_for else first

    engine.reply = reply
    said = set()
    for n in range(40, 160, 12):
        atlas = {"max_tokens": n, "router": {"explore": 0.0}}
        settings = Settings(home=tmp_path / str(n), encoder=None, learning="off", atlas=atlas)
        with Client(around(engine, settings)) as client:
            client.forget("a title", [SECRET])
            said.add(asked(client, memory={"lane": "escalate"}).text)
    assert said == {second, "Both are done."}  # cut short after the steps, and not at all
    assert not any(first in text and second in text for text in said)


def test_what_an_agent_has_no_form_for_is_refused_before_anything_runs(
    client: Client, engine: Answering
) -> None:
    talks: tuple[list[Message], ...] = (
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": " "}],
    )
    for talk in talks:
        with pytest.raises(RequestError, match="agentic takes chats that end"):
            client.chat(talk, profile="agentic")
    with pytest.raises(RequestError, match="one choice"):
        asked(client, n=2)
    assert not engine.asked


def test_a_reply_that_is_broken_off_is_an_episode_that_was_aborted(
    client: Client, engine: Answering
) -> None:
    engine.pause_s = 0.2  # else it is done before anybody can break it off
    deltas = client.stream(QUESTION, profile="agentic", memory={"lane": "auto"})
    next(deltas)
    deltas.close()
    scope = Scope("default", ("chat",))
    assert [one.state for one in client.memory.episodes.list(scope)] == ["aborted"]


def test_a_deadline_that_has_passed_is_told_and_is_no_empty_reply(client: Client) -> None:
    from elision.errors import BusyError

    for lane in ("auto", "paired"):
        with pytest.raises(BusyError, match="deadline passed"):
            asked(client, timeout_s=1e-9, memory={"lane": lane})


def test_a_budget_that_is_spent_is_told_by_name(engine: Answering, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, encoder=None, atlas={"max_tokens": 3})
    with Client(around(engine, settings)) as client, pytest.raises(RequestError) as caught:
        asked(client)
    assert caught.value.code == "budget_exceeded"


def test_a_request_may_ask_memory_for_less_and_never_for_more(
    engine: Answering, tmp_path: Path
) -> None:
    order = ("on", "frozen", "shadow", "off")
    for n, setting in enumerate(order):
        settings = Settings(home=tmp_path / setting, encoder=None, learning=setting)
        with Client(around(engine, settings)) as client:
            for m, wish in enumerate(order):
                told = asked(client, memory={"learning": wish, "lane": "auto"})
                assert told.report["learning"] == order[max(n, m)]


def test_the_teacher_has_its_own_limits_and_sees_what_the_question_stands_in(
    engine: Answering, tmp_path: Path
) -> None:
    teacher = {"max_tokens": 77, "temperature": 0.7}
    settings = Settings(home=tmp_path, encoder=None, atlas={"teacher": teacher})
    talk = [
        {"role": "system", "content": "Answer in German."},
        {"role": "user", "content": "Which lamp is last?"},
        {"role": "assistant", "content": "Die blaue."}, {"role": "user", "content": QUESTION},
    ]  # fmt: skip
    engine.reply = teaching('{"valid": true}')
    with Client(around(engine, settings)) as client:
        client.chat(
            talk, profile="agentic", memory={"lane": "paired"}, max_tokens=9, temperature=0.2,
            stop=["x"], frequency_penalty=1.0,
        )  # fmt: skip
    student, looking_on = engine.requests
    assert (student.max_tokens, student.sampling.temperature, student.stop) == (9, 0.2, ("x",))
    assert (looking_on.max_tokens, looking_on.sampling.temperature) == (77, 0.7)
    assert (looking_on.stop, looking_on.sampling.frequency_penalty) == ((), 0.0)
    read = " ".join(map(text_of, looking_on.messages))
    assert "Answer in German." in read
    assert "Die blaue." in read


def test_a_session_keeps_what_left_and_nothing_of_what_roles_said(
    client: Client, engine: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elision.guards.conversation.sessions import SessionStore

    kept: list[str] = []
    monkeypatch.setattr(SessionStore, "save", lambda *given: kept.append(given[-1]))
    engine.reply = teaching('{"valid": true}')
    asked(client, session="s", memory={"lane": "paired"})
    assert kept == ["The red one."]


def test_an_empty_reply_is_finished_once(client: Client, engine: Answering) -> None:
    engine.reply = lambda _messages: ""
    deltas = client.stream(QUESTION, profile="agentic", memory={"lane": "auto"})
    assert [delta.finish for delta in deltas if delta.finish] == ["stop"]


def test_the_settings_of_an_agent_are_checked_by_name(tmp_path: Path, engine: Answering) -> None:
    from elision.errors import ConfigError

    settings = Settings(home=tmp_path, encoder=None, atlas={"router": {"explor": 0.1}})
    with pytest.raises(ConfigError, match=r"atlas\.router\.explor: Extra inputs"):
        around(engine, settings)


@pytest.mark.parametrize(
    "move",
    [
        '{"answer": "It is Zyxwv\\nQponm."}',
        '{"answer": "It is \\u005ayxwv Qponm."}',
        '{"tool": "note", "args": {"words": ["Zyxwv", "Qponm"]}}',
        '{"tool": "note", "args": {"Zyxwv\\tQponm": "x"}}',
    ],
)
async def test_what_json_says_is_guarded_too(client: Client, engine: Answering, move: str) -> None:
    from elision.agents.atlas.atlas import Atlas
    from elision.agents.atlas.config import AtlasConfig
    from elision.agents.atlas.student import SpeakerStudent
    from elision.agents.atlas.tools import Tool

    noted: list[object] = []
    tool = Tool("note", "keeps words", Words, lambda words: str(noted.append(words)))
    engine.reply = lambda _messages: move
    config = AtlasConfig(learning="off", forced_lane=Lane.AUTO)
    student = SpeakerStudent(client.speaker(), [tool], most_steps=1)
    told = await Atlas(student, None, config=config).run(QUESTION)
    assert noted or "Zyxwv\nQponm" in told.output or "Zyxwv Qponm" in told.output
    client.forget("a title", [SECRET])
    noted.clear()
    told = await Atlas(student, None, config=config).run(QUESTION)
    assert not noted
    assert client.may_say(told.output)
