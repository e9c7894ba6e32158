"""A process of ours that ends with us, and the log of what it says."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Final

from elision.errors import ConfigError
from elision.middleware.engines.fleet.listening import listens

N_TAIL: Final = 20
"""Lines of the log that an error shows."""
N_OLD: Final = 3
"""Logs of earlier starts that are kept."""
LOG_BYTES: Final = 20_000_000
"""Longest log; then the next is begun."""

_KEPT: Final = 400
_CLEARED_S: Final = 8.0
"""How long the keeper may take to clear away what the command leaves behind, beyond its grace."""

# vLLM tells the parameters of its requests when its engine breaks. Orders stand in them, and in
# orders what must not be said.
_TELLING: Final = re.compile(r"(sampling_params=|SamplingParams\(|scheduler output|extra_args=).*")

_KEEPER: Final = Path(__file__).with_name("keeper.py")


class _PrivateFiles(RotatingFileHandler):
    """Files that their user alone can read, those that are begun later too."""

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        Path(self.baseFilename).chmod(0o600)  # it may have been there
        return os.fdopen(fd, "a", encoding="utf-8", errors="replace")


class Log:
    """What one process says, in a file that its user alone can read. Begun anew at each start."""

    def __init__(self, file: Path) -> None:
        """Open the file; older ones are kept beside it as ``.1`` to ``.3``.

        Raises:
            ConfigError: If it cannot be written.
        """
        self.file = file
        self._tail: deque[str] = deque(maxlen=N_TAIL)
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file.parent.chmod(0o700)
            self._handler = _PrivateFiles(file, maxBytes=LOG_BYTES, backupCount=N_OLD)
            if file.stat().st_size:
                self._handler.doRollover()
        except OSError as exc:
            raise ConfigError(f"the log {str(file)!r} cannot be written: {exc.strerror}") from exc

    def write(self, line: str) -> None:
        """Keep a line, without the parameters of requests."""
        line = _TELLING.sub("(parameters of requests, left out)", line)
        self._tail.append(line[:_KEPT])
        self._handler.emit(logging.makeLogRecord({"msg": line}))

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self._tail)

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class Child:
    """One run of a command, and its keeper. Start it on a thread that lives until it has ended.

    Attributes:
        pid: Of the keeper, which is the process group too; see `keeper`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Log,
        grace_s: float,
        heard: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Start it, away from the terminal: a Ctrl-C there is for us, and we end it in good order.

        Args:
            argv: The command.
            env: All of its environment.
            log: Where its lines go.
            grace_s: How long it may take after SIGTERM until it is killed.
            heard: Told each of them, on a thread of its own.
        """
        kept = (sys.executable, "-I", str(_KEEPER), str(os.getpid()), str(grace_s), *argv)
        self._grace_s = grace_s
        self._process = subprocess.Popen(  # noqa: S603 - an absolute path, chosen by the operator
            kept,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self._status: int | None = None
        work = (self._process.stdout, log, heard)
        self._reader = threading.Thread(target=_read, args=work, daemon=True, name="elision-log")
        self._reader.start()

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def listens(self, port: int) -> bool:
        """Return whether it, or a child of its own, is who listens at *port*."""
        return listens(self.pid, port)

    def ask_to_end(self) -> None:
        """Send SIGTERM, unless it has ended."""
        self._process.terminate()

    def end(self) -> int:
        """End it and its own children; return its status, negative for a signal. Idempotent."""
        if self._status is None:
            self.ask_to_end()
            self._status = self._gone()
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._reader.join(_CLEARED_S)
        return self._status

    def _gone(self) -> int:
        try:
            return self._process.wait(self._grace_s + _CLEARED_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            return self._process.wait()


def _read(stream: IO[bytes], log: Log, heard: Callable[[str], None]) -> None:
    with stream:
        for raw in stream:
            line = raw.decode(errors="replace").rstrip()
            log.write(line)
            heard(line)
