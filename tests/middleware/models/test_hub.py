"""Models from a hub, on loopback: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors as hub_errors

from elision.errors import NotFoundError, PullError
from elision.middleware.models import hub
from elision.middleware.models.pull import pull, pulled

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "org/tiny"


@dataclass
class Repository:
    """What the hub on loopback holds and how it misbehaves.

    Attributes:
        files: Content by path; those over 1 kB are kept in LFS.
        cut_at: Bytes of each answer after which the connection breaks, one per download of a file
            in LFS; once used up, answers are whole.
        lies: Files that are served other than stated, same size.
        refuses: Status and ``X-Error-Code`` that every question is answered with.
        ranges: The ``Range`` headers that came.
        asked: The paths that were asked for.
    """

    files: dict[str, bytes]
    cut_at: list[int] = field(default_factory=list)
    lies: set[str] = field(default_factory=set)
    refuses: tuple[int, str] | None = None
    ranges: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        return {
            "id": MODEL,
            "modelId": MODEL,
            "sha": COMMIT,
            "private": False,
            "tags": ["license:cc0-1.0", "region:us"],
            "downloads": 0,
            "likes": 0,
            "siblings": [self._described(name, data) for name, data in self.files.items()],
        }

    def _described(self, name: str, data: bytes) -> dict[str, Any]:
        said: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": _git(data)}
        if _large(data):
            sha = hashlib.sha256(data).hexdigest()
            said["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 134}
        return said


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _large(data: bytes) -> bool:
    return len(data) > 1000


class _Serve(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def held(self) -> Repository:
        return self.server.held  # type: ignore[attr-defined,no-any-return]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.held.asked.append(path)
        found = re.fullmatch(rf"/{MODEL}/resolve/{COMMIT}/(.+)", path)
        if self.held.refuses:
            status, code = self.held.refuses
            self._send(status, b"", {"X-Error-Code": code}, body=body)
        elif path == f"/api/models/{MODEL}":
            self._send(200, json.dumps(self.held.described()).encode(), {}, body=body)
        elif found and found[1] in self.held.files:
            self._file(found[1], body=body)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body=body)

    def _file(self, name: str, *, body: bool) -> None:
        data = self.held.files[name]
        sha = hashlib.sha256(data).hexdigest() if _large(data) else _git(data)
        headers = {"ETag": f'"{sha}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if name in self.held.lies:
            data = bytes(len(data))
        asked = self.headers.get("Range")
        if body and asked:
            self.held.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], headers, body=True, cuttable=_large(data))
        else:
            self._send(200, data, headers, body=body, cuttable=_large(data))

    def _send(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str],
        *,
        body: bool,
        cuttable: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if cuttable and self.held.cut_at:
            self.wfile.write(data[: self.held.cut_at.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    held = Repository(
        {
            "README.md": b"read me",
            "config.json": b'{"model_type": "llama", "auto_map": {"AutoModel": "code.Evil"}}',
            "code.py": b"raise SystemExit",
            "pytorch_model.bin": b"pickle" * 1000,
            "consolidated.safetensors": b"again" * 1000,
            "onnx/model.onnx": b"onnx" * 1000,
            "onnx/model.safetensors": b"onnx" * 1000,
            "model.safetensors": bytes(range(256)) * 4000,
            "model.safetensors.index.json": b"{}",
            "tokenizer.json": b'{"vocab": "' + b"a" * 5000 + b'"}',
            "tokenizer.model": b"spm",
            "chat_template.jinja": b"{{ messages }}",
            "merges.txt": b"a b",
            "1_Pooling/config.json": b"{}",
        }
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Serve)
    server.daemon_threads = True
    server.held = held  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    # The client waits a second before it takes a broken download up again.
    monkeypatch.setattr(
        "huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None)
    )
    yield held
    server.shutdown()
    server.server_close()
    thread.join()


def _left(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file()]


# --- It works ------------------------------------------------------------------------------------


def test_weights_settings_and_tokenizer_are_taken_and_neither_pickles_nor_code(
    repository: Repository, tmp_path: Path
) -> None:
    folder = pull(MODEL, cache=tmp_path)
    assert folder == tmp_path / "models" / "org--tiny"
    refused = {"README.md", "code.py", "pytorch_model.bin", "consolidated.safetensors"}
    taken = {n: d for n, d in repository.files.items() if n not in refused and "onnx" not in n}
    got = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert got.pop("elision.json")
    assert got == taken


def test_the_manifest_pins_the_commit(repository: Repository, tmp_path: Path) -> None:
    said = json.loads((pull(MODEL, cache=tmp_path) / "elision.json").read_text())
    assert said["model"] == MODEL
    assert said["digest"] == COMMIT
    assert said["licence"] == "cc0-1.0"
    assert said["source"].endswith(f"/{MODEL}")


def test_the_second_pull_asks_nobody(repository: Repository, tmp_path: Path) -> None:
    folder = pull(MODEL, cache=tmp_path)
    n_asked = len(repository.asked)
    assert pull(MODEL, cache=tmp_path) == folder == pulled(MODEL, cache=tmp_path)
    assert len(repository.asked) == n_asked


def test_progress_hears_every_byte(
    repository: Repository, tmp_path: Path, trail: Callable[..., Any]
) -> None:
    heard = trail()
    pull(MODEL, cache=tmp_path, progress=heard)
    assert [label for label, _ in heard.stages] == [
        f"asking the hub about {MODEL}",
        f"downloading {MODEL}",
        "storing",
    ]
    assert heard.counts[1] == heard.stages[1][1]


@pytest.mark.parametrize(
    ("cuts", "resumed"),
    [
        ([300_000], [300_000]),
        ([250_000, 100_000, 10], [200_000, 300_000, 300_000]),
    ],
)
def test_a_broken_download_is_taken_up_where_it_broke(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trail: Callable[..., Any],
    cuts: list[int],
    resumed: list[int],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    del repository.files["tokenizer.json"]  # leaves one file in LFS, the one that is cut
    repository.cut_at = cuts
    heard = trail()
    folder = pull(MODEL, cache=tmp_path, progress=heard)
    assert (folder / "model.safetensors").read_bytes() == repository.files["model.safetensors"]
    assert repository.ranges == [f"bytes={start}-" for start in resumed]
    assert heard.counts[1] == heard.stages[1][1]


# --- It goes wrong -------------------------------------------------------------------------------


def test_a_download_that_breaks_for_good_leaves_nothing_and_the_next_pull_works(
    repository: Repository, tmp_path: Path
) -> None:
    repository.cut_at = [100] + [0] * 20
    with pytest.raises(PullError, match=r"could not be downloaded.*nothing was left.*pull again"):
        pull(MODEL, cache=tmp_path)
    assert _left(tmp_path) == []
    repository.cut_at = []
    assert pull(MODEL, cache=tmp_path).is_dir()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_what_the_hub_states_is_refused(
    repository: Repository, tmp_path: Path, name: str
) -> None:
    repository.lies = {name}
    with pytest.raises(PullError, match=rf"'{name}' has the digest .*pull again"):
        pull(MODEL, cache=tmp_path)
    assert _left(tmp_path) == []


def test_a_model_without_safetensors_is_refused_before_anything_is_downloaded(
    repository: Repository, tmp_path: Path
) -> None:
    del repository.files["model.safetensors"]
    with pytest.raises(PullError, match=r"no \*\.safetensors.*pickled weights are not loaded"):
        pull(MODEL, cache=tmp_path)
    assert repository.asked == [f"/api/models/{MODEL}"]


def test_a_model_without_a_tokenizer_is_refused(repository: Repository, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model"):
        del repository.files[name]
    with pytest.raises(PullError, match="lacks a tokenizer"):
        pull(MODEL, cache=tmp_path)
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "raised", "said"),
    [
        ((404, "RepoNotFound"), NotFoundError, "has no model 'org/tiny'.*HF_TOKEN"),
        ((401, "RepoNotFound"), NotFoundError, "has no model 'org/tiny'.*HF_TOKEN"),
        ((403, "GatedRepo"), PullError, "gated: accept its terms at"),
        ((503, ""), PullError, "HTTP 503.*nothing was left behind"),
    ],
)
def test_what_the_hub_refuses_is_told(
    repository: Repository,
    tmp_path: Path,
    answer: tuple[int, str],
    raised: type[Exception],
    said: str,
) -> None:
    repository.refuses = answer
    with pytest.raises(raised, match=said):
        pull(MODEL, cache=tmp_path)
    assert _left(tmp_path) == []


def test_a_hub_that_cannot_be_reached_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(PullError, match=r"could not be downloaded from http://127.0.0.1:1"):
        pull(MODEL, cache=tmp_path)
    assert _left(tmp_path) == []


def test_too_little_space_is_told_before_anything_is_downloaded(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Repository,
        "_described",
        lambda self, name, data: {"rfilename": name, "size": 1 << 60, "blobId": _git(data)},
    )
    with pytest.raises(PullError, match=r"MB free.*ELISION_CACHE"):
        pull(MODEL, cache=tmp_path)
    assert repository.asked == [f"/api/models/{MODEL}"]


def test_every_error_of_the_hub_s_client_has_a_place() -> None:
    ours = (hub._http_error(), OSError, ValueError, hub_errors.XetDownloadError)
    may_come = [
        error
        for error in vars(hub_errors).values()
        if isinstance(error, type) and issubclass(error, Exception)
        if error.__module__ == hub_errors.__name__
        if re.search("Repo|Revision|Entry|Metadata|Http|Offline|Xet|Validation", error.__name__)
        if not re.search(
            "Strict|TextGen|Cached|Safetensors|DDUF|^Validation|Resolution", error.__name__
        )
    ]
    assert len(may_come) > 8
    unplaced = [error for error in may_come if not issubclass(error, ours)]
    assert [e.__name__ for e in unplaced] == ["EntryNotFoundError"]  # raised as its subclasses only
