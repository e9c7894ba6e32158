"""A vLLM of our own: started, watched, started again when it dies, ended with us.

::

    start ──> starting ──answers──> up ──dies──> down ──after a wait──> starting
                 │                   │             │
                 └─dies, or is late──┼─────────────┘   (the first time: an error, and the end)
                 stop ──────────────>└──> ended
"""

from __future__ import annotations

import atexit
import http.client
import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from elision.errors import BusyError, ElisionError, EngineError
from elision.middleware.engines.fleet.child import Child, Log
from elision.middleware.models.progress import Silence

if TYPE_CHECKING:
    from elision.middleware.engines.fleet.launching import Launch
    from elision.middleware.models.progress import Progress

_log = logging.getLogger(__name__)

State: TypeAlias = Literal["starting", "up", "down", "ended"]

FIRST_WAIT_S: Final = 1.0
"""Wait before it is started again; it doubles with each death in a row."""
LONGEST_WAIT_S: Final = 60.0
SETTLED_S: Final = 300.0
"""Who has been up this long begins with the first wait again."""
GRACE_S: Final = 20.0
"""How long it may take to end before it is killed."""

_LOOK_S = 0.25
_ANSWER_S = 5.0
_FIRST_ANSWER_S = 120.0

_STAGES: Final = (
    (re.compile(r"Starting to load model|Loading safetensors|Loading weights"), "loading weights"),
    (re.compile(r"KV cache|init engine|Warming up|Capturing"), "warming up"),
)
"""What its log says, and what that means to who waits."""


class Supervised:
    """A vLLM that this process started. Lives until `stop`, at the latest as long as the process.

    Its thread starts the process and starts it again; the kernel ends the process with the thread.

    Attributes:
        launch: How it is started, each time: at one address, with one key and secret.
        log: What it says; rotated at each start.
        n_starts: How often it was started.
    """

    def __init__(self, launch: Launch, *, log: Path, start_s: float, progress: Progress) -> None:
        self.launch = launch
        self.log = log
        self.n_starts = 0
        self._start_s = start_s
        self._port = urlsplit(launch.root).port or 80
        self._stages = _Stages(progress)
        self._state: State = "starting"
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._listeners: list[Callable[[State], None]] = []
        self._again_at = 0.0
        self._was_up = False
        self._trouble: ElisionError | None = None
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="elision-vllm")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.launch.root!r}, {self._state})"

    @classmethod
    def start(
        cls,
        launch: Launch,
        *,
        log: Path,
        start_s: float = 600.0,
        progress: Progress | None = None,
    ) -> Self:
        """Start it and wait until it answers.

        Args:
            launch: How.
            log: Where its lines go; older logs are kept beside it.
            start_s: Longest start, this one and each later one.
            progress: Told what it is doing meanwhile.

        Raises:
            EngineError: If it ends, or does not answer in time. The message holds the last lines
                of its log; it has served nobody by then.
            ConfigError: If the log cannot be written.
        """
        made = cls(launch, log=log, start_s=start_s, progress=progress or Silence())
        atexit.register(made.stop)
        try:
            made._thread.start()
            made._wait_first()
        except BaseException:
            made.stop()
            raise
        return made

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    @property
    def pid(self) -> int | None:
        """Of the process that keeps the one that runs now, if one does; see `keeper`."""
        return None if self._child is None else self._child.pid

    def check(self) -> None:
        """Return if it is up.

        Raises:
            BusyError: If it is not (HTTP 503). It says when to come back.
        """
        if self._state == "up":
            return
        busy = BusyError(
            f"the model's server is {self._state}; while it is started again, try again later",
            retry_after_s=max(FIRST_WAIT_S, self._again_at - time.monotonic()),
        )
        busy.status, busy.kind, busy.code = 503, "server_error", "engine_unavailable"
        raise busy

    def listen(self, told: Callable[[State], None]) -> None:
        """Have *told* called at each change of state, on the thread that watches."""
        self._listeners.append(told)

    def stop(self) -> None:
        """End it: ask, wait, kill. Returns when it and its children are gone. Idempotent."""
        self._ending.set()
        if (child := self._child) is not None:
            child.ask_to_end()
        if self._thread.is_alive():
            self._thread.join()
        atexit.unregister(self.stop)

    def _wait_first(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._state in ("up", "ended"))
        self._stages.end()
        if self._state != "up":
            raise self._trouble or EngineError("vLLM was ended before it was up")

    # --- on the thread that watches --------------------------------------------------------------

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        try:
            while not self._ending.is_set():
                up_s = self._try_once()
                if self._trouble is not None or self._ending.is_set():
                    break
                wait_s = FIRST_WAIT_S if up_s > SETTLED_S else wait_s
                self._pause(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        finally:
            self._become("ended")

    def _pause(self, wait_s: float) -> None:
        self._again_at = time.monotonic() + wait_s
        self._become("down")
        _log.warning("vLLM is started again in %.0f s; its log is %s", wait_s, self.log)
        self._ending.wait(wait_s)
        self._become("starting")

    def _try_once(self) -> float:
        """Let it live once; return for how many seconds it was up. A first failure is the last."""
        try:
            return self._live()
        except ElisionError as exc:
            if not self._was_up:
                self._trouble = exc
            else:
                _log.warning("vLLM did not start again; its log is %s", self.log)
        return 0.0

    def _live(self) -> float:
        with closing(Log(self.log)) as log:
            child = self._spawn(log)
            try:
                self._await_answer(child, log)
                return self._watch(child)
            finally:
                self._child = None
                status = child.end()
                _log.info("vLLM has ended with status %d", status)

    def _spawn(self, log: Log) -> Child:
        self.n_starts += 1
        try:
            child = Child(
                self.launch.argv,
                env=self.launch.env,
                log=log,
                grace_s=GRACE_S,
                heard=self._stages.hear,
            )
        except OSError as exc:
            raise EngineError(f"vLLM cannot be started: {exc.strerror}") from exc
        self._child = child
        return child

    def _await_answer(self, child: Child, log: Log) -> None:
        until = time.monotonic() + self._start_s
        while not self._ending.wait(_LOOK_S):
            if child.has_ended:
                raise self._told(f"ended with status {child.end()} while starting", log)
            if time.monotonic() > until:
                raise self._told(f"did not answer within {self._start_s:.0f} s", log)
            if child.listens(self._port) and _answers(self.launch) and not child.has_ended:
                return

    def _told(self, what: str, log: Log) -> EngineError:
        return EngineError(f"vLLM {what}; the end of its log, {str(self.log)!r}:\n{log.tail}")

    def _watch(self, child: Child) -> float:
        since = time.monotonic()
        if not self._ending.is_set():
            self._was_up = True
            self._become("up")
        while not child.has_ended and not self._ending.wait(_LOOK_S):
            pass
        return time.monotonic() - since

    def _become(self, state: State) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()
        for told in self._listeners:
            told(state)


class _Stages:
    """Tells a progress bar what a starting vLLM does, as its log shows it. Forward only."""

    def __init__(self, progress: Progress) -> None:
        self._progress: Progress | None = progress
        self._left = list(_STAGES)
        self._lock = threading.Lock()
        progress.stage("Starting vLLM")

    def hear(self, line: str) -> None:
        """Read a line of its log."""
        with self._lock:
            for n, (sign, label) in enumerate(self._left):
                if self._progress is not None and sign.search(line):
                    del self._left[: n + 1]
                    self._progress.stage(f"Starting vLLM: {label}")
                    return

    def end(self) -> None:
        """Tell nothing any more."""
        with self._lock:
            self._progress = None


def _answers(launch: Launch) -> bool:
    """Say whether it is healthy; then have it answer once, which takes seconds the first time."""
    if _status(launch, "GET", "/health", None, _ANSWER_S) != 200:
        return False
    first = launch.first_request()
    # A refusal is an answer too: what is wrong there, the engine's proof finds out and tells.
    return _status(launch, "POST", "/v1/completions", first, _FIRST_ANSWER_S) is not None


def _status(
    launch: Launch, method: str, path: str, body: bytes | None, timeout_s: float
) -> int | None:
    headers = {"Authorization": f"Bearer {launch.key}", "Content-Type": "application/json"}
    at = urlsplit(launch.root)
    with closing(http.client.HTTPConnection(at.netloc, timeout=timeout_s)) as connection:
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return None
    return answer.status
