"""Put a pipeline together: register, engine, profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elision.agents.alu.config import AluConfig
from elision.errors import ConfigError
from elision.guards.register.register import Register
from elision.middleware.agentic.agentic import Agentic
from elision.middleware.encoding import EncoderSource
from elision.middleware.pipeline import Pipeline
from elision.middleware.remembering import MemorySource, atlas_config, open_memory
from elision.settings import read_config

if TYPE_CHECKING:
    from elision.contract import Engine
    from elision.middleware.models.progress import Progress
    from elision.settings import Settings


def assemble(settings: Settings, *, progress: Progress | None = None) -> Pipeline:
    """Build the pipeline that *settings* describe: a local model, a server, or vLLM.

    Args:
        settings: See `Settings`.
        progress: Shown while models are pulled and measured.

    Raises:
        ConfigError: If settings contradict each other, vLLM is wanted and not to be had, an
            assistant has other tokens than the model, or none can be loaded.
        EngineError: If a vLLM of our own does not start.
        MissingExtraError: If a local model is wanted and the ``local`` extra is not installed.
        NotFoundError: If there is no such model.
        PullError: If it cannot be fetched.
    """
    match settings.engine:
        case "vllm":
            engine: Engine = _vllm(settings, progress)
        case "local" if settings.upstream:
            raise ConfigError(
                "engine is local, and upstream names a server to stand before; "
                "leave one of the two out"
            )
        case "auto" if settings.upstream:
            engine = _remote(settings)
        case _:
            engine = _local(settings, progress)
    return around(engine, settings)


def around(engine: Engine, settings: Settings) -> Pipeline:
    """Build a pipeline around an engine that runs already.

    Raises:
        ConfigError: If the register cannot be opened, or a setting of ``atlas`` cannot be used.
    """
    register, encoder = open_register(settings), encoder_of(settings)
    memory = MemorySource(lambda: open_memory(settings, register, encoder, erasables=(pipeline,)))
    pipeline = Pipeline(
        engines={engine.name: engine},
        register=register,
        profile=settings.profile,
        tenant=settings.tenant,
        timeout_s=settings.timeout_s,
        encoder=encoder,
        fail_mode=settings.fail_mode,
        agentic=Agentic(memory, atlas_config(settings)),
        alu=read_config(AluConfig, settings.alu, name="alu", page="docs/methods/alu.md"),
    )
    return pipeline


def encoder_of(settings: Settings) -> EncoderSource | None:
    """Return where the sentence encoder that *settings* name comes from; None if they name none."""
    if not settings.encoder:
        return None
    return EncoderSource(settings.encoder, cache=settings.cache)


def open_register(settings: Settings) -> Register:
    """Open the register that *settings* name: a file in the home, or a database by URL.

    Raises:
        ConfigError: If it cannot be opened, or its keys are others.
        MissingExtraError: If the URL is PostgreSQL's and psycopg is not installed.
    """
    url = settings.register_url
    return Register(
        settings.home / "register.db" if url is None else url.get_secret_value(),
        keys=settings.key_folder,
        approval_required=settings.approval == "required",
        checkpoint_file=settings.audit_checkpoints,
    )


def _local(settings: Settings, progress: Progress | None) -> Engine:
    from elision.middleware.engines.loading import load_engine

    return load_engine(settings.model, settings, progress=progress)


def _vllm(settings: Settings, progress: Progress | None) -> Engine:
    from elision.middleware.engines.fleet.owned import OwnVllmEngine
    from elision.middleware.engines.fleet.replica import Replica
    from elision.middleware.engines.vllm import VllmEngine

    _check_no_assistants(settings)
    if settings.replicas and settings.upstream:
        raise ConfigError("replicas and upstream both name servers; leave one of the two out")
    served = settings.replicas or ({settings.upstream: 1.0} if settings.upstream else {})
    if not served:
        return OwnVllmEngine.start(settings, progress=progress)
    replicas = [
        Replica(
            url,
            key=settings.upstream_key,
            weight=weight,
            timeout_s=settings.upstream_timeout_s,
            private=settings.upstream_private,
        )
        for url, weight in served.items()
    ]
    return VllmEngine(
        replicas,
        name=settings.model,
        prove_every_s=settings.vllm_prove_s,
        untested=settings.vllm_untested,
        secret=settings.vllm_secret,
    )


def _check_no_assistants(settings: Settings) -> None:
    if settings.assistants:
        raise ConfigError(
            "assistants are read beside a model of this process, and an upstream shows no scores; "
            "leave one of the two out"
        )


def _remote(settings: Settings) -> Engine:
    from elision.middleware.engines.remote import RemoteEngine

    assert settings.upstream is not None
    _check_no_assistants(settings)
    key = settings.upstream_key
    return RemoteEngine(
        settings.upstream,
        model=settings.model,
        key=key.get_secret_value() if key else None,
        timeout_s=settings.upstream_timeout_s,
        retries=settings.upstream_retries,
        probe=settings.upstream_probe,
        private=settings.upstream_private,
        trusted=settings.upstream_trusted,
        tokenizer=settings.upstream_tokenizer,
        settings=settings,
    )
