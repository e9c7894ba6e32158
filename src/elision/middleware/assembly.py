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
    """Build the pipeline that *settings* describe: a local model, or an upstream server.

    Args:
        settings: See `Settings`.
        progress: Shown while models are pulled and measured.

    Raises:
        ConfigError: If an assistant has other tokens than the model, or none can be loaded.
        MissingExtraError: If a local model is wanted and the ``local`` extra is not installed.
        NotFoundError: If there is no such model.
        PullError: If it cannot be fetched.
    """
    engine = _remote(settings) if settings.upstream else _local(settings, progress)
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


def _remote(settings: Settings) -> Engine:
    from elision.middleware.engines.remote import RemoteEngine

    assert settings.upstream is not None
    if settings.assistants:
        raise ConfigError(
            "assistants are read beside a model of this machine, and an upstream shows no scores; "
            "leave one of the two out"
        )
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
