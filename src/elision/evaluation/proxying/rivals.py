"""LiteLLM's proxy in front of the same upstream, on the same machine, in the same run."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from elision.evaluation.proxying.processes import Server, running, wait_for
from elision.evaluation.proxying.script import MODEL

PROGRAM = Path(".venv-clients/bin/litellm")
"""Where the rival is installed, below the working directory: not one of our dependencies."""

_KEPT = ("PATH", "HOME", "LANG")
_SET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # ours asks for no key either
}


@contextmanager
def litellm(upstream: Server) -> Iterator[Server | None]:
    """Run LiteLLM's proxy; None if it is not installed, or does not come up.

    No database, no telemetry, no callbacks, its list of prices from its own package, one worker.
    """
    if not PROGRAM.exists():
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_bytes(orjson.dumps(_config(upstream)))  # JSON is YAML
        port = _free_port()
        command = [str(PROGRAM.absolute()), "--config", str(config), "--port", str(port)]
        with running([*command, "--host", "127.0.0.1", "--telemetry", "False"], _quiet()) as one:
            url = f"http://127.0.0.1:{port}"
            yield Server(one, url) if wait_for(f"{url}/health/liveliness") else None


def version() -> str:
    """Return the rival's version; nothing if it is not installed."""
    found = PROGRAM.parent.parent.glob("lib/python*/site-packages/litellm-*.dist-info")
    return next((path.name.split("-")[1].removesuffix(".dist") for path in found), "")


def _config(upstream: Server) -> dict[str, object]:
    params = {"model": f"openai/{MODEL}", "api_base": upstream.url, "api_key": "none"}
    return {
        "model_list": [{"model_name": MODEL, "litellm_params": params}],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }


def _quiet() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | _SET


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
