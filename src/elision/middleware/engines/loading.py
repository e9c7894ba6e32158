"""From a model's name to a running local engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers.utils import logging as transformers_logging

from elision.middleware.engines import calibration
from elision.middleware.engines.calibration import Choice
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.exactness import make_independent_
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.packing import pack_
from elision.middleware.engines.station import CurveMemo
from elision.middleware.models.progress import Silence
from elision.middleware.models.pull import pull
from elision.middleware.speculation.cost import curve_key

if TYPE_CHECKING:
    from elision.middleware.models.progress import Progress
    from elision.settings import Settings

_log = logging.getLogger(__name__)


def load_engine(name: str, settings: Settings, *, progress: Progress | None = None) -> LocalEngine:
    """Pull *name* if needed, choose number format and threads, and start its engine.

    Args:
        name: An alias, a hub id or a folder.
        settings: Cache, limits, assistants, and what of format and threads is fixed.
        progress: Shown while pulling and measuring.

    Raises:
        NotFoundError: If there is no such model.
        PullError: If it cannot be fetched.
        ConfigError: If it is no causal language model, or has other tokens than an assistant.
    """
    folder = pull(name, cache=settings.cache, progress=progress)
    cast("Any", transformers_logging).disable_progress_bar()  # ours tells it
    model, n_threads = _load(folder, name, settings, progress or Silence())
    dtype = str(model.model.dtype).removeprefix("torch.")
    _log.info("%s runs in %s on %s, threads: %d", model.name, dtype, model.device, n_threads)
    memo = CurveMemo(settings.cache / "costs.json", _curve_key(folder, model, n_threads))
    beside = {
        key: _load_beside(model, source, key, settings, n_threads=n_threads, progress=progress)
        for key, source in settings.assistants.items()
    }
    engine = LocalEngine.under(settings, model, n_threads=n_threads, memo=memo, assistants=beside)
    if progress is not None:
        progress.stage("Measuring what a draft costs, once")
    engine.warm()
    return engine


def _load_beside(
    model: CausalModel,
    source: str,
    name: str,
    settings: Settings,
    *,
    n_threads: int,
    progress: Progress | None,
) -> CausalModel:
    """Load *source* as an assistant of *model*: called *name*, in the same number format."""
    folder = pull(source, cache=settings.cache, progress=progress)
    (progress or Silence()).stage(f"Loading {name}, beside {model.name}")
    assistant = CausalModel.load(folder, name=name, dtype=model.model.dtype).beside(model)
    if assistant.device.type == "cpu":
        _pack_(assistant, n_threads)
    return assistant


def _curve_key(folder: Path, model: CausalModel, n_threads: int) -> str:
    where = model.device
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
    dtype = f"{str(model.model.dtype).removeprefix('torch.')}@{name}"
    packed = where.type == "cpu"
    fingerprint = calibration.fingerprint(folder)
    return curve_key(fingerprint, dtype=dtype, n_threads=n_threads, packed=packed)


def _load(
    folder: Path, name: str, settings: Settings, progress: Progress
) -> tuple[CausalModel, int]:
    name = Path(name).name if Path(name).exists() else name
    dtype: str = settings.dtype
    n_threads = settings.threads
    if not torch.cuda.is_available() and (dtype == "auto" or n_threads == 0):
        choice = _choose(folder, name, settings, progress)
        dtype, n_threads = choice.dtype, choice.n_threads
    progress.stage(f"Loading {name}")
    if torch.cuda.is_available():
        chosen = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
        return CausalModel.load(folder, name=name, dtype=chosen), n_threads or 1
    model = CausalModel.load(folder, name=name, dtype=getattr(torch, dtype))
    _pack_(model, n_threads)
    return model, n_threads


def _pack_(model: CausalModel, n_threads: int) -> None:
    """Pack the weights of a model that was loaded here: nobody else's is changed under him."""
    with calibration.threads(n_threads):
        done = pack_(model.model)
    _log.info(
        "%s: %d linear layers packed, %d left plain, %.1f s",
        model.name, done.n_packed, done.n_plain, done.took_s,
    )  # fmt: skip
    if done.n_packed and not done.n_plain and make_independent_(model.model):
        _log.info("%s: rows do not depend on each other", model.name)


def _choose(folder: Path, name: str, settings: Settings, progress: Progress) -> Choice:
    file = settings.cache / "calibration.json"
    key = f"{calibration.fingerprint(folder)}/{settings.dtype}/{settings.threads}"
    if (known := calibration.recall(file, key)) is not None:
        return known
    progress.stage(f"Measuring number formats and threads for {name}, once")
    best = min(_measured(folder, name, settings), key=lambda choice: choice.cost)
    calibration.remember(file, key, best)
    return best


def _measured(folder: Path, name: str, settings: Settings) -> list[Choice]:
    auto = settings.dtype == "auto"
    dtypes = calibration.number_formats(folder) if auto else (settings.dtype,)
    threads = (settings.threads,) if settings.threads else calibration.thread_counts()
    found: list[Choice] = []
    for dtype in dtypes:
        model = CausalModel.load(folder, name=name, dtype=getattr(torch, dtype))
        with calibration.threads(threads[0]):
            pack_(model.model)  # not tried further: it is for timing alone
        found += [calibration.measure(model.model, dtype=dtype, n_threads=n) for n in threads]
    for choice in found:
        _log.info(
            "%s with %d threads: %.1f ms a token idle, %.1f ms beside a busy core",
            choice.dtype, choice.n_threads, choice.idle_ms, choice.busy_ms,
        )  # fmt: skip
    return found
