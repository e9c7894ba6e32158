"""A real vLLM for a bench, and our server in front of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from elision.errors import ConfigError
from elision.evaluation.proxying.processes import Server, serving
from elision.middleware.engines.fleet.interpreters import Interpreter
from elision.middleware.engines.fleet.launching import Launch
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.fleet.supervising import Supervised
from elision.middleware.engines.vllm import VllmEngine
from elision.middleware.models.progress import RichProgress

if TYPE_CHECKING:
    from elision.settings import Settings

_BESIDE: Final = Path(".venv-vllm/bin/python")
_N_CONTEXT: Final = ("--max-model-len", "2048")
_START_S: Final = 600.0

Drafts = Literal["none", "chain"]


@dataclass(frozen=True, slots=True)
class Lent:
    """A vLLM that runs for a bench.

    Attributes:
        launch: How it was started.
        root: Its address, without ``/v1``.
    """

    launch: Launch

    @property
    def root(self) -> str:
        """Its address, without ``/v1``."""
        return self.launch.root

    def engine(self, **how: Any) -> VllmEngine:
        """Return an engine over it; the caller closes it."""
        launch = self.launch
        secret = launch.secret if "ELISION_VLLM_SECRET" in launch.env else None
        replica = Replica(f"{launch.root}/v1", key=launch.key, model=launch.model)
        return VllmEngine([replica], name=launch.model, secret=secret, **how)


def settings_for(settings: Settings, *, dtype: str, drafts: Drafts = "none") -> Settings:
    """Return *settings* for one server of a bench.

    Where no interpreter is named and the working directory has `.venv-vllm`, that is taken.
    """
    python = settings.vllm_python
    if python is None and _BESIDE.exists():
        python = _BESIDE.absolute()
    more = {"dtype": dtype, "vllm_drafts": drafts, "vllm_python": python}
    return settings.model_copy(update={**more, "vllm_args": (*settings.vllm_args, *_N_CONTEXT)})


@contextmanager
def vllm(
    settings: Settings, *, without: tuple[str, ...] = (), more: tuple[str, ...] = ()
) -> Iterator[Lent]:
    """Run a vLLM; it takes most of a minute to start.

    Args:
        settings: See `settings_for`.
        without: Variables left out of its environment, such as what makes orders compulsory.
        more: Flags behind all others, which count in place of ours.

    Raises:
        ConfigError: If there is no vLLM.
        EngineError: If it does not start.
    """
    launch = Launch.of(settings)
    env = {name: value for name, value in launch.env.items() if name not in without}
    launch = replace(launch, env=env, argv=(*launch.argv, *more))
    with tempfile.TemporaryDirectory() as folder, RichProgress() as progress:
        log = Path(folder) / "vllm.log"
        running = Supervised.start(launch, log=log, start_s=_START_S, progress=progress)
        try:
            yield Lent(launch)
        finally:
            running.stop()


@contextmanager
def gateway(lent: Lent, *, profile: str) -> Iterator[Server]:
    """Run ``elision serve`` in front of a server, with an empty register."""
    launch = lent.launch
    options = ("--engine", "vllm", "--upstream", f"{launch.root}/v1", "--model", launch.model)
    secret = {"ELISION_VLLM_SECRET": launch.secret, "ELISION_UPSTREAM_KEY": launch.key}
    with serving(*options, "--profile", profile, env=secret) as server:
        yield server


def is_there(settings: Settings) -> bool:
    """Return whether a vLLM can be started; quick to say no."""
    try:
        Interpreter.find(settings.vllm_python, cache=settings.cache)
    except ConfigError:
        return False
    return True
