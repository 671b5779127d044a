"""All settings of emotrack, read once at start: flags, else `EMOTRACK_*`, else a TOML file.

One frozen model; no other module reads the environment. An unknown key is an error that names the
nearest one. Secrets (`redis_url`, `kafka_options`) are never printed.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from stream.errors import ConfigError

PREFIX: Final = "EMOTRACK_"
YEAR_S: Final = 31_536_000.0
# Not settings of the tracker: where to find the settings file, and the tests' data folder.
OTHER_VARIABLES: Final = frozenset({"EMOTRACK_CONFIG", "EMOTRACK_DATA"})


class Settings(BaseSettings):
    """Defaults work against a Kafka and a Redis started by hand on this machine."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    # Kafka
    bootstrap: str = Field(default="127.0.0.1:9092", description="brokers, host:port[,host:port]")
    group: str = Field(
        default="emotrack", min_length=1, description="consumer group of the workers"
    )
    topic_prefix: str = Field(default="emotrack.", description="prefix of the four topics")
    group_protocol: Literal["auto", "consumer", "classic"] = Field(
        default="auto",
        description="consumer: KIP-848 (Apache Kafka >= 4); classic: cooperative-sticky",
    )
    mock_broker: bool = Field(default=False, description="librdkafka's mock cluster: no admin API")
    allow_create_time: bool = Field(default=False, description="accept a topic without broker time")
    kafka_options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="librdkafka options of the worker, as JSON"
    )
    session_timeout_ms: int = Field(default=10_000, gt=0, description="classic groups only")
    max_poll_interval_ms: int = Field(
        default=300_000, gt=0, description="longest step before expulsion"
    )
    fetch_max_wait_ms: int = Field(
        default=500, ge=0, description="how long a broker may hold a fetch"
    )
    delivery_timeout_ms: int = Field(
        default=30_000, gt=0, description="when an output is sent again"
    )

    # State
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", repr=False, description="redis[s]://… or memory://"
    )
    cache_conversations: int = Field(
        default=20_000, ge=1, description="windows kept by their owner"
    )

    # Model
    model: Path | None = Field(default=None, description="checkpoint folder; none: the shipped one")
    encoder: Path | None = Field(
        default=None, description="sentence encoder folder; none: the installed"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1, description="threads of the model's CPU work")
    window: int | None = Field(
        default=None, ge=1, description="utterances seen; none: the checkpoint's"
    )
    idle_s: float | None = Field(
        default=None, gt=0, le=YEAR_S, description="silence that ends a session"
    )
    max_session_s: float | None = Field(
        default=None, gt=0, le=YEAR_S, description="longest session"
    )

    # Flow
    batch_max: int = Field(default=64, ge=1, description="utterances answered together")
    batch_deadline_ms: float = Field(
        default=0.0, ge=0, description="wait for a fuller batch; 0: a batch is what is there"
    )
    max_uncommitted: int = Field(
        default=512, ge=1, description="bound of what a kill repeats, partition"
    )
    high_water: int = Field(default=2_000, ge=1, description="queued records that pause reading")
    low_water: int = Field(default=500, ge=0, description="queued records that resume it")
    commit_interval_ms: float = Field(
        default=500.0, ge=0, description="longest time between commits"
    )
    retry_ms: float = Field(
        default=500.0, gt=0, description="wait between tries of a store that is away"
    )
    drain_budget_s: float = Field(default=20.0, gt=0, description="time to finish after SIGTERM")

    # What goes out
    output_format: Literal["json", "msgpack"] = "json"
    source: str = Field(default="/emotrack", description="`ce_source` of what the worker writes")

    # What is watched
    metrics_host: str = Field(default="127.0.0.1", description="where /metrics … listen")
    metrics_port: int = Field(default=9464, ge=0, le=65_535, description="0: any free port")
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("redis_url")
    @classmethod
    def _url_can_be_read(cls, url: str) -> str:
        try:
            urlsplit(url).port  # noqa: B018 (reading it is the check)
        except ValueError:
            raise ValueError("must read redis://HOST:PORT/DB, rediss://… or memory://") from None
        return url

    @model_validator(mode="after")
    def _water_marks_in_order(self) -> Self:
        if self.low_water >= self.high_water:
            raise ValueError("low_water must be less than high_water")
        return self

    @property
    def utterances(self) -> str:
        return f"{self.topic_prefix}utterances"

    @property
    def predictions(self) -> str:
        return f"{self.topic_prefix}predictions"

    @property
    def shift_alerts(self) -> str:
        return f"{self.topic_prefix}shift-alerts"

    @property
    def dead_letters(self) -> str:
        return f"{self.topic_prefix}dead-letters"

    @property
    def in_memory(self) -> bool:
        """Whether conversations are kept in this process only."""
        return self.redis_url.startswith("memory:")

    @property
    def masked_redis_url(self) -> str:
        """The store's address without its password."""
        parts = urlsplit(self.redis_url)
        if parts.password is None:
            return self.redis_url
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{parts.username or ''}:***@{host}").geturl()


def load_settings(flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Read the settings: `flags` win over `EMOTRACK_*`, those over the TOML `file`.

    A flag that is None was not given. Without `file`, the one `EMOTRACK_CONFIG` names is read.
    Raises `ConfigError` naming the key and, where a key is unknown, the nearest known one.
    """
    named = os.environ.get("EMOTRACK_CONFIG")
    path = file or (Path(named) if named else None)
    from_file = read_file(path) if path else {}
    for name in os.environ:
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES:
            known(name.removeprefix(PREFIX).lower(), where=name)
    in_environment = {n.lower() for n, value in os.environ.items() if value}
    below = {k: v for k, v in from_file.items() if f"{PREFIX}{k}".lower() not in in_environment}
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    try:
        return Settings(**{**below, **given})
    except SettingsError as error:
        raise ConfigError(f"{error}: EMOTRACK_KAFKA_OPTIONS must be a JSON object") from None
    except ValidationError as error:
        raise ConfigError("; ".join(explain(error))) from None


def explain(error: ValidationError) -> list[str]:
    """One sentence per value that cannot be used; never the value of a secret."""
    sentences: list[str] = []
    for fault in error.errors(include_url=False, include_context=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        reason = str(fault["msg"]).removeprefix("Value error, ")
        field = Settings.model_fields.get(name)
        shown = f" (it is {fault['input']!r})" if field is not None and field.repr else ""
        sentences.append(f"{name}: {reason}{shown}" if name else reason)
    return sentences


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file. Raises `ConfigError`."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from None
    for key in found:
        known(key, where=f"{path}: {key}")
    return found


def known(key: str, *, where: str) -> None:
    """Raise `ConfigError` for a key that is no setting, naming the nearest one."""
    if key in Settings.model_fields:
        return
    near = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.0)
    raise ConfigError(f"{where} is not a setting; the nearest one is {near[0]}")
