"""Bundles that pass through a server: none outlives what it was for, not even a killed process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elision.errors import ConfigError
from elision.middleware.staging import discard_staged, staged

_KILLED = """
import os, sys, time
from pathlib import Path
from elision.middleware.staging import staged
with staged(Path(sys.argv[1])) as file:
    file.write_text("Jo grows tomatoes")
    print("written", flush=True)
    time.sleep(60)
"""


def left(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


def interrupted(home: Path) -> None:
    with staged(home) as file:
        file.write_text("Jo grows tomatoes")
        assert left(home) == [file]
        assert file.parent.stat().st_mode & 0o777 == 0o700
        raise InterruptedError


def test_a_bundle_is_its_owners_alone_and_goes_when_it_is_done(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        interrupted(tmp_path)
    assert left(tmp_path) == []


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        discard_staged(tmp_path)
        assert len(left(tmp_path)) == 1
        os.kill(child.pid, signal.SIGKILL)
    assert len(left(tmp_path)) == 1
    with staged(tmp_path) as file:
        assert left(tmp_path) == []
        file.write_text("another")
        discard_staged(tmp_path)
        assert left(tmp_path) == [file]


def test_a_home_that_holds_nothing_or_can_hold_nothing_is_told_apart(tmp_path: Path) -> None:
    discard_staged(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").touch()
    discard_staged(tmp_path / "file")
    with pytest.raises(ConfigError, match="no bundle can be kept"), staged(tmp_path / "file"):
        pass
