"""Stands between us and a vLLM of ours, so that all of that ends when we do: run as a program.

vLLM is several processes, and one that is told to end while it starts leaves the others behind. So
its parent is this one: the kernel tells it when we are gone, however we went, and hands it whatever
is orphaned below it. It imports nothing but the standard library, and nothing of ours.

    python -I keeper.py PARENT GRACE_S COMMAND...

It ends as the command does: with its status, or by the same signal.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

_END_WITH_PARENT, _ADOPT_ORPHANS = 1, 36
"""Of Linux's ``prctl``."""
_FAMILY_S = 5.0
"""How long what the command leaves behind may take to end."""
_HEARD = {signal.SIGTERM, signal.SIGCHLD}


def _tie(parent: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    libc = ctypes.CDLL(None)
    libc.prctl(_ADOPT_ORPHANS, 1)
    libc.prctl(_END_WITH_PARENT, signal.SIGTERM)  # with the thread that started it, to be exact
    if os.getppid() != parent:
        sys.exit(1)  # it was too late for that


def _keep(command: int, grace_s: float) -> int:
    """Wait until the command has ended, asked to or not; return its status, as of ``waitpid``."""
    late = None
    while True:
        heard = signal.sigtimedwait(_HEARD, 0.2)
        if heard is not None and heard.si_signo == signal.SIGTERM and late is None:
            late = time.monotonic() + grace_s
            os.kill(command, signal.SIGTERM)
        if late is not None and time.monotonic() > late:
            os.kill(command, signal.SIGKILL)
        for pid, status in _ended():
            if pid == command:
                return status


def _ended() -> list[tuple[int, int]]:
    """Return children that have ended since, with their status; adopted ones among them."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, status))


def _clear() -> None:
    """End what the command left behind: ask, wait, kill."""
    late = time.monotonic() + _FAMILY_S
    asked: set[int] = set()
    while left := _children():
        sign = signal.SIGTERM if time.monotonic() < late else signal.SIGKILL
        for pid in left:
            if sign == signal.SIGKILL or pid not in asked:
                os.kill(pid, sign)  # ours, so nobody else can have its number
        asked.update(left)
        signal.sigtimedwait(_HEARD, 0.2)
        _ended()


def _children() -> list[int]:
    try:
        told = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []  # not on Linux: who started us ends the process group
    return [int(pid) for pid in told.split()]


def _main(parent: int, grace_s: float, argv: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    _tie(parent)
    try:
        command = os.posix_spawn(argv[0], argv, os.environ, setsigmask=())
    except OSError as exc:
        sys.exit(f"{argv[0]}: {exc.strerror}")
    status = _keep(command, grace_s)
    _clear()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
