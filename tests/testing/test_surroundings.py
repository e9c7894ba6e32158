"""The promises of `tests/conftest.py`."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import settings

from elision.settings import Settings


def test_no_test_reaches_beyond_loopback() -> None:
    with (
        socket.socket() as sock,
        pytest.raises(RuntimeError, match=r"'192\.0\.2\.1'; tests talk to loopback only"),
    ):
        sock.connect(("192.0.2.1", 80))


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()[:2]).close()


def test_home_is_empty_and_the_only_setting(home: Path) -> None:
    names = {name for name in os.environ if name.startswith("ELISION_")}

    assert names <= {"ELISION_HOME", "ELISION_CACHE"}
    assert Settings().home == home
    assert not any(home.iterdir())


def test_torch_computes_on_one_thread() -> None:
    torch = pytest.importorskip("torch")

    assert torch.get_num_threads() == 1


def test_hypothesis_is_repeatable() -> None:
    assert settings.default is not None
    assert settings.default.derandomize
    assert settings.default.deadline is None
