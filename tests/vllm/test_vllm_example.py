"""The example for vLLM runs, as a newcomer would run it; over a server that runs already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .servers import KEY, SECRET, Server

EXAMPLE = Path(__file__).parents[2] / "examples" / "vllm_server.py"

pytestmark = [pytest.mark.vllm, pytest.mark.model]


def test_the_vllm_example_runs(plugged: Server, home: Path) -> None:
    given = {
        "ELISION_HOME": str(home),
        "ELISION_ENCODER": "",
        "ELISION_REPLICAS": json.dumps({f"{plugged.root}/v1": 1}),
        "ELISION_UPSTREAM_KEY": KEY,
        "ELISION_VLLM_SECRET": SECRET,
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    before, during = done.stdout.splitlines()
    assert before == "before: The capital of France is Paris."
    assert during.startswith("during: ")
    assert "Paris" not in during
    assert len(during) > len("during: ")
    assert SECRET not in done.stderr
