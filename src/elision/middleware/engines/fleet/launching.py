"""What a vLLM of ours is started with: its flags, its environment, and where it will answer."""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elision.catalog import Folder, HubId, resolve
from elision.errors import ConfigError
from elision.middleware.engines.fleet.interpreters import Interpreter, environment
from elision.middleware.engines.fleet.ordering import wire
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.models.pull import pull, pulled

if TYPE_CHECKING:
    from elision.middleware.models.progress import Progress
    from elision.settings import Settings

N_DRAFTS: Final = 4
"""Draft slots of a server with our proposer: as many as MTI's negative prompt has tokens."""
N_LOGPROBS: Final = 1024
"""Alternatives that may be asked for: the model's entropies are measured from them, for MTI."""
PROPOSER: Final = "elision.middleware.engines.plugin.proposer.ElisionProposer"

_ON_CPU: Final = (
    *("--enforce-eager", "--block-size", "32"),
    *("--kv-cache-memory-bytes", "1G", "--max-num-seqs", "16"),
    "--no-enable-chunked-prefill",
)
"""As measured on two cores: compiling costs minutes and gains nothing; prefixes are reused in whole
blocks, and 128 is the default; without the third a share of all memory is reserved; where a prompt
with a seed is read in pieces, vLLM's engine on a CPU breaks (``Generator does not use offset``)."""
_ON_GPU: Final = ("--no-async-scheduling",)
"""With it vLLM's first runner asks for scores before it knows the token before them; on CPUs vLLM
never does. Rows that cannot tell where they are end."""

_OURS: Final = tuple(
    (
        "--model --served-model-name --host --port --uds --grpc --grpc-port --api-key "
        "--logprobs-mode --speculative-config -sc --spec-method --spec-model --spec-tokens "
        "--logits-processors --async-scheduling --config --enable-log-requests "
        "--enable-log-outputs --enable-log-deltas --ssl-keyfile --ssl-certfile"
    ).split()
)
"""Flags that callers may not set: where it answers and to whom, what proves or undoes the guard,
and what would write prompts and replies to its log. vLLM takes what they begin with for them."""
_RANKS: Final = ("--data-parallel", "-dp")
"""What flags of data parallelism begin with."""
_NAME: Final = re.compile(r"-[^=.+\s]*")
"""A flag without its value, and without the path into it by which vLLM sets parts of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one vLLM is started.

    Attributes:
        argv: The command. No secret is in it: others can read command lines.
        env: All of its environment; the key and the secret are there.
        root: Its address, without ``/v1``.
        model: What it calls its model.
        key: Bearer key that it asks for.
        secret: Seals orders to it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    root: str
    model: str
    key: str = field(repr=False)
    secret: str = field(repr=False)

    @classmethod
    def of(cls, settings: Settings, *, progress: Progress | None = None) -> Launch:
        """Find interpreter and model, choose a port, key and secret.

        Raises:
            ConfigError: If vLLM is not to be had, or ``vllm_args`` holds a flag of ours.
            NotFoundError: If there is no such model.
            PullError: If it cannot be fetched.
        """
        _check(settings.vllm_args)
        if progress is not None:
            progress.stage("Looking for vLLM")
        found = Interpreter.find(settings.vllm_python, cache=settings.cache)
        source, name = _model(settings, progress)
        port, key, secret = _free_port(), secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        return cls(
            argv=_argv(found, settings, source=source, name=name, port=port),
            env=_environment(
                found, settings, key=key, secret=secret, is_here=Path(source).exists()
            ),
            root=f"http://127.0.0.1:{port}",
            model=name,
            key=key,
            secret=secret,
        )

    def first_request(self) -> bytes:
        """Return a body for ``/v1/completions``; a first answer is slow, and no caller's."""
        xargs = wire(Order(), self.secret)
        body = {"model": self.model, "prompt": "Hello", "max_tokens": 2, "vllm_xargs": xargs}
        return json.dumps(body).encode()


def _check(args: Sequence[str]) -> None:
    for arg in args:
        found = _NAME.match(arg)
        name = "" if found is None else found[0].replace("_", "-")
        if len(name) < 2:
            continue  # a value
        if any(name.startswith(one) or one.startswith(name) for one in _RANKS):
            raise ConfigError(
                f"{name[:64]} cannot stand in vllm_args: each rank is an engine of its own, which "
                "would have to prove itself and learn masks; start them as replicas"
            )
        if any(one.startswith(name) for one in _OURS):
            raise ConfigError(
                f"{name[:64]} is set by elision and cannot stand in vllm_args; "
                "the model, drafts and address have settings of their own"
            )


def _model(settings: Settings, progress: Progress | None) -> tuple[str, str]:
    """Return where the weights are, a folder or a hub id, and what to call them."""
    name = settings.model
    model = resolve(name)
    if isinstance(model, HubId) and pulled(name, cache=settings.cache) is None:
        return model.id, name  # vLLM reads formats that `pull` does not, and on several machines
    folder = pull(name, cache=settings.cache, progress=progress).absolute()
    return str(folder), folder.name if isinstance(model, Folder) else name


def _argv(
    found: Interpreter, settings: Settings, *, source: str, name: str, port: int
) -> tuple[str, ...]:
    """Return the command; of two equal flags the later counts, so ours are last."""
    dtype = () if settings.dtype == "auto" else ("--dtype", settings.dtype)
    return (
        *(str(found.python), "-m", "vllm.entrypoints.openai.api_server"),
        *(_ON_CPU if found.is_cpu else _ON_GPU),
        *("--max-logprobs", str(N_LOGPROBS), "--uvicorn-log-level", "warning"),
        *dtype,
        *settings.vllm_args,
        *("--model", source, "--served-model-name", name),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--logprobs-mode", "processed_logprobs"),
        *(_DRAFTS if settings.vllm_drafts == "chain" else ()),
    )


_DRAFTS: Final = (
    "--speculative-config",
    json.dumps({"method": "custom_class", "model": PROPOSER, "num_speculative_tokens": N_DRAFTS}),
)


_RAYS: Final = "VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY"


def _environment(
    found: Interpreter, settings: Settings, *, key: str, secret: str, is_here: bool
) -> dict[str, str]:
    kept = environment(found.path)
    kept |= {"VLLM_API_KEY": key, "ELISION_VLLM_SECRET": secret, "ELISION_VLLM_REQUIRE": "1"}
    kept |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
    prefixes = filter(None, (kept.get(_RAYS), "ELISION_VLLM_"))
    kept[_RAYS] = ",".join(prefixes)  # workers on Ray have what is named there, and no more
    if is_here:
        kept["HF_HUB_OFFLINE"] = "1"
    if settings.vllm_untested:
        kept["ELISION_VLLM_UNTESTED"] = "1"
    else:  # the other runner is refused by the plug-in, so it must not be vLLM's choice
        kept["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    return kept


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
