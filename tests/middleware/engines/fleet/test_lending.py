"""What another interpreter is lent, and what a vLLM there is started with."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import elision
from elision.errors import ConfigError
from elision.middleware.engines.fleet import lending
from elision.middleware.engines.fleet.entropies import MOST_TOLD
from elision.middleware.engines.fleet.interpreters import Interpreter, environment
from elision.middleware.engines.fleet.launching import Launch
from elision.middleware.engines.fleet.lending import lent
from elision.middleware.engines.plugin.orders import KEY, SEAL, Order, is_sealed
from elision.settings import Settings

BARE = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
"""The interpreter that this environment was made with: it has nothing of ours."""

_SEEN = """
import json, sys
from importlib.metadata import entry_points, version
from importlib.util import find_spec
import elision, elision.errors, elision.contract
print(json.dumps({
    "version": version("elision"), "at": elision.__file__, "path": sys.path,
    "plugins": [one.value for one in entry_points(group="vllm.logits_processors")],
    "there": find_spec("elision.middleware.engines.plugin.orders") is not None,
}))
"""


def seen_by(python: Path, path: Path) -> Any:
    done = subprocess.run(
        [python, "-c", _SEEN], env=environment(path), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def stand_in(folder: Path, *, is_cpu: bool = True, breaks: bool = False) -> Path:
    """Return an interpreter that has a package called vllm, which lives as `lifecycle_server` says.

    It stands in for vLLM's life alone: no model is in it.
    """
    server = (Path(__file__).parent / "lifecycle_server.py").resolve()
    files = {
        "__init__.py": "raise RuntimeError('operator nms does not exist')" if breaks else "",
        "version.py": "__version__ = '0.32.0'",
        "platforms.py": f"class current_platform:\n    is_cpu = staticmethod(lambda: {is_cpu})",
        "entrypoints/__init__.py": "",
        "entrypoints/openai/__init__.py": "",
        "entrypoints/openai/api_server.py": f"import runpy\nrunpy.run_path({str(server)!r}, "
        "run_name='__main__')\n",
    }
    for name, text in files.items():
        file = folder / "site" / "vllm" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    python = folder / "python"
    path = f'PYTHONPATH="{folder}/site${{PYTHONPATH:+:$PYTHONPATH}}"'
    python.write_text(f'#!/bin/sh\nexec env {path} {BARE} "$@"\n')
    python.chmod(0o755)
    return python


def settings(folder: Path, **given: Any) -> Settings:
    return Settings(home=folder, cache=folder / "cache", engine="vllm", **given)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Return a folder that has a model's files by their names."""
    folder = tmp_path / "some-model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    return str(folder)


# --- lending -------------------------------------------------------------------------------------


def test_a_bare_interpreter_sees_our_package_version_and_plug_in(tmp_path: Path) -> None:
    folder = lent(tmp_path)
    seen = seen_by(BARE, folder)
    assert seen["version"] == version("elision")
    assert seen["plugins"] == ["elision.middleware.engines.vllm_plugin:ElisionProcessor"]
    assert Path(seen["at"]).resolve() == Path(elision.__file__).resolve()
    assert seen["there"]
    ours = [path for path in seen["path"] if "site-packages" in path and ".venv" in path]
    assert ours == []  # nothing but our package is lent
    assert sorted(path.name for path in folder.iterdir()) == [
        "elision", f"elision-{version('elision')}.dist-info",
    ]  # fmt: skip


def test_a_second_lending_finds_the_first_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    first = lent(tmp_path)
    when = first.stat().st_mtime_ns
    assert lent(tmp_path) == first
    assert first.stat().st_mtime_ns == when
    assert [*(tmp_path / "lent").iterdir()] == [first]


def test_of_many_at_once_one_wins_and_all_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = {*pool.map(lambda _: lent(tmp_path), range(16))}
    assert [*(tmp_path / "lent").iterdir()] == [*made]
    assert len(made) == 1
    assert (made.pop() / "elision" / "errors.py").is_file()


def test_without_a_plug_in_in_our_metadata_nothing_is_lent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "GROUP", "nobody.asks.for.this")
    with pytest.raises(ConfigError, match="name no plug-in for vLLM"):
        lent(tmp_path)
    assert not (tmp_path / "lent").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lent").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be made"):
        lent(tmp_path)


# --- the interpreter -----------------------------------------------------------------------------


def test_an_interpreter_with_a_vllm_is_lent_what_it_lacks(tmp_path: Path) -> None:
    found = Interpreter.find(stand_in(tmp_path), cache=tmp_path / "cache")
    assert (found.version, found.is_cpu) == ("0.32.0", True)
    assert found.path == lent(tmp_path / "cache")


@pytest.mark.parametrize(
    ("python", "match"),
    [
        (BARE, "vllm is not installed for .*pip install vllm"),
        (Path("/nowhere/python"), "cannot be started .*ELISION_VLLM_PYTHON"),
        (Path("/bin/true"), "is no Python"),
    ],
)
def test_what_cannot_run_vllm_is_refused_with_the_way_out(
    python: Path, match: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=match):
        Interpreter.find(python, cache=tmp_path)


def test_a_vllm_that_cannot_be_imported_is_told_with_its_own_words(tmp_path: Path) -> None:
    python = stand_in(tmp_path, breaks=True)
    with pytest.raises(ConfigError, match=r"nms does not exist.*pip uninstall torchvision"):
        Interpreter.find(python, cache=tmp_path)


def test_nothing_of_ours_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELISION_API_KEY", "sk-ours")
    monkeypatch.setenv("ELISION_MASTER_KEY", "bWFzdGVy")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    env = environment(Path("/lent"))
    assert [name for name in env if name.startswith("ELISION_")] == []
    assert env["PYTHONPATH"] == "/lent"
    assert environment(None)["PYTHONPATH"] == "/ours"


# --- what it is started with ---------------------------------------------------------------------


def flags(launch: Launch) -> dict[str, str]:
    argv = launch.argv
    return {
        name: value for name, value in zip(argv, [*argv[1:], ""], strict=True) if "--" in name[:2]
    }


def test_it_listens_here_asks_for_a_key_and_shows_what_it_drew_from(
    tmp_path: Path, model: str
) -> None:
    launch = Launch.of(settings(tmp_path, vllm_python=stand_in(tmp_path), model=model))
    given = flags(launch)
    assert launch.argv[1:3] == ("-m", "vllm.entrypoints.openai.api_server")
    assert given["--host"] == "127.0.0.1"
    assert launch.root == f"http://127.0.0.1:{given['--port']}"
    assert given["--logprobs-mode"] == "processed_logprobs"
    assert int(given["--max-logprobs"]) == MOST_TOLD[0]
    assert (given["--model"], given["--served-model-name"]) == (model, "some-model")
    assert "--enforce-eager" in given
    assert "--no-async-scheduling" not in given
    assert "--speculative-config" not in given
    env = launch.env
    assert env["ELISION_VLLM_REQUIRE"] == "1"
    assert (env["VLLM_API_KEY"], env["ELISION_VLLM_SECRET"]) == (launch.key, launch.secret)
    assert (env["VLLM_NO_USAGE_STATS"], env["HF_HUB_OFFLINE"]) == ("1", "1")
    assert env["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    assert env["VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY"].split(",")[-1] == "ELISION_VLLM_"
    assert "ELISION_VLLM_UNTESTED" not in env
    shown = repr(launch) + " ".join(launch.argv)
    assert launch.key not in shown
    assert launch.secret not in shown
    assert min(len(launch.key), len(launch.secret)) >= 32


def test_each_start_has_a_key_and_a_secret_of_its_own(tmp_path: Path, model: str) -> None:
    given = settings(tmp_path, vllm_python=stand_in(tmp_path), model=model)
    one, other = Launch.of(given), Launch.of(given)
    assert one.key != other.key
    assert one.secret != other.secret != one.key


def test_on_a_gpu_with_drafts_and_flags_of_the_operator(tmp_path: Path) -> None:
    launch = Launch.of(
        settings(
            tmp_path, vllm_python=stand_in(tmp_path, is_cpu=False), model="org/large",
            vllm_drafts="chain", dtype="bfloat16", vllm_untested=True,
            vllm_args=("--tensor-parallel-size=2", "--max-logprobs", "600"),
        )
    )  # fmt: skip
    given = flags(launch)
    assert "--enforce-eager" not in given
    assert "--no-async-scheduling" in given
    assert "--tensor-parallel-size=2" in launch.argv
    assert given["--max-logprobs"] == "600"  # of two the later counts
    assert given["--dtype"] == "bfloat16"
    assert (given["--model"], given["--served-model-name"]) == ("org/large", "org/large")
    drafts = json.loads(given["--speculative-config"])
    assert drafts["method"] == "custom_class"
    assert drafts["num_speculative_tokens"] == 4
    room, _, name = drafts["model"].rpartition(".")
    assert room.startswith("elision.middleware.engines.plugin")
    assert name == "ElisionProposer"
    assert launch.env["ELISION_VLLM_UNTESTED"] == "1"
    assert "VLLM_USE_V2_MODEL_RUNNER" not in launch.env
    assert "HF_HUB_OFFLINE" not in launch.env  # vLLM fetches it


@pytest.mark.parametrize(
    "flag",
    ["--host=0.0.0.0", "--api_key=x", "--logprobs-mode", "--speculative-config={}", "--port",
     "--enable-log-requests", "--config=elsewhere.yaml", "--model=other",
     "--speculative-config.method=ngram", "--spec=x", "--spec-method=ngram", "-sc={}", "-sc.a",
     "-s", "--enable_log_req", "--api-k=x", "--async-scheduling", "--grpc", "--"],
)  # fmt: skip
def test_flags_that_are_ours_are_refused(flag: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot stand in vllm_args") as refused:
        Launch.of(settings(tmp_path, vllm_args=(flag,)))
    assert "0.0.0.0" not in str(refused.value)


@pytest.mark.parametrize(
    "flag", ["--data-parallel-size=2", "--data_parallel_size", "--data-p=2", "-dp", "-dpl=1"]
)
def test_ranks_of_their_own_are_refused_and_said_to_be_replicas(flag: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start them as replicas"):
        Launch.of(settings(tmp_path, vllm_args=(flag, "2")))


def test_flags_that_only_look_like_ours_and_values_are_handed_on(
    tmp_path: Path, model: str
) -> None:
    args = ("--specialize-active-lora", "-dcp=2", "--enable-logging-iteration-details", "-tp", "2",
            "--max-logprobs", "-1", "--no-enable-log-requests", "--config-format=auto")  # fmt: skip
    python = stand_in(tmp_path, is_cpu=False)
    launch = Launch.of(settings(tmp_path, vllm_python=python, model=model, vllm_args=args))
    first = launch.argv.index(args[0])
    assert launch.argv[first : first + len(args)] == args


def test_the_first_request_is_sealed_and_orders_nothing(tmp_path: Path, model: str) -> None:
    launch = Launch.of(settings(tmp_path, vllm_python=stand_in(tmp_path), model=model))
    sent = json.loads(launch.first_request())["vllm_xargs"]
    assert replace(Order.loads(sent[KEY]), until=None) == Order()
    assert is_sealed(sent[KEY], sent[SEAL], launch.secret)


def test_what_is_lent_is_its_users_alone(tmp_path: Path) -> None:
    assert stat.S_IMODE(lent(tmp_path).stat().st_mode) == 0o700
