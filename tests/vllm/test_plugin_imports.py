"""The plug-in inside vLLM's own environment: what it imports, and what it makes of rows there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from elision.middleware.engines.fleet.lending import lent

PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
SCRIPT = Path(__file__).with_name("plugin_checks.py")


@pytest.mark.vllm
@pytest.mark.model
def test_in_vllms_environment_both_interfaces_do_what_a_replayed_chain_does(
    smollm2_dir: Path, tmp_path: Path
) -> None:
    if not PYTHON.exists() and not os.environ.get("ELISION_REQUIRE_VLLM"):
        pytest.skip("needs .venv-vllm; make it with `make test-vllm`")
    seen = os.pathsep.join(map(str, (lent(tmp_path), SCRIPT.parent)))  # it imports its neighbours
    environ = {**os.environ, "PYTHONPATH": seen, "HF_HUB_OFFLINE": "1"}
    environ |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CACHE_ROOT": str(tmp_path)}
    done = subprocess.run(
        [PYTHON, SCRIPT, smollm2_dir], env=environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["modules"] >= 5
    assert found["first"]["rows"] > 150
    assert found["first"]["dead"] > 20
    assert found["first"]["untouched"] > 20
    assert found["second"]["rows"] > 80
