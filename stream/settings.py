"""All settings of emotrack, read once at start: flags, else `EMOTRACK_*`, else a TOML file.

One frozen model; no other module reads the environment. An unknown key is an error that names the
nearest one. Secrets (fields with `repr=False`) are never printed; each but `kafka_options` may be
given as a file instead, by `<name>_file`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from state.redis_address import read_address
from stream.errors import ConfigError
from stream.events.messages import DEFAULT_PREFIX, TopicNames
from stream.security import SETTING_OF_OPTION, KafkaSecurity, Mechanism, Protocol

PREFIX: Final = "EMOTRACK_"
YEAR_S: Final = 31_536_000.0
# Not settings of the tracker: where to find the settings file, and the tests' data folder.
OTHER_VARIABLES: Final = frozenset({"EMOTRACK_CONFIG", "EMOTRACK_DATA", "EMOTRACK_FAULT"})
# librdkafka's names of settings that more than its consumer obeys.
GROUP_OPTIONS: Final = {
    "group.id": "group",
    "group.protocol": "group_protocol",
    "session.timeout.ms": "session_timeout_ms",
}
_SHOULD: Final = re.compile(r"^(?:Input|String) should")  # pydantic's first words
_WORDS: Final = re.compile(r"\b([a-z]+(?:_[a-z]+)+)\b(?:\[_file\])?")


class Settings(BaseSettings):
    """All settings. The defaults work with a Kafka and a Redis started by hand on this machine."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    # Kafka
    bootstrap: str = Field(default="127.0.0.1:9092", description="brokers, host:port[,host:port]")
    group: str = Field(
        default="emotrack", min_length=1, description="consumer group of the workers"
    )
    topic_prefix: str = Field(default=DEFAULT_PREFIX, description="prefix of the four topics")
    group_protocol: Literal["auto", "consumer", "classic"] = Field(
        default="auto",
        description="consumer: KIP-848 (Kafka >= 4), whose session is the broker's; classic: "
        "cooperative-sticky; auto: the first where its session is at most session_timeout_ms",
    )
    mock_broker: bool = Field(default=False, description="librdkafka's mock cluster: no admin API")
    allow_create_time: bool = Field(default=False, description="accept a topic without broker time")
    delivery: Literal["at-least-once", "transactional"] = Field(
        default="at-least-once",
        description="transactional: a read_committed reader sees each answer once",
    )
    runtime: Literal["native", "faust"] = Field(
        default="native", description="faust: a Faust app reads the topic (extra faust)"
    )
    kafka_options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="librdkafka options of the worker, as JSON"
    )
    kafka_security: Protocol = Field(
        default="plaintext", description="plaintext, ssl, sasl_plaintext or sasl_ssl"
    )
    kafka_sasl_mechanism: Mechanism = "SCRAM-SHA-512"
    kafka_username: str | None = Field(default=None, min_length=1, description="SASL user")
    kafka_password: str | None = Field(default=None, repr=False, description="of the SASL user")
    kafka_password_file: Path | None = Field(default=None, description="file that holds it")
    kafka_ca_file: Path | None = Field(
        default=None, description="authorities to trust, PEM; none: the system's"
    )
    kafka_cert_file: Path | None = Field(default=None, description="our certificate, PEM")
    kafka_key_file: Path | None = Field(default=None, description="its key, PEM")
    kafka_key_password: str | None = Field(default=None, repr=False, description="of the key")
    kafka_key_password_file: Path | None = Field(default=None, description="file that holds it")
    session_timeout_ms: int = Field(
        default=10_000,
        gt=0,
        description="how long a silent worker is waited for; not with group_protocol consumer",
    )
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
        default="redis://127.0.0.1:6379/0",
        repr=False,
        description="redis[s]://…, redis[s]+sentinel://… or memory://",
    )
    redis_cluster: bool = Field(
        default=False, description="redis_url names one node of a Redis Cluster"
    )
    redis_url_file: Path | None = Field(default=None, description="file that holds it")
    redis_username: str | None = Field(default=None, min_length=1, description="ACL user")
    redis_password: str | None = Field(default=None, repr=False, description="of the user")
    redis_password_file: Path | None = Field(default=None, description="file that holds it")
    redis_sentinel_username: str | None = Field(
        default=None, min_length=1, description="ACL user of the sentinels themselves"
    )
    redis_sentinel_password: str | None = Field(
        default=None, repr=False, description="of that user"
    )
    redis_sentinel_password_file: Path | None = Field(
        default=None, description="file that holds it"
    )
    redis_ca_file: Path | None = Field(
        default=None, description="authorities to trust for rediss://, PEM; none: the system's"
    )
    redis_cert_file: Path | None = Field(default=None, description="our certificate, PEM")
    redis_key_file: Path | None = Field(default=None, description="its key, PEM")
    cache_conversations: int = Field(
        default=20_000, ge=1, description="windows kept by their owner"
    )

    # Model
    model: Path | None = Field(
        default=None, description="checkpoint folder, or a model's name; none: PCGNet"
    )
    model_digest: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="the only checkpoint to serve, by its `digest` file; none: any",
    )
    encoder: Path | None = Field(
        default=None, description="sentence encoder folder; none: the installed"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(
        default=1, ge=1, description="threads of the model's CPU work: at most its whole cores"
    )
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
    start_wait_s: float = Field(
        default=0.0, ge=0, description="how long a start waits for a Kafka or Redis that is away"
    )

    # What goes out
    output_format: Literal["json", "msgpack"] = "json"
    source: str = Field(default="/emotrack", description="`ce_source` of what the worker writes")

    # What is watched
    metrics_host: str = Field(default="127.0.0.1", description="where /metrics … listen")
    metrics_port: int = Field(default=9464, ge=0, le=65_535, description="0: any free port")
    trace_endpoint: str | None = Field(
        default=None, description="OTLP over HTTP, e.g. http://127.0.0.1:4318; none: no tracing"
    )
    trace_conversation_ids: bool = Field(
        default=False, description="name conversations in traces; else only a hash"
    )
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("redis_url")
    @classmethod
    def _url_can_be_read(cls, url: str) -> str:
        if not url.startswith("memory://"):
            read_address(url)
        return url

    @field_validator("trace_endpoint")
    @classmethod
    def _endpoint_is_http(cls, url: str | None) -> str | None:
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or "@" in url):
            raise ValueError("must read http://HOST:4318 or https://…, without a password")
        return url

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Add the secrets that `options` names files for."""
        secrets: dict[str, str] = {}
        for name in SECRETS:
            path = options.get(f"{name}_file")
            if path is None:
                continue
            if options.get(name) is not None:
                raise ValueError(f"{name} and {name}_file are both given: leave one out")
            try:
                secrets[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
                raise ValueError(f"{name}_file: {path} cannot be read ({reason})") from None
            if not secrets[name]:
                raise ValueError(f"{name}_file: {path} is empty")
        return options | secrets

    @field_validator("kafka_options")
    @classmethod
    def _options_have_no_setting(cls, options: dict[str, str]) -> dict[str, str]:
        for option in options:
            if setting := (SETTING_OF_OPTION | GROUP_OPTIONS).get(option):
                raise ValueError(
                    f"{option} has a setting that every client of ours obeys: use "
                    f"{PREFIX}{setting.upper()}"
                )
        return options

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        if fault := conflict_of(self):
            raise ValueError(fault)
        return self

    @property
    def topics(self) -> TopicNames:
        """The four topics."""
        return TopicNames(self.topic_prefix)

    @property
    def security(self) -> KafkaSecurity:
        """The credentials of all our Kafka clients."""
        return KafkaSecurity(
            protocol=self.kafka_security,
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_username,
            password=self.kafka_password,
            ca_file=self.kafka_ca_file,
            cert_file=self.kafka_cert_file,
            key_file=self.kafka_key_file,
            key_password=self.kafka_key_password,
        )

    @property
    def in_memory(self) -> bool:
        """True when states are stored in this process only."""
        return self.redis_url.startswith("memory:")


def masked_url(url: str) -> str:
    """Return an address with its password, and any query, hidden."""
    parts = urlsplit(url)
    if parts.query:
        parts = parts._replace(query="***")
    if parts.password is not None:
        host = parts.netloc.rpartition("@")[2]
        parts = parts._replace(netloc=f"{parts.username or ''}:***@{host}")
    return parts.geturl()


SECRETS: Final = tuple(name for name, field in Settings.model_fields.items() if not field.repr)


def conflict_of(s: Settings) -> str | None:
    """Return why settings conflict with each other; None where they do not."""
    kafka, redis = s.security, urlsplit(s.redis_url)
    if kafka.sasl and (kafka.username is None or kafka.password is None):
        return f"kafka_security {kafka.protocol} needs kafka_username and kafka_password[_file]"
    if not kafka.sasl and (kafka.username or kafka.password):
        return "kafka_username and kafka_password need kafka_security sasl_ssl or sasl_plaintext"
    if not kafka.tls and (kafka.ca_file or kafka.cert_file or kafka.key_file):
        return (
            "kafka_ca_file, kafka_cert_file and kafka_key_file need kafka_security ssl or sasl_ssl"
        )
    if s.redis_password is not None and redis.password is not None:
        return "redis_password and the password in redis_url are both given: leave one out"
    if s.redis_username is not None and redis.username:
        return "redis_username and the user in redis_url are both given: leave one out"
    files = s.redis_ca_file or s.redis_cert_file or s.redis_key_file
    if files and not redis.scheme.startswith("rediss"):
        return "redis_ca_file, redis_cert_file and redis_key_file need redis_url rediss://…"
    sentinels = redis.scheme.endswith("+sentinel")
    if (s.redis_sentinel_username or s.redis_sentinel_password) and not sentinels:
        return (
            "redis_sentinel_username and redis_sentinel_password need redis_url redis+sentinel://…"
        )
    if s.redis_cluster and sentinels:
        return "redis_cluster needs a redis_url of a cluster's node: sentinels know no cluster"
    if s.redis_cluster and redis.scheme == "memory":
        return "redis_cluster needs a redis_url of a cluster's node, not memory://"
    for side in ("kafka", "redis"):
        if (getattr(s, f"{side}_cert_file") is None) != (getattr(s, f"{side}_key_file") is None):
            return f"{side}_cert_file and {side}_key_file go together: give both"
    if s.delivery == "transactional" and (s.runtime == "faust" or s.mock_broker):
        return "delivery transactional needs runtime native and a real broker"
    if s.low_water >= s.high_water:
        return "low_water must be less than high_water"
    return None


def load_settings(flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Read the settings: `flags` win over `EMOTRACK_*`, those over the TOML `file`.

    A flag of None is absent. Without `file`, the one that `EMOTRACK_CONFIG` names is read.
    Raises `ConfigError` naming the key and, where a key is unknown, the nearest known one.
    """
    _, from_file = settings_file(file)
    for name in os.environ:
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES:
            require_known(name.removeprefix(PREFIX).lower(), where=name)
    in_environment = {n.lower() for n, value in os.environ.items() if value}
    below = {k: v for k, v in from_file.items() if f"{PREFIX}{k}".lower() not in in_environment}
    above = {k: v for k, v in (flags or {}).items() if v is not None}
    try:
        return Settings(**{**below, **above})
    except SettingsError as error:
        raise ConfigError(f"{error}: EMOTRACK_KAFKA_OPTIONS must be a JSON object") from None
    except ValidationError as error:
        raise ConfigError("; ".join(explain(error))) from None


def settings_file(file: Path | None) -> tuple[Path | None, dict[str, Any]]:
    """Return the TOML file, `file` or the one that `EMOTRACK_CONFIG` names, and its settings.

    Raises `ConfigError`.
    """
    named = os.environ.get("EMOTRACK_CONFIG")
    path = file or (Path(named) if named else None)
    if path is None:
        return None, {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from None
    for key in settings:
        require_known(key, where=f"{path}: {key}")
    return path, settings


def explain(error: ValidationError) -> list[str]:
    """Return one sentence per value that cannot be used; never the value of a secret.

    A setting of several words is named as in the environment.
    """
    sentences: list[str] = []
    for fault in error.errors(include_url=False, include_context=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        reason = str(fault["msg"]).removeprefix("Value error, ")
        reason = _WORDS.sub(
            lambda word: PREFIX + word[0].upper() if word[1] in Settings.model_fields else word[0],
            _SHOULD.sub("must", reason),
        )
        field = Settings.model_fields.get(name)
        secret = field is None or not field.repr or "@" in str(fault["input"])  # user:password@host
        shown = "" if secret else f" (it is {fault['input']!r})"
        sentences.append(f"{PREFIX}{name.upper()}: {reason}{shown}" if name else reason)
    return sentences


def require_known(key: str, *, where: str) -> None:
    """Raise `ConfigError` for a key that is no setting, naming the nearest one."""
    if key in Settings.model_fields:
        return
    near = difflib.get_close_matches(key, Settings.model_fields, n=1)
    name = (f"{PREFIX}{near[0].upper()}" if where.startswith(PREFIX) else near[0]) if near else ""
    nearest = f"; the nearest one is {name}" if near else ""
    raise ConfigError(f"{where} is not a setting{nearest}: `emotrack config show` lists them all")
