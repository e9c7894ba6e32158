"""The byte scan: whether anything of what was erased stands in a file still."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elision.memory.erasure.windows import WIDTHS

if TYPE_CHECKING:
    from elision.memory.erasure.needles import Needles

_BLOCK: Final = 1 << 21


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scan saw.

    Attributes:
        files: Files read to their end.
        bytes: Bytes of them.
        unreadable: Files that could not be read.
        found: For each needle that was found, by its number, in how many files.
    """

    files: int = 0
    bytes: int = 0
    unreadable: int = 0
    found: dict[int, int] = field(default_factory=dict)


def scan(files: Iterable[Path], needles: Needles) -> Scanned:
    """Look for *needles* in *files*; one that vanishes meanwhile counts as never there.

    Read, not mapped: a log that another process cuts meanwhile would end this one (SIGBUS).
    """
    n_files = n_bytes = unreadable = 0
    found: dict[int, int] = {}
    for path in files:
        try:
            size, there = _scan_file(path, needles)
        except FileNotFoundError:
            continue
        except OSError:
            unreadable += 1
            continue
        n_files, n_bytes = n_files + 1, n_bytes + size
        for number in there:
            found[number] = found.get(number, 0) + 1
    return Scanned(n_files, n_bytes, unreadable, found)


def files_below(*roots: Path) -> tuple[Path, ...]:
    """Return the regular files that *roots* are or hold, each once; no link is followed.

    Folders that cannot be listed are returned as if they were files, so that a scan tells them.
    """
    found: dict[Path, None] = {}
    for root in roots:
        for path in _walk(root):
            found[path] = None
    return tuple(found)


def _walk(root: Path) -> Iterator[Path]:
    try:
        mode = root.lstat().st_mode
        if stat.S_ISREG(mode):
            yield root
        elif stat.S_ISDIR(mode):
            for entry in sorted(os.scandir(root), key=lambda e: e.name):
                yield from _walk(Path(entry.path))
    except FileNotFoundError:
        return
    except OSError:
        yield root


def _scan_file(path: Path, needles: Needles) -> tuple[int, set[int]]:
    size, found, tail = 0, set[int](), b""
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            size += len(block)
            data = tail + block
            found |= needles.found_in(data)
            tail = data[1 - WIDTHS[-1] :]
    return size, found
