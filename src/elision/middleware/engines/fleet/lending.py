"""Lend this package to another interpreter, which need not have it installed.

vLLM pins its own torch and transformers, so it often lives in an environment of its own. What it
needs of us is small (the plug-in imports nothing that vLLM does not bring), so it is not installed
there a second time: a folder on its ``PYTHONPATH`` holds a link to our package and the few lines by
which Python finds its version and entry points. Both sides are then one version, whatever is there.
"""

from __future__ import annotations

import shutil
import tempfile
from hashlib import sha256
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import elision
from elision.errors import ConfigError

GROUP: Final = "vllm.logits_processors"
"""Group of entry points in which vLLM looks for logits processors."""
NAME: Final = "elision"
"""Our entry point there."""

_TOLD: Final = ("METADATA", "entry_points.txt")


def version() -> str:
    """Return the version of this package, as its metadata tell it.

    Raises:
        ConfigError: If it runs without having been installed, so that there are none.
    """
    return _distribution().version


def lent(cache: Path) -> Path:
    """Return a folder for another interpreter's ``PYTHONPATH``: our package, and nothing else.

    Made at the first call, whole or not at all; found again afterwards.

    Args:
        cache: Where such folders live (`Settings.cache`); made if missing.

    Raises:
        ConfigError: If our metadata name no plug-in, or the folder cannot be made.
    """
    package, told = Path(elision.__file__).resolve().parent, _told()
    print_ = sha256("\0".join((str(package), *told.values())).encode()).hexdigest()[:16]
    folder = cache.absolute() / "lent" / f"{version()}-{print_}"
    try:
        if not folder.is_dir():
            _make(folder, package, told)
    except OSError as exc:
        raise ConfigError(f"{str(folder)!r} cannot be made: {exc.strerror}") from exc
    return folder


def _make(folder: Path, package: Path, told: dict[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        (workshop / package.name).symlink_to(package, target_is_directory=True)
        info = workshop / f"{NAME}-{version()}.dist-info"
        info.mkdir()
        for name, text in told.items():
            (info / name).write_text(text, encoding="utf-8")
        _publish(workshop, folder)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)  # removes the link, not what it leads to


def _publish(workshop: Path, folder: Path) -> None:
    try:
        workshop.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, and made the same
            raise


def _told() -> dict[str, str]:
    ours = _distribution()
    if not any(one.group == GROUP and one.name == NAME for one in ours.entry_points):
        raise ConfigError(
            f"the installed metadata of elision {ours.version} name no plug-in for vLLM; "
            "install it again (pip install -e . in a checkout)"
        )
    return {name: ours.read_text(name) or "" for name in _TOLD}


def _distribution() -> Distribution:
    try:
        return distribution(NAME)
    except PackageNotFoundError as exc:
        raise ConfigError("elision is not installed; run: pip install elision") from exc
