"""The examples for other people's agents run, in those agents' environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = "As is known, high water at Roscoff is at 14:20."
LOOKED_UP = "The table says: High water at Roscoff is at 14:20."


def run(name: str, pythons: Mapping[str, Path], home: Path, url: str) -> list[str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    ours = {"ELISION_URL": url, "ELISION_MODEL": "harbour", "ELISION_KEY": "key-of-a-client"}
    done = subprocess.run(
        [pythons["openai3"], EXAMPLES / name],
        cwd=home, env=kept | ours | {"HOME": str(home)}, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


def test_the_example_of_openai_agents_runs(harbour: Any, pythons: Any, tmp_path: Path) -> None:
    with harbour() as server:
        whole, streamed = run("openai_agents.py", pythons, tmp_path, server.url)
    assert whole == f"answer:   {LOOKED_UP}"
    assert streamed == f"streamed: {LOOKED_UP}"


def test_the_example_of_pydantic_ai_runs(harbour: Any, pythons: Any, tmp_path: Path) -> None:
    with harbour() as server:
        lines = run("pydantic_ai_agent.py", pythons, tmp_path, server.url)
    typed = "harbour='Roscoff' metres=7.0"
    assert lines == [f"answer:   {LOOKED_UP}", f"typed:    {typed}", f"streamed: {SAID}"]
