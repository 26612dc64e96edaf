"""Settings: arguments first, then CALLBOARD_* in the environment, then files, then a callboard.toml in the working
directory. The files are those of the folder that CALLBOARD_SECRETS_DIR names: callboard_broker, callboard_store and so
on, as Docker and Kubernetes mount secrets.

In the user's API durations are seconds; `Settings` holds them as they were given, and the properties below give
milliseconds to whoever works with them.
"""

from __future__ import annotations

import os
from tomllib import TOMLDecodeError
from typing import Any, Literal

from msgspec import Struct
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from ..metadata.job import Keep
from .errors import ConfigurationError

MEMORY = "memory://"
SECRETS_DIR = "CALLBOARD_SECRETS_DIR"
MAX_SCAN_SECONDS = 60


class Retain(Struct, frozen=True, kw_only=True):
    """How long final jobs stay: for `age` seconds (None: for ever), the newest `count` of them (None: all)."""

    age: float | None = None
    count: int | None = None

    def keep(self, *, group: str = "") -> Keep:
        return Keep(age=None if self.age is None else round(self.age * 1000), count=self.count, group=group)


class Settings(BaseSettings):
    """One setting a line; each is given to `Callboard(...)`, as CALLBOARD_<NAME>, or as a line of callboard.toml."""

    model_config = SettingsConfigDict(
        env_prefix="CALLBOARD_", toml_file="callboard.toml", extra="forbid", frozen=True, validate_default=True
    )

    broker: SecretStr = SecretStr(MEMORY)
    store: SecretStr = SecretStr(MEMORY)
    namespace: str = Field("callboard", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    queue_type: Literal["classic", "quorum"] = "classic"

    lease_seconds: float = Field(10.0, ge=0.5, le=3600)
    relay_grace_seconds: float = Field(1.0, ge=0.05, le=60)
    scan_interval: float = Field(1.0, ge=0.05, le=MAX_SCAN_SECONDS)
    confirm_timeout: float = Field(10.0, ge=0.1, le=120)
    reconcile_grace_seconds: float = Field(30.0, ge=0.5)
    overtaken_seconds: float = Field(60.0, ge=0.5)
    adoption_window_seconds: float = Field(600.0, ge=1)
    max_stalled: int = Field(2, ge=0, le=1000)
    unknown_task_grace: float = Field(600.0, ge=0)
    heartbeat: Literal["thread", "process"] = "thread"
    health_host: str = Field("127.0.0.1", min_length=1)
    health_port: int | None = Field(None, ge=1, le=65535)
    stuck_after_seconds: float = Field(30.0, ge=0.5, le=3600)

    tracing: bool = False
    metrics: Literal["off", "prometheus", "otlp", "both"] = "off"
    log_format: Literal["text", "json"] = "text"

    payload_limit: int = Field(1024 * 1024, ge=256, le=15 * 1024 * 1024)
    result_limit: int = Field(1024 * 1024, ge=2, le=15 * 1024 * 1024)
    intake_body_limit: int = Field(1024 * 1024, ge=256, le=16 * 1024 * 1024)
    intake_depth_limit: int = Field(64, ge=4, le=64)
    intake_value_limit: int = Field(10_000, ge=16, le=1_000_000)
    intake_string_limit: int = Field(256 * 1024, ge=16, le=16 * 1024 * 1024)
    intake_memory: int = Field(64 * 1024 * 1024, ge=1024 * 1024)
    intake_queue_limit: int = Field(1000, ge=1, le=100_000)
    intake_reply_prefixes: tuple[str, ...] = ()
    dead_letter_seconds: float | None = Field(14 * 24 * 3600.0, ge=1, le=366 * 24 * 3600)
    dead_letter_count: int | None = Field(100_000, ge=0)
    keep_completed_seconds: float | None = Field(3600.0, ge=0)
    keep_completed_count: int | None = Field(100_000, ge=0)
    keep_failed_seconds: float | None = Field(7 * 24 * 3600.0, ge=0)
    keep_failed_count: int | None = Field(100_000, ge=0)

    @field_validator("broker", "store")
    @classmethod
    def _has_scheme(cls, value: SecretStr) -> SecretStr:
        if "://" not in value.get_secret_value():
            raise ValueError("what was given is no URL (it has no '://'); an example: redis://localhost:6379/0")
        return value

    @field_validator("intake_reply_prefixes")
    @classmethod
    def _names_queues_of_others(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("an empty prefix would let a stranger publish to every queue")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = os.environ.get(SECRETS_DIR)
        if folder is not None and not os.path.isdir(folder):
            raise ConfigurationError(f"{SECRETS_DIR}={folder}: there is no such folder")
        secrets = SecretsSettingsSource(settings_cls, folder)
        return init_settings, env_settings, secrets, TomlConfigSettingsSource(settings_cls)

    @property
    def keep_completed(self) -> Retain:
        return Retain(age=self.keep_completed_seconds, count=self.keep_completed_count)

    @property
    def keep_failed(self) -> Retain:
        return Retain(age=self.keep_failed_seconds, count=self.keep_failed_count)

    @property
    def grace(self) -> int:
        """How long, in ms, whoever made a job ready has for publishing it before a relay does."""
        return round(self.relay_grace_seconds * 1000)


def load_settings(**given: Any) -> Settings:
    """Settings from all sources. Raises ConfigurationError that names each wrong setting and its value, or the source
    that cannot be read."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except TOMLDecodeError as error:
        raise ConfigurationError(f"callboard.toml is no TOML: {error}") from None
    except UnicodeDecodeError:  # the bytes may be a secret
        raise ConfigurationError(f"callboard.toml, or a file in {SECRETS_DIR}, is not UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"a file of settings cannot be read: {error}") from None
    except SettingsError as error:
        raise ConfigurationError(
            f"settings: {error}; a value of several parts is JSON, such as '[\"replies.\"]'"
        ) from None
    except ValidationError as error:
        lines = []
        for fault in error.errors(include_url=False, include_input=True):
            name = ".".join(str(part) for part in fault["loc"])
            value = "" if name in ("broker", "store") else f" (given: {fault['input']!r:.100})"
            lines.append(f"{name}: {fault['msg']}{value}")
        raise ConfigurationError("settings: " + "; ".join(lines)) from None
