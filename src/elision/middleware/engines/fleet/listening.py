"""Who listens at a port of this machine: a process of ours, or somebody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"
"""The state of a socket that waits for connections, in Linux's table of them."""


def listens(group: int, port: int) -> bool:
    """Return whether a process of *group* listens at *port*.

    Args:
        group: A process group, of this user.
        port: Of this machine, at whatever address.

    Returns:
        True where the system does not tell: on other systems than Linux.
    """
    if sys.platform != "linux":
        return True
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    return any(not sockets.isdisjoint(_open_files(one)) for one in _members(group))


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError), (_PROC / "net" / table).open() as rows:
            for row in rows:
                fields = row.split()
                if fields[3] == _LISTENS and fields[1].endswith(f":{port:04X}"):
                    yield fields[9]


def _members(group: int) -> Iterator[Path]:
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it ended meanwhile
                if os.getpgid(int(folder.name)) == group:
                    yield folder


def _open_files(process: Path) -> set[str]:
    found = set()
    with suppress(OSError):
        for one in (process / "fd").iterdir():
            with suppress(OSError):
                found.add(str(one.readlink()))
    return found
