"""Other people's clients, run for real: their programs live in an environment of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.assembly import open_register
from elision.middleware.gateway import Listener
from elision.middleware.pipeline import Pipeline
from elision.settings import Settings
from elision.testing.encoders import BagEncoder
from elision.testing.text_engine import TextEngine

PROGRAMS = Path(__file__).parents[2] / ".venv-clients" / "bin"

Serving: TypeAlias = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def programs() -> Path:
    """Return the folder of the clients' programs; skip if they are not installed."""
    if (PROGRAMS / "litellm").exists():
        return PROGRAMS
    missing = "the clients are not installed; run: make .venv-clients/.made"
    if os.environ.get("ELISION_REQUIRE_CLIENTS"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def elision(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """Return a way to run a server: ``with elision({"phrase": "redact"}) as url``."""

    @contextmanager
    def run(phrases: dict[str, Action], **settings: Any) -> Iterator[str]:
        home = tmp_path_factory.mktemp("home")
        chosen = Settings(**{"host": "127.0.0.1", "port": 0, "home": home} | settings)
        register = open_register(chosen)
        for text, action in phrases.items():
            target = ForgetTarget(title="t", phrases=(Phrase(text=text),), action=action)
            register.add(target)
        pipeline = Pipeline(
            engines={"text": TextEngine("Hello.")}, register=register, encoder=BagEncoder()
        )
        up = threading.Event()
        listener = Listener(pipeline, chosen, announce=lambda _url: up.set())
        thread = threading.Thread(target=listener.run)
        thread.start()
        assert up.wait(20)
        try:
            yield listener.url
        finally:
            listener.should_exit = True
            thread.join(20)
            assert not thread.is_alive()

    return run
