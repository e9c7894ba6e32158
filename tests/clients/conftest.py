"""Other people's clients, run for real: their programs live in environments of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI

from elision.contract import Engine
from elision.guards.register.register import Register
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.assembly import open_register
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.gateway import Listener
from elision.middleware.gateway.app import create_app
from elision.middleware.pipeline import Pipeline
from elision.settings import Settings
from elision.testing.encoders import BagEncoder
from elision.testing.text_engine import TextEngine
from elision.testing.upstream import ScriptedUpstream

CLIENTS = Path(__file__).parents[2] / ".venv-clients"
PROGRAMS = Path(__file__).parent / "programs"
RECORDINGS = Path(__file__).parents[1] / "data" / "clients"
STREET, PILOT = "Marlowe Street", "Wanda Ilke Sorm"
TARGETS: Mapping[str, Action] = {STREET: "redact", PILOT: "restrict"}
KEY = "key-of-a-client"


@dataclass(frozen=True)
class Heard:
    """One request as it arrived.

    Attributes:
        method: GET, POST ...
        path: With its query.
        body: Read as JSON; None if there was none.
    """

    method: str
    path: str
    body: Any


@dataclass(frozen=True)
class Running:
    """A server of ours.

    Attributes:
        url: Its address.
        heard: Every request that arrived, in order of their answers' ends.
    """

    url: str
    heard: list[Heard] = field(default_factory=list)


Serving: TypeAlias = Callable[..., AbstractContextManager[Running]]
Asking: TypeAlias = Callable[..., dict[str, Any]]


def _installed(program: Path) -> Path:
    if program.exists():
        return program
    missing = "the clients are not installed; run: make .venv-clients/.made"
    if os.environ.get("ELISION_REQUIRE_CLIENTS"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def programs() -> Path:
    """Return the folder of the programs of those that want openai 2; skip if there is none."""
    return _installed(CLIENTS / "bin" / "litellm").parent


@pytest.fixture(scope="session")
def pythons() -> Mapping[str, Path]:
    """Return the Python of each environment, by what it takes of openai; skip if one lacks."""
    found = {"openai2": CLIENTS / "bin/python", "openai3": CLIENTS / "openai3/bin/python"}
    return {name: _installed(program) for name, program in found.items()}


def registered(phrases: Mapping[str, Action], settings: Settings) -> Register:
    """Return the register of *settings*, with a target for each phrase."""
    register = open_register(settings)
    for text, action in phrases.items():
        register.add(ForgetTarget(title="t", phrases=(Phrase(text=text),), action=action))
    return register


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """Return a way to run a server: ``with running(engine, {"phrase": "redact"}) as server``."""

    @contextmanager
    def run(engine: Engine, phrases: Mapping[str, Action], **settings: Any) -> Iterator[Running]:
        home = tmp_path_factory.mktemp("home")
        chosen = Settings(**{"host": "127.0.0.1", "port": 0, "home": home} | settings)
        register = registered(phrases, chosen)
        pipeline = Pipeline(engines={engine.name: engine}, register=register, encoder=BagEncoder())
        up = threading.Event()
        listener = Listener(pipeline, chosen, announce=lambda _url: up.set())
        server = Running(listener.url)
        listener.config.app = _Recorder(listener.config.app, server.heard)
        thread = threading.Thread(target=listener.run)
        thread.start()
        assert up.wait(20)
        try:
            yield server
        finally:
            listener.should_exit = True
            thread.join(20)
            assert not thread.is_alive()

    return run


@pytest.fixture(scope="session")
def elision(running: Serving) -> Callable[..., AbstractContextManager[str]]:
    """Return a way to run a server that is asked only to guard: ``with elision({...}) as url``."""

    @contextmanager
    def run(phrases: Mapping[str, Action], **settings: Any) -> Iterator[str]:
        with running(TextEngine("Hello."), phrases, **settings) as server:
            yield server.url

    return run


@dataclass(frozen=True)
class _Recorder:
    """An application around another that keeps what it is sent."""

    app: Any
    heard: list[Heard]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""

        async def listen() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        await self.app(scope, listen, send)
        if scope["type"] == "http":
            path = scope["path"] + ("?" + scope["query_string"].decode()).rstrip("?")
            self.heard.append(Heard(scope["method"], path, json.loads(body) if body else None))


@pytest.fixture(scope="session")
def harbour(running: Serving) -> Callable[..., AbstractContextManager[Running]]:
    """Return a way to run a server before a model that knows a harbour, and calls tools.

    Of what it knows a street is redacted and a pilot restricted. In a storm it is busy once.
    """

    @contextmanager
    def run(phrases: Mapping[str, Action] | None = None) -> Iterator[Running]:
        named = TARGETS if phrases is None else phrases
        with (
            ScriptedUpstream(_said, model="harbour", fault=_fault, n_faults=1) as model,
            running(_engine(model), named, api_key=KEY) as server,
        ):
            yield server

    return run


@pytest.fixture(scope="session")
def in_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Engine | None], AbstractContextManager[FastAPI]]:
    """Return a way to have a server as an application; None stands for the harbour's engine."""

    @contextmanager
    def make(given: Engine | None) -> Iterator[FastAPI]:
        chosen = Settings(home=tmp_path_factory.mktemp("home"))
        with ScriptedUpstream(_said, model="harbour") as model:
            engine = given or _engine(model)
            engines, register = {engine.name: engine}, registered(TARGETS, chosen)
            pipeline = Pipeline(engines=engines, register=register, encoder=BagEncoder())
            yield create_app(pipeline, chosen)

    return make


def _engine(model: ScriptedUpstream) -> RemoteEngine:
    return RemoteEngine(model.url, model="harbour", retries=0)


def _fault(body: Mapping[str, Any]) -> str | None:
    return "503" if "storm" in str(body.get("messages")) else None


@pytest.fixture(scope="session")
def ask(pythons: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Asking:
    """Return a way to run a program: ``ask("openai3", "ask_smolagents.py", url=url)``."""

    def run(which: str, program: str | Path, *more: str, url: str, **env: str) -> dict[str, Any]:
        home = tmp_path_factory.mktemp("client")
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        quiet = {"ANONYMIZED_TELEMETRY": "False", "LANGSMITH_TRACING": "false", "DO_NOT_TRACK": "1"}
        ours = {"HOME": str(home), "ELISION_URL": url, "ELISION_KEY": KEY, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [pythons[which], PROGRAMS / program, *more],
            cwd=home, env=kept | quiet | ours | env, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return run


@pytest.fixture(scope="session")
def recorded() -> Callable[[str, str, list[Heard]], None]:
    """Return what holds requests that were heard against those recorded of that client.

    ``ELISION_RECORD=1`` records them instead: what a client sends, each different body once, in
    order, what it asks to be refused or guarded left out. Ids that are drawn anew are numbered.
    """

    def check(client: str, version: str, heard: list[Heard]) -> None:
        file = RECORDINGS / f"{client}.json"
        bodies = [{"path": one.path, "body": one.body} for one in heard if _is_kept(one.body)]
        lines = _settled(dict.fromkeys(json.dumps(body, ensure_ascii=False) for body in bodies))
        head = json.dumps({"client": client, "version": version})[:-1]
        page = f'{head}, "requests": [\n' + ",\n".join(lines) + "\n]}\n"
        if os.environ.get("ELISION_RECORD"):
            file.write_text(page, encoding="utf-8")
        assert json.loads(file.read_text(encoding="utf-8")) == json.loads(page)

    return check


def _is_kept(body: Any) -> bool:
    """Whether *body* is one to keep: others ask for nothing, or what they ask is to be withheld."""
    wrong = body is None or 9 in (body.get("temperature"), body.get("top_p"))
    return not wrong and "pilot?" not in str(body) and "pilot live?" not in str(body)


def _settled(lines: Iterable[str]) -> list[str]:
    """Return *lines*, each once, with ids that are drawn anew each time numbered by their kind."""
    drawn = re.compile(r"\b(resp|msg|fc|rs|call|chatcmpl)[-_][0-9a-f]{16,}")
    return [*dict.fromkeys(drawn.sub(r"\1_0", line) for line in lines)]


# --- what the model says --------------------------------------------------------------------------


def _said(body: Mapping[str, Any]) -> list[Any]:
    """Return what the model says to *body*, in pieces: a call, JSON, code, or a sentence."""
    if "messages" not in body:
        return _pieces("As is known, high water at Roscoff is at 14:20.")
    asked, last = _asked(body), body["messages"][-1]
    place = STREET if "live" in asked else PILOT if "Who" in asked else "Roscoff"
    tools = {one["function"]["name"]: one["function"] for one in body.get("tools") or ()}
    if tools and (name := _chosen(body, [*tools])):
        return _call(name, json.dumps(_instance(tools[name]["parameters"], place)))
    form = body.get("response_format") or {"type": "text"}
    if form["type"] == "json_schema":
        return _pieces(json.dumps(_instance(form["json_schema"]["schema"], place)))
    if "</code>" in (body.get("stop") or ()):
        return _pieces(f"I ask.\n<code>\nfinal_answer(tide(harbour={place!r}))\n")
    if last["role"] == "tool":
        return _pieces(f"The table says: {last['content']}")
    return _pieces(f"As is known, high water at {place} is at 14:20.")


def _asked(body: Mapping[str, Any]) -> str:
    users = [m["content"] for m in body["messages"] if m["role"] == "user"]
    texts = [part["text"] for said in users if isinstance(said, list) for part in said]
    return "\n".join([*texts, *(said for said in users if isinstance(said, str))])


def _chosen(body: Mapping[str, Any], names: list[str]) -> str | None:
    """Return the tool to call: those that answer once another has, the others once."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    last = body["messages"][-1]
    answers = [name for name in names if name.startswith("final_")]
    others = [name for name in names if name not in answers]
    if last["role"] == "tool" or "Observation:" in str(last["content"]):
        return answers[0] if answers else None
    return others[0] if others else answers[0]


def _instance(schema: Mapping[str, Any], place: str) -> Any:
    match schema.get("type"):
        case "object":
            return {key: _instance(part, place) for key, part in schema["properties"].items()}
        case "number" | "integer":
            return 7
    if "code" in schema.get("description", "").lower():
        return f"final_answer(tide(harbour={place!r}))"
    return place


def _pieces(text: str) -> list[str]:
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def _call(name: str, arguments: str) -> list[Any]:
    opening = {"index": 0, "id": "call_1", "type": "function"}
    first = opening | {"function": {"name": name, "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in _pieces(arguments)]
    ends = {"finish_reason": "tool_calls"}
    return [*({"tool_calls": [one]} for one in (first, *rest)), {"content": None} | ends]
