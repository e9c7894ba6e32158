"""A process that serves the application: where it listens, what it says, how it ends."""

from __future__ import annotations

import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import uvicorn

from elision.errors import ConfigError
from elision.middleware.gateway.app import create_app
from elision.middleware.gateway.auth import is_loopback
from elision.middleware.gateway.logs import FORMATTERS, LogFormat

if TYPE_CHECKING:
    from elision.middleware.pipeline import Pipeline
    from elision.settings import Settings

GRACE_S = 10
"""How long streams may run on after a signal to stop."""

IDLE_S = 30
"""How long an idle connection is kept; longer than client pools do, so they never meet a close."""

MAX_FILES = 65_536
"""Descriptors that the process asks for, if the system allows it; a stream takes two."""

GARBAGE = 10_000
"""New containers after which cycles are looked for; Python's default is 700, ten chunks' worth."""

_LEVELS = {"uvicorn": logging.WARNING, "elision": logging.INFO}
"""Whose lines are told, and from which level on."""


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment, and leaves it open."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self.setFormatter(FORMATTERS[log_format]())

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class Listener(uvicorn.Server):
    """A server on a port that is already its own. Lives until it is told to stop.

    Attributes:
        url: Where it answers, with the port that was chosen if 0 was asked for.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        *,
        announce: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Take the port.

        Args:
            pipeline: What answers; closed at the end.
            settings: Where to listen, and for whom.
            announce: Told where it listens, once it does.

        Raises:
            ConfigError: If the address is open to others and no key is set, or is not to be had.
        """
        check_exposure(settings)
        config = uvicorn.Config(
            create_app(pipeline, settings),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        # Their lines carry paths and headers, whoever has set them up; the boundary writes its own.
        for name in ("uvicorn.access", "uvicorn.asgi"):
            logging.getLogger(name).disabled = True
        super().__init__(config)
        self._announce = announce
        self._socket = _bind(settings.host, settings.port)
        self.url = _url(self._socket)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop; call it once."""
        try:
            super().run(sockets=sockets or [self._socket])
        finally:
            self._socket.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, then say so."""
        await super().startup(sockets=sockets)
        self._announce(self.url)


def serve(
    pipeline: Pipeline, settings: Settings, *, announce: Callable[[str], None] = print
) -> None:
    """Serve *pipeline* until SIGINT or SIGTERM, then let streams end and close it.

    To be called from the main thread, the only one that receives signals.

    Args:
        pipeline: What answers.
        settings: Where to listen, and for whom.
        announce: Told the address and a command to try it.

    Raises:
        ConfigError: As in `Listener`.
    """
    log_to_stderr(settings.log_format)
    settle()
    model = next(iter(pipeline.models()), settings.model)

    def greet(url: str) -> None:
        announce(greeting(url, model, keyed=is_keyed(settings)))

    with _signals_ignored_afterwards():
        Listener(pipeline, settings, announce=greet).run()


def settle() -> None:
    """Fit the process to many streams: enough descriptors, and fewer looks for garbage."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # What start-up made lives as long as the process: a full collection need not walk through it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)


def log_to_stderr(log_format: LogFormat = "text") -> None:
    """Send the log lines of Elision and uvicorn to standard error; other loggers stay as they are.

    By hand, because `logging.config` closes every handler of the process, whoever made it.
    """
    handler = _Stderr(log_format)
    for name, level in _LEVELS.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def greeting(url: str, model: str, *, keyed: bool) -> str:
    """Return what is said once the server listens: the address, and one command to try it."""
    key = "  -H 'authorization: Bearer '\"$ELISION_API_KEY\" \\\n" if keyed else ""
    return (
        f"Elision listens on {url}\n\n"
        f"curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n{key}"
        f'  -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'\n'
    )


def check_exposure(settings: Settings) -> None:
    """Raise `ConfigError` if others could reach the server and no key is asked for."""
    if is_loopback(settings.host) or is_keyed(settings) or settings.allow_open:
        return
    raise ConfigError(
        f"{settings.host!r} can be reached from other machines and no key is set; set "
        "ELISION_API_KEY, listen on 127.0.0.1, or set ELISION_ALLOW_OPEN=true"
    )


def is_keyed(settings: Settings) -> bool:
    """Return whether callers must send a key."""
    return settings.api_key is not None or bool(settings.keys)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({exc.strerror}); "
            "choose another port, or 0 for any that is free"
        ) from exc


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _signals_ignored_afterwards() -> Iterator[None]:
    """Keep uvicorn, which raises the signal again after its shutdown, from killing the process."""
    stops = (signal.SIGINT, signal.SIGTERM)
    before = {stop: signal.signal(stop, lambda *_: None) for stop in stops}
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
