"""Where a bundle lies while it passes through: named by nobody else, and gone with its process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from elision.errors import ConfigError

_FOLDER: Final = "transfer"


@contextmanager
def staged(home: Path) -> Iterator[Path]:
    """Lend a path below *home* for one bundle, readable by its owner only; it goes afterwards.

    What a killed process left there goes first.

    Raises:
        ConfigError: If nothing can be written there.
    """
    discard_staged(home)
    root = home / _FOLDER
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = _locked(root, fcntl.LOCK_SH)
    except OSError as exc:
        raise ConfigError(f"no bundle can be kept in home ({type(exc).__name__})") from exc
    try:
        with tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True) as folder:
            yield Path(folder) / "memory.jsonl"
    finally:
        os.close(handle)


def discard_staged(home: Path) -> None:
    """Remove the bundles that killed processes left; none while any process still uses one.

    What cannot be removed stays, and the scan of an erasure tells of it.
    """
    root = home / _FOLDER
    with suppress(OSError):
        handle = _locked(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            for left in root.iterdir():
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(handle)


def _locked(folder: Path, how: int) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, how)
    except BaseException:
        os.close(handle)
        raise
    return handle
