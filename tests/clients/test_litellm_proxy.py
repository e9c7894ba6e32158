"""LiteLLM's proxy, run for real: its guardrail is our server, its model a scripted one.

What the model says is what the caller's last message holds: a JSON list of pieces, or of deltas.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from elision.guards.phrases.normal import N
from elision.testing.upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = "harbour"
MASTER = f"sk-{secrets.token_hex(32)}"
STREET, PILOT, KEY = "Marlowe Street", "Wanda Ilke Sorm", "key-of-litellm"
CLEAN = "It is blue, they say, and so are the lanterns of the harbour. Ünï 🙂!"
MODES: Mapping[str, dict[str, Any]] = {
    "diff1": {"streaming_transform_mode": "incremental_diff", "streaming_sampling_rate": 1},
    "diff5": {"streaming_transform_mode": "incremental_diff"},
    "block1": {"streaming_sampling_rate": 1},
    "default": {},
    "asking": {"mode": "pre_call"},
    "away": {"streaming_transform_mode": "incremental_diff"},
    "away-block": {"streaming_sampling_rate": 1},
    "away-open": {"unreachable_fallback": "fail_open"},
    "keyless": {
        "streaming_transform_mode": "incremental_diff", "unreachable_fallback": "fail_open",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """What a caller of LiteLLM got.

    Attributes:
        status: HTTP status.
        text: The content, its deltas joined.
        page: Everything that arrived.
    """

    status: int
    text: str
    page: str

    @property
    def leaks(self) -> bool:
        """Whether a phrase stands in what arrived, or in the pieces of its text joined."""
        return any(
            N(word) in N(said) for word in (STREET, PILOT) for said in (self.text, self.page)
        )


@dataclass(frozen=True)
class Proxy:
    """A running LiteLLM.

    Attributes:
        port: On 127.0.0.1.
        upstream: The model behind it.
    """

    port: int
    upstream: ScriptedUpstream

    def ask(
        self, guardrail: str | None, pieces: list[Any], *, stream: bool = False, **more: Any
    ) -> Reply:
        """Have the model say *pieces*, and return what comes out."""
        body = {
            "model": MODEL, "stream": stream, "guardrails": [guardrail] if guardrail else [],
            "messages": [{"role": "user", "content": json.dumps(pieces)}],
        }  # fmt: skip
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as line:
            headers = {"content-type": "application/json", "authorization": f"Bearer {MASTER}"}
            line.request("POST", "/v1/chat/completions", json.dumps(body | more), headers)
            answer = line.getresponse()
            page = answer.read().decode()
        return Reply(answer.status, _streamed(page) if stream else _whole(page), page)


def _whole(page: str) -> str:
    choices = json.loads(page).get("choices") or [{"message": {}}]
    return "".join(choice["message"].get("content") or "" for choice in choices)


def _streamed(page: str) -> str:
    events = [line[6:] for line in page.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event).get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _said(body: Mapping[str, Any]) -> list[Any]:
    said = json.loads(body["messages"][-1]["content"])
    assert isinstance(said, list)
    return said


@pytest.fixture(scope="module")
def proxy(
    programs: Path, elision: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    home = tmp_path_factory.mktemp("litellm")
    keys = [{"name": "litellm", "key": KEY, "roles": ["service"]}]
    phrases = {STREET: "redact", PILOT: "restrict"}
    with ScriptedUpstream(_said) as upstream, elision(phrases, keys=keys) as url:
        (home / "config.yaml").write_text(json.dumps(_config(upstream.url, url)))
        port = _free_port()
        with (home / "log").open("wb") as log:
            running = subprocess.Popen(
                [programs / "litellm", "--config", "config.yaml", "--host", "127.0.0.1",
                 "--port", str(port), "--telemetry", "False"],
                cwd=home, env=_environment(home), stdout=log, stderr=log,
            )  # fmt: skip
            try:
                _wait_for(running, port, home / "log")
                yield Proxy(port, upstream)
            finally:
                running.terminate()
                running.wait(30)


def _config(model_url: str, guard_url: str) -> dict[str, Any]:
    """Return LiteLLM's configuration, the documented guardrail included; JSON is YAML."""
    page = (Path(__file__).parents[2] / "docs" / "litellm.md").read_text(encoding="utf-8")
    guardrail = yaml.safe_load(page.split("```yaml")[1].split("```")[0])["guardrails"][0]
    documented = guardrail["litellm_params"]
    model = {"model": "openai/scripted", "api_base": model_url, "api_key": "none"}
    documented["api_base"] = guard_url
    documented["default_on"] = False
    return {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"disable_cooldowns": True},
        "guardrails": [
            {"guardrail_name": name, "litellm_params": _guardrail(name, guard_url)}
            for name in MODES
        ]
        + [guardrail],
    }


def _guardrail(name: str, url: str) -> dict[str, Any]:
    headers = {} if name == "keyless" else {"api-key": KEY}
    if name.startswith("diff"):
        headers["x-elision-streaming-transform-mode"] = "incremental_diff"
    if name == "asking":
        headers["x-elision-check-requests"] = "redact"
    where = f"http://127.0.0.1:{_free_port()}" if name.startswith("away") else url
    fixed = {"guardrail": "generic_guardrail_api", "mode": "post_call", "api_base": where}
    return fixed | {"headers": headers} | MODES[name]


def _environment(home: Path) -> dict[str, str]:
    """Return an environment in which LiteLLM asks nobody else for anything."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {
        "HOME": str(home), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False",
        "LITELLM_MASTER_KEY": MASTER, "NO_DOCS": "True", "LITELLM_LOG": "ERROR",
        "ELISION_SERVICE_KEY": KEY,
    }  # fmt: skip


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def _wait_for(running: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        assert running.poll() is None, log.read_text()[-4000:]
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as line:
                line.request("GET", "/health/liveliness")
                if line.getresponse().status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-4000:])


# --- what is clean --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["diff1", "diff5", "block1", "asking"])
def test_clean_text_arrives_whole(proxy: Proxy, mode: str, stream: bool) -> None:
    reply = proxy.ask(mode, [CLEAN[at : at + 3] for at in range(0, len(CLEAN), 3)], stream=stream)
    assert (reply.status, reply.text) == (200, CLEAN)


def test_without_our_guard_the_phrase_arrives(proxy: Proxy) -> None:
    assert proxy.ask(None, [f"It is {STREET}."]).leaks
    assert proxy.ask(None, [f"It is {STREET}."], stream=True).leaks


# --- what is not ----------------------------------------------------------------------------------


def _splits(text: str) -> list[list[str]]:
    """Return *text* cut in two at every place, letter by letter, and by threes."""
    halves = [[text[:at], text[at:]] for at in range(1, len(text))]
    return [*halves, [*text], [text[at : at + 3] for at in range(0, len(text), 3)]]


@pytest.mark.parametrize("mode", ["diff1", "diff5", "elision"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_phrase_is_redacted_wherever_it_is_split(proxy: Proxy, mode: str, stream: bool) -> None:
    for pieces in _splits(STREET):
        reply = proxy.ask(mode, ["It is ", *pieces, ", they say."], stream=stream)
        assert (reply.status, reply.text) == (200, "It is [redacted], they say.")
        assert not reply.leaks


def test_a_phrase_at_the_end_is_redacted_too(proxy: Proxy) -> None:
    for stream in (False, True):
        reply = proxy.ask("diff1", ["It is ", "Marlowe", " Street"], stream=stream)
        assert (reply.text, reply.leaks) == ("It is [redacted]", False)


@pytest.mark.parametrize("mode", ["diff1", "diff5", "block1"])
def test_a_target_that_restricts_ends_the_reply(proxy: Proxy, mode: str) -> None:
    whole = proxy.ask(mode, [f"Ask {PILOT}, she knows."])
    assert (whole.status >= 400, whole.text, whole.leaks) == (True, "", False)
    for pieces in _splits(PILOT):
        reply = proxy.ask(mode, ["Ask ", *pieces, ", she knows."], stream=True)
        assert not reply.leaks
        assert "she knows" not in reply.text
        assert "error" in reply.page


def test_a_client_that_only_blocks_blocks_what_would_be_redacted(proxy: Proxy) -> None:
    whole = proxy.ask("block1", [f"It is {STREET}, they say."])
    assert (whole.status >= 400, whole.leaks) == (True, False)
    for pieces in _splits(STREET):
        reply = proxy.ask("block1", ["It is ", *pieces, ", they say."], stream=True)
        assert not reply.leaks
        assert "they say" not in reply.text


def test_by_default_it_samples_too_seldom_and_lets_a_phrase_pass(proxy: Proxy) -> None:
    pieces = ["It is ", "Marlowe", " Street", "."]
    assert proxy.ask("default", pieces, stream=True).leaks
    assert not proxy.ask("default", pieces).leaks


def test_every_choice_of_several_is_guarded(proxy: Proxy) -> None:
    for stream in (False, True):
        reply = proxy.ask("diff1", ["It is ", "Marlowe", " Street", "!"], stream=stream, n=3)
        assert not reply.leaks
        assert reply.page.count("[redacted]") == 3


def _call(arguments: str) -> dict[str, Any]:
    function = {"name": "drive", "arguments": arguments}
    return {"index": 0, "id": "call_1", "type": "function", "function": function}


def test_a_tool_call_with_a_phrase_does_not_arrive(proxy: Proxy) -> None:
    said = [{"tool_calls": [_call(json.dumps({"to": STREET}))]}]
    for mode in ("diff1", "block1"):
        reply = proxy.ask(mode, said)
        assert (reply.status >= 400, reply.leaks) == (True, False)


def test_a_streamed_tool_call_is_shown_to_us_too_late_as_the_page_says(proxy: Proxy) -> None:
    said = [{"tool_calls": [_call(json.dumps({"to": STREET}))]}]
    reply = proxy.ask("diff1", said, stream=True)
    assert reply.leaks
    assert "error" in reply.page


# --- what callers write, and what fails -----------------------------------------------------------


def test_the_model_is_not_shown_what_is_redacted_of_a_prompt(proxy: Proxy) -> None:
    proxy.upstream.seen.clear()
    reply = proxy.ask("asking", ["You asked for ", STREET])

    asked = json.dumps(proxy.upstream.bodies[-1])
    assert N(STREET) not in N(asked)
    assert reply.text == "You asked for [redacted]"


@pytest.mark.parametrize("mode", ["away", "away-block", "keyless"])
@pytest.mark.parametrize("stream", [False, True])
def test_without_an_answer_of_ours_nothing_arrives(proxy: Proxy, mode: str, stream: bool) -> None:
    reply = proxy.ask(mode, ["It is ", STREET, ", they say."], stream=stream)
    assert not reply.leaks
    assert "error" in reply.page


def test_an_operator_may_have_it_fail_open_when_we_are_away_and_then_it_does(proxy: Proxy) -> None:
    assert proxy.ask("away-open", [f"It is {STREET}."]).leaks
