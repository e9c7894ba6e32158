"""Settings: a file, then the environment, then the command line; read once, at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)


class Settings(BaseSettings):
    """Everything that can be set, with its default.

    Later sources win: ``elision.yaml`` in the working directory, then ``ELISION_*`` in the
    environment, then what is passed here. Unknown keys are errors.
    """

    model_config = SettingsConfigDict(
        env_prefix="ELISION_",
        yaml_file="elision.yaml",
        extra="forbid",
        frozen=True,
    )

    home: Annotated[Path, Field(description="Where state lives: the register's database.")] = Field(
        default_factory=lambda: user_data_path("elision")
    )
    cache: Annotated[Path, Field(description="Where pulled models live.")] = Field(
        default_factory=lambda: user_cache_path("elision")
    )
    model: Annotated[str, Field(description="Model to serve: an alias, a hub id or a folder.")] = (
        "smollm2-135m"
    )
    profile: Annotated[str, Field(description="Profile of requests that name none.")] = "guarded"
    tenant: Annotated[str, Field(description="Tenant of requests whose key binds none.")] = (
        "default"
    )
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 picks one.")] = (
        8000
    )
    api_key: Annotated[
        SecretStr | None, Field(description="Bearer key that callers must send; none: open.")
    ] = None
    allow_open: Annotated[
        bool, Field(description="Listen beyond loopback without a key all the same.")
    ] = False
    body_limit_bytes: Annotated[int, Field(gt=0, description="Largest request body.")] = 4_000_000
    max_streams: Annotated[int, Field(gt=0, description="Choices decoded at a time.")] = 8
    queue_limit: Annotated[
        int, Field(ge=0, description="Requests that may wait; one more gets 429.")
    ] = 32
    timeout_s: Annotated[float, Field(gt=0, description="Deadline of a request in seconds.")] = 600
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Field(description="Number format of the local model; auto measures once."),
    ] = "auto"
    threads: Annotated[
        int, Field(ge=0, description="Compute threads of the local model; 0 measures once.")
    ] = 0
    upstream: Annotated[
        str | None, Field(description="Base URL of an OpenAI-compatible server to stand before.")
    ] = None
    upstream_key: Annotated[
        SecretStr | None, Field(description="Bearer key for the upstream; never logged.")
    ] = None
    upstream_timeout_s: Annotated[
        float, Field(gt=0, description="Longest silence of the upstream in seconds.")
    ] = 60

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, strongest first."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)
