"""Models from the Hugging Face hub: weights, settings and tokenizer; no pickles, no code."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from elision.catalog import HubId
from elision.errors import MissingExtraError, NotFoundError, PullError
from elision.middleware.models.progress import Progress
from elision.middleware.models.shelf import Manifest, require_space

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_DEFAULT_ENDPOINT = "https://huggingface.co"
_TAKEN = re.compile(
    r"""(?: \d+_\w+ / )?  # sentence-transformers keeps its modules in 1_Pooling, 2_Dense ...
    (?: (?!consolidated) [^/]+ \.safetensors  # 'consolidated' repeats the weights, differently
      | [^/]+ \.(?:json|jinja|model)
      | (?:vocab|merges) \.txt )""",
    re.VERBOSE,
)


def fetch(model: HubId, made: Path, progress: Progress) -> Manifest:
    """Fill the empty folder *made* with the newest commit of *model*; return its manifest.

    Every file is checked against the digest that the hub states for it. A connection that breaks
    is taken up where it broke, as often as bytes keep coming. The endpoint is ``HF_ENDPOINT``, the
    token the one that ``hf auth login`` or ``HF_TOKEN`` left.

    Raises:
        NotFoundError: If the hub knows no such model.
        PullError: If the hub cannot be reached, refuses, or sends something else than it states.
        MissingExtraError: If ``huggingface_hub`` is not installed.
        OSError: If the disk is full or not writable.
    """
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError("huggingface_hub", extra="local")
    from huggingface_hub import HfApi

    endpoint = os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT
    progress.stage(f"asking the hub about {model.id}")
    with _hub_trouble_told(model, endpoint):
        info = HfApi(endpoint=endpoint).model_info(model.id, files_metadata=True)
    files = _chosen(model, info)
    total = sum(file.size or 0 for file in files)
    require_space(made, total)
    progress.stage(f"downloading {model.id}", total)
    for file in files:
        with _hub_trouble_told(model, endpoint):
            _download(model, info, file, made, endpoint=endpoint, progress=progress)
        _verify(file, made / file.rfilename)
    shutil.rmtree(made / ".cache")
    return Manifest(
        model=model.id,
        source=f"{endpoint}/{model.id}",
        digest=info.sha or "",
        licence=_licence(info),
    )


def _chosen(model: HubId, info: ModelInfo) -> list[RepoSibling]:
    named = info.siblings or []
    chosen = [file for file in named if _TAKEN.fullmatch(file.rfilename)]
    if not any(file.rfilename.endswith(".safetensors") for file in chosen):
        raise PullError(
            f"{model.id!r} has no *.safetensors among its {len(named)} files, and pickled weights "
            "are not loaded; choose another model, or convert it and give the folder"
        )
    return sorted(chosen, key=lambda file: file.size or 0)  # whatever is wrong shows early


def _download(
    model: HubId,
    info: ModelInfo,
    file: RepoSibling,
    made: Path,
    *,
    endpoint: str,
    progress: Progress,
) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        model.id,
        file.rfilename,
        revision=info.sha,
        local_dir=made,
        endpoint=endpoint,
        tqdm_class=_bar_for(progress),
    )


def _bar_for(progress: Progress) -> Any:
    """Return a class that passes for tqdm where the hub's client draws its bars."""

    class Bar:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...
        def close(self) -> None: ...
        def set_postfix_str(self, *_: object, **__: object) -> None: ...
        def set_transfer_postfix_str(self, *_: object, **__: object) -> None: ...
        def update_transfer(self, n: float | None = 1) -> None: ...
        def update(self, n: float | None = 1) -> None:
            progress.advance(int(n or 0))

    return Bar


def _verify(file: RepoSibling, path: Path) -> None:
    """Compare a file with what the hub states: SHA-256 if it is large, git's digest otherwise."""
    with path.open("rb") as content:
        if file.lfs is not None:
            want, got = file.lfs.sha256, hashlib.file_digest(content, "sha256").hexdigest()
        elif file.blob_id is not None:
            blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
            want, got = file.blob_id, hashlib.file_digest(content, lambda: blob).hexdigest()
        else:
            raise PullError(f"the hub states no digest for {file.rfilename!r}")
    if want != got:
        raise PullError(
            f"{file.rfilename!r} has the digest {got}, and the hub states {want}; it was removed; "
            "pull again, and if that does not help, look at what HF_ENDPOINT points to"
        )


def _licence(info: ModelInfo) -> str:
    tags = [tag for tag in info.tags or [] if tag.startswith("license:")]
    return tags[0].removeprefix("license:") if tags else ""


@contextmanager
def _hub_trouble_told(model: HubId, endpoint: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as exc:
        raise PullError(
            f"{model.id!r} is gated: accept its terms at {endpoint}/{model.id}, "
            "set HF_TOKEN, and pull again"
        ) from exc
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as exc:
        raise NotFoundError(
            f"the hub at {endpoint} has no model {model.id!r}; check the spelling, "
            "or set HF_TOKEN if it is private",
            code="model_not_found",
            param="model",
        ) from exc
    except errors.OfflineModeIsEnabled as exc:
        raise PullError("HF_HUB_OFFLINE is set, so nothing can be pulled; unset it") from exc
    except (_http_error(), errors.XetDownloadError, ValueError) as exc:
        raise PullError(_what_failed(model, endpoint, exc)) from exc
    except OSError as exc:
        if exc.errno is not None:  # the disk's trouble, not the hub's
            raise
        raise PullError(_what_failed(model, endpoint, exc)) from exc


def _http_error() -> type[Exception]:
    """Return the root of the errors of the HTTP library that the hub's client is built on.

    It changed from httpx to httpx2 between two releases; the client's own error derives from it.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _what_failed(model: HubId, endpoint: str, exc: Exception) -> str:
    response = getattr(exc, "response", None)
    what = f"HTTP {response.status_code}" if response is not None else type(exc).__name__
    return (
        f"{model.id!r} could not be downloaded from {endpoint} ({what}); nothing was left behind; "
        "check the network (and HF_ENDPOINT, if you set it), then pull again"
    )
