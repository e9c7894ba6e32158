"""Model folders: an adapter is merged onto its base once, and kept."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from elision.errors import ConfigError, MissingExtraError
from elision.middleware.models.pull import pull
from elision.settings import Settings

BASE: Final = "smollm2-135m"
"""What an adapter stands on unless the settings name another model."""


def model_folder(folder: Path, settings: Settings) -> Path:
    """Return a folder that the local engine takes.

    Args:
        folder: A whole model, which is used in place; or a PEFT adapter, which is merged in
            float32 onto the settings' model and kept in the cache under a digest of both.
        settings: ``cache`` and ``model``.

    Raises:
        ConfigError: If *folder* holds neither.
        MissingExtraError: If an adapter is to be merged and peft is not installed.
        PullError: If the base cannot be fetched.
    """
    if (folder / "adapter_config.json").is_file():
        return _merged(folder, settings)
    if (folder / "config.json").is_file():
        return folder
    raise ConfigError(f"{str(folder)!r} holds neither a model nor an adapter")


def digest(folder: Path) -> str:
    """Return what tells one folder of weights from another: 12 hexadecimal digits."""
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")):
        with file.open("rb") as data:
            found.update(hashlib.file_digest(data, "sha256").digest())
    return found.hexdigest()[:12]


def _merged(adapter: Path, settings: Settings) -> Path:
    base = pull(settings.model or BASE, cache=settings.cache)
    shelf = settings.cache / "evaluation"
    place = shelf / f"{adapter.name}-{digest(adapter)}-{digest(base)}"
    if not place.exists():
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shelf, prefix=".merging-") as work:
            made = Path(work) / "model"
            _merge(adapter, base, made)
            _move(made, place)
    return place


def _move(made: Path, place: Path) -> None:
    """Put *made* in its place in one step; whoever was first wins, for both are the same."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(made)


def _merge(adapter: Path, base: Path, made: Path) -> None:
    try:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as exc:
        raise MissingExtraError("peft", extra="eval") from exc
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(made)
    AutoTokenizer.from_pretrained(base).save_pretrained(made)
