"""Other models beside the one that is served: from settings, from Python, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

import elision
from elision.cli import app
from elision.errors import ConfigError, NotFoundError, RequestError
from elision.middleware.assembly import assemble
from elision.settings import Settings
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

FAST = {"dtype": "float32", "threads": 1, "encoder": None, "profile": "plain"}
CD = {"cd": {"assistant": "small"}}
ASKED = {"temperature": 0, "max_tokens": 8}

run = CliRunner()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the folders of a model, of another with its tokens, and of one with others."""
    found = {}
    for seed, name in enumerate(("model", "amateur", "stranger")):
        tokenizer = byte_tokenizer() if name != "stranger" else word_tokenizer(["a b"] * 9)
        folder = tmp_path_factory.mktemp(name)
        tiny_model(vocab_size=len(tokenizer), seed=seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = str(folder)
    return found


@pytest.fixture(autouse=True)
def _cache(home: Path, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is measured of tiny models out of the user's cache, but keep it."""
    monkeypatch.setenv("ELISION_CACHE", str(Path(folders["model"]).parent / "cache"))


def in_memory(*, profile: str = "plain") -> Any:
    tokenizer = byte_tokenizer()
    model, small = (tiny_model(vocab_size=len(tokenizer), seed=seed) for seed in (0, 1))
    return elision.wrap(model, tokenizer, profile=profile, assistants={"small": small}, threads=1)


def test_models_of_folders_and_models_in_memory_assist_alike(folders: dict[str, str]) -> None:
    with in_memory() as client:
        want = client.complete("hello", guidance=CD, **ASKED)
        assert want.text != client.complete("hello", **ASKED).text
    beside = {"small": folders["amateur"]}
    with elision.load(folders["model"], assistants=beside, **FAST) as client:
        assert client.complete("hello", guidance=CD, **ASKED).text == want.text
        assert client.chat("hello", guidance=CD, **ASKED).report["notes"] == {"cd_guided": 8}
        with pytest.raises(RequestError, match="'small'") as caught:
            client.complete("hello", guidance={"cd": {"assistant": "large"}})
    assert caught.value.param == "elision.guidance.cd"


async def test_async_calls_are_guided_too() -> None:
    with in_memory() as client:
        asked = {"guidance": {"cfg": {"negative": "x"}}, **ASKED}
        done = await client.acomplete("hello", **asked)
        assert done.report["notes"] == {"cfg_guided": 8}
        assert done.text == client.complete("hello", **asked).text
        score = client.score("hello", "yes", guidance={"cfg": {"negative": "x"}})
        assert score.guarded != score.plain


def test_a_model_with_other_tokens_is_refused_at_start(folders: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="'small' cannot assist"):
        elision.load(folders["model"], assistants={"small": folders["stranger"]}, **FAST)
    tokenizer = byte_tokenizer()
    model, larger = (tiny_model(vocab_size=len(tokenizer) + more) for more in (0, 8))
    with pytest.raises(ConfigError, match="'small' cannot assist"):
        elision.wrap(model, tokenizer, assistants={"small": larger}, threads=1)


def test_an_assistant_that_is_not_there_is_not_found(folders: dict[str, str]) -> None:
    with pytest.raises(NotFoundError, match="no model is called"):
        elision.load(folders["model"], assistants={"small": "nonsense-model"}, **FAST)


def test_an_upstream_is_not_assisted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/v1"
    given = Settings(upstream=url, assistants={"small": "a"})
    with pytest.raises(ConfigError, match="upstream"):
        assemble(given)
    monkeypatch.setenv("ELISION_ASSISTANTS", '{"small": "a"}')
    assert Settings().assistants == {"small": "a"}
    elision.connect(url, model="m").close()  # those are of the model that is served from here
    with pytest.raises(ConfigError, match="upstream"):
        elision.connect(url, model="m", assistants={"small": "a"})


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "a/b"])
def test_an_assistants_name_is_plain(name: str) -> None:
    with pytest.raises(ValidationError):
        Settings(assistants={name: "model"})


def test_the_command_line_names_assistants_and_guidance(folders: dict[str, str]) -> None:
    env = {"ELISION_DTYPE": "float32", "ELISION_THREADS": "1"}
    own = orjson.dumps({"guidance": CD}).decode()
    asked = ["chat", "hello", "--model", folders["model"], "--profile", "plain", "--elision", own]
    asked += ["--max-tokens", "8", "--temperature", "0"]
    done = run.invoke(app, [*asked, "--assistant", f"small={folders['amateur']}"], env=env)
    assert done.exit_code == 0, done.output
    with in_memory() as client:
        assert done.stdout == f"{client.chat('hello', guidance=CD, **ASKED).text}\n"


@pytest.mark.parametrize("given", [["small"], ["small="], ["=a"], ["small=a", "small=b"]])
@pytest.mark.parametrize("command", ["serve", "chat", "trace"])
def test_an_assistant_that_cannot_be_read_is_refused(command: str, given: list[str]) -> None:
    words = [word for each in given for word in ("--assistant", each)]
    done = run.invoke(app, [command, *(["hello"] if command != "serve" else []), *words])
    assert isinstance(done.exception, ConfigError)
    assert "NAME=MODEL" in str(done.exception)
