"""Settings: a file, then the environment, then the command line; read once, at start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from platformdirs import user_cache_path, user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from elision.errors import ConfigError
from elision.limits import Limits, Origin

Role: TypeAlias = Literal["requester", "approver", "operator", "auditor", "service"]
"""What a key may do; `elision.middleware.gateway.roles` says which route asks for which."""

SINGLE_KEY = "api_key"
"""The name under which the holder of the single key appears in the audit log."""

ROLES: tuple[Role, ...] = ("requester", "approver", "operator", "auditor", "service")

_AssistantName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class KeyGrant(BaseModel):
    """A caller's key: whose it is, which tenant it reaches and what it may do there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]
    key: SecretStr | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    roles: frozenset[Role] = frozenset({"service"})
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("write either key or sha256, and not both")
        if self.key is not None and not self.key.get_secret_value():
            raise ValueError("key is empty")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the key, in lower-case hexadecimal digits."""
        if self.key is None:
            return self.sha256 or ""
        return hashlib.sha256(self.key.get_secret_value().encode()).hexdigest()


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
        hide_input_in_errors=True,  # a key that cannot be read must not be printed either
    )

    home: Annotated[
        Path, Field(description="Where state lives: the register's database, and memory's.")
    ] = Field(default_factory=lambda: user_data_path("elision"))
    cache: Annotated[Path, Field(description="Where pulled models live.")] = Field(
        default_factory=lambda: user_cache_path("elision")
    )
    model: Annotated[str, Field(description="Model to serve: an alias, a hub id or a folder.")] = (
        "smollm2-135m"
    )
    assistants: Annotated[
        dict[_AssistantName, str],
        Field(description="Other models that a request may have read beside it, by name."),
    ] = Field(default_factory=dict)
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
    keys: Annotated[
        tuple[KeyGrant, ...], Field(description="Further keys: name, key or sha256, tenant, roles.")
    ] = ()
    limits: Annotated[
        Limits, Field(description="What each key may use, unless its own limits say otherwise.")
    ] = Limits()
    cors_origins: Annotated[
        tuple[Origin, ...], Field(description="Web pages of which origins may call; none: no CORS.")
    ] = ()
    log_format: Annotated[
        Literal["text", "json"], Field(description="How log lines are written.")
    ] = "text"
    approval: Annotated[
        Literal["none", "required"],
        Field(description="Whether a second person must approve a target before it holds."),
    ] = "none"
    register_url: Annotated[
        SecretStr | None, Field(description="Database of the register; none: a file in home.")
    ] = None
    key_folder: Annotated[
        Path | None, Field(description="Where master and signing key lie; none: home/keys.")
    ] = None
    audit_checkpoints: Annotated[
        Path | None, Field(description="A second place for the audit log's signed checkpoints.")
    ] = None
    allow_open: Annotated[
        bool, Field(description="Listen beyond loopback without a key all the same.")
    ] = False
    responses_kept: Annotated[
        int, Field(ge=0, description="Responses kept for each tenant to go on from; 0: none.")
    ] = 10_000
    responses_kept_s: Annotated[
        float, Field(gt=0, description="Seconds after its last use that a response is kept.")
    ] = 86_400
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
    prefix_cache_mb: Annotated[
        int, Field(ge=0, description="Memory for keys and values of earlier prompts; 0: none.")
    ] = 512
    cross_request: Annotated[
        bool, Field(description="Draft from what earlier replies of tenant and profile have shown.")
    ] = True
    encoder: Annotated[
        str | None,
        Field(description="Sentence encoder of the gate: alias, hub id or folder; none: no gate."),
    ] = "all-minilm-l6-v2"
    fail_mode: Annotated[
        Literal["closed", "phrases"],
        Field(description="When the gate fails: end the request, or go on with phrases alone."),
    ] = "closed"
    learning: Annotated[
        Literal["on", "frozen", "shadow", "off"],
        Field(description="What the profile agentic does with memory; off keeps none."),
    ] = "on"
    atlas: Annotated[
        dict[str, Any], Field(description="Lanes, budgets, prices and holdout; see docs/atlas.md.")
    ] = Field(default_factory=dict)
    memory_url: Annotated[
        SecretStr | None, Field(description="Database of memory; none: a file in home.")
    ] = None
    memory_sealed: Annotated[
        bool | None,
        Field(description="Encrypt memory at rest; none: as it is, a new one on a server only."),
    ] = None
    upstream: Annotated[
        str | None, Field(description="Base URL of an OpenAI-compatible server to stand before.")
    ] = None
    upstream_key: Annotated[
        SecretStr | None, Field(description="Bearer key for the upstream; never logged.")
    ] = None
    upstream_timeout_s: Annotated[
        float, Field(gt=0, description="Longest silence of the upstream in seconds.")
    ] = 60
    upstream_retries: Annotated[
        int, Field(ge=0, le=10, description="New tries where the upstream has not begun to work.")
    ] = 2
    upstream_probe: Annotated[
        bool, Field(description="Ask the upstream once what it can do; some ten tokens.")
    ] = True
    upstream_private: Annotated[
        bool, Field(description="Let the upstream's host name lead to a private address.")
    ] = False
    upstream_trusted: Annotated[
        bool, Field(description="The upstream may be told what must not be said.")
    ] = False
    upstream_tokenizer: Annotated[
        str | None,
        Field(description="The upstream's tokenizer: alias, hub id or folder; none: text alone."),
    ] = None
    engine: Annotated[
        Literal["auto", "local", "vllm"],
        Field(description="What decodes; auto: the upstream if there is one, else this process."),
    ] = "auto"
    replicas: Annotated[
        dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]],
        Field(description="Base URLs of vLLM servers with one model, and each one's weight."),
    ] = Field(default_factory=dict)
    vllm_python: Annotated[
        Path | None, Field(description="Interpreter that vLLM is installed for; none: this one.")
    ] = None
    vllm_args: Annotated[
        tuple[str, ...], Field(description="More of vLLM's own flags, where we start it.")
    ] = ()
    vllm_drafts: Annotated[
        Literal["none", "chain"],
        Field(description="Whether a vLLM that we start drafts, and can guide by MTI."),
    ] = "none"
    vllm_start_s: Annotated[
        float, Field(gt=0, description="Longest start of a vLLM of ours, in seconds.")
    ] = 600
    vllm_untested: Annotated[
        bool, Field(description="Allow vLLM versions and runners that this was not tested with.")
    ] = False
    vllm_prove_s: Annotated[
        float,
        Field(gt=0, le=86_400, description="Seconds between proofs that a replica's guard acts."),
    ] = 300
    vllm_secret: Annotated[
        SecretStr | None, Field(description="Seals orders to vLLM; the same text on both sides.")
    ] = None
    alu: Annotated[
        dict[str, Any], Field(description="Variants, thresholds and fallback; see docs/alu.md.")
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _distinct_keys(self) -> Self:
        names = [grant.name for grant in self.keys]
        digests = [grant.digest for grant in self.keys]
        if self.api_key is not None:
            names.append(SINGLE_KEY)
            digests.append(hashlib.sha256(self.api_key.get_secret_value().encode()).hexdigest())
        if len({*names}) < len(names) or len({*digests}) < len(digests):
            raise ValueError("two keys have one name or one secret; give each its own")
        return self

    @model_validator(mode="after")
    def _replicas_are_vllms(self) -> Self:
        if self.replicas and self.engine != "vllm":
            raise ValueError("replicas are vLLM servers; set engine to vllm, or leave them out")
        return self

    @model_validator(mode="after")
    def _flags_are_for_a_vllm_of_ours(self) -> Self:
        if self.engine == "vllm" and (self.replicas or self.upstream):
            for name in ("vllm_args", "vllm_drafts", "vllm_start_s"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} is for a vLLM that is started here, and these run already; start "
                        f"them so, or leave {name} out"
                    )
        return self

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


Config = TypeVar("Config", bound=BaseModel)


def read_config(kind: type[Config], given: Mapping[str, Any], *, name: str, page: str) -> Config:
    """Return the settings of one part, given as an object of their own.

    Args:
        kind: What they must be.
        given: The object.
        name: The setting that holds it.
        page: Where it is explained.

    Raises:
        ConfigError: If something there is unknown or out of range; which, never what it was.
    """
    try:
        return kind.model_validate(dict(given))
    except ValidationError as exc:
        faults = exc.errors(include_url=False, include_context=False, include_input=False)
    where = "; ".join(f"{name}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in faults)
    raise ConfigError(f"a setting cannot be used: {where}; see {page}")
