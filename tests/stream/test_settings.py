"""Flags win over the environment, the environment over the file; mistakes name their cure."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream import main
from stream.cli.config import shown_settings
from stream.errors import ConfigError
from stream.settings import Settings, load_settings, masked_url
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine that runs the tests."""
    for name in list(os.environ):
        if name.startswith("EMOTRACK_"):
            monkeypatch.delenv(name)


def test_flags_win_over_the_environment_and_the_environment_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "emotrack.toml"
    file.write_text('group = "file"\nbatch_max = 7\nthreads = 2\n')
    monkeypatch.setenv("EMOTRACK_GROUP", "environment")
    monkeypatch.setenv("EMOTRACK_BATCH_MAX", "8")
    got = load_settings({"group": "flag", "threads": None}, file)
    assert (got.group, got.batch_max, got.threads) == ("flag", 8, 2)


def test_the_file_may_be_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "x.toml"
    file.write_text('topic_prefix = "other."\n')
    monkeypatch.setenv("EMOTRACK_CONFIG", str(file))
    assert load_settings().topics.utterances == "other.utterances"


@pytest.mark.parametrize("where", ["environment", "file"])
def test_an_unknown_key_names_the_nearest_one(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, nearest = None, "EMOTRACK_BATCH_MAX"
    if where == "environment":
        monkeypatch.setenv("EMOTRACK_BACH_MAX", "3")
    else:
        file, nearest = tmp_path / "x.toml", "batch_max"
        file.write_text("bach_max = 3\n")
    with pytest.raises(ConfigError, match=f"nearest one is {nearest}"):
        load_settings(file=file)


def test_where_no_key_is_near_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTRACK_XYZZY", "3")
    with pytest.raises(
        ConfigError, match="EMOTRACK_XYZZY is not a setting: `emotrack config show`"
    ):
        load_settings()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"batch_max": 0}, "EMOTRACK_BATCH_MAX: must be greater than or equal to 1.*it is 0"),
        ({"device": "tpu"}, "EMOTRACK_DEVICE: must be 'auto', 'cpu' or 'cuda'"),
        ({"low_water": 2_000}, "EMOTRACK_LOW_WATER must be less than EMOTRACK_HIGH_WATER"),
        ({"metrics_port": 70_000}, "EMOTRACK_METRICS_PORT"),
        ({"redis_url": "redis://[::1"}, "EMOTRACK_REDIS_URL: must read redis://HOST:PORT/DB"),
        ({"redis_url": "rediss://h?ssl_cert_reqs=none"}, "EMOTRACK_REDIS_URL: has .ssl_cert_reqs"),
        (
            {"redis_url": "redis+sentinel://h/s", "redis_cluster": True},
            "EMOTRACK_REDIS_CLUSTER needs .* sentinels know no cluster",
        ),
        ({"idle_s": float("inf")}, "EMOTRACK_IDLE_S"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_may_be(
    flags: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load_settings(flags)


@pytest.mark.parametrize("text", ["not toml", "[half"])
def test_a_file_that_is_not_toml_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.toml is not TOML"):
        load_settings(file=file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        load_settings(file=tmp_path / "none.toml")


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTRACK_KAFKA_OPTIONS", '{"ssl.keystore.password": "hunter2"}')
    got = load_settings({"redis_url": "redis://user:hunter2@db:6379/1"})
    assert "hunter2" not in repr(got)
    assert masked_url(got.redis_url) == "redis://user:***@db:6379/1"
    sentinels = "redis+sentinel://user:hunter2@one:1,two:2/tracker/1"
    assert masked_url(sentinels) == "redis+sentinel://user:***@one:1,two:2/tracker/1"
    monkeypatch.setenv("EMOTRACK_KAFKA_OPTIONS", '["hunter2"]')
    with pytest.raises(ConfigError) as met:
        load_settings()
    assert "hunter2" not in str(met.value)


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    monkeypatch.setenv("EMOTRACK_REDIS_PASSWORD_FILE", str(tmp_path / "secret"))
    got = load_settings()
    assert got.redis_password == "hunter2"
    assert "hunter2" not in repr(got)


SASL = {"kafka_security": "sasl_ssl", "kafka_username": "u", "kafka_password": "hunter2"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {**SASL, "kafka_password": None},
            r"needs EMOTRACK_KAFKA_USERNAME and EMOTRACK_KAFKA_PASSWORD\[_FILE\]",
        ),
        ({**SASL, "kafka_security": "ssl"}, "need EMOTRACK_KAFKA_SECURITY sasl_ssl"),
        ({"kafka_ca_file": "ca.pem"}, "need EMOTRACK_KAFKA_SECURITY ssl or sasl_ssl"),
        (
            {**SASL, "kafka_cert_file": "c.pem"},
            "EMOTRACK_KAFKA_CERT_FILE and EMOTRACK_KAFKA_KEY_FILE go together",
        ),
        ({**SASL, "kafka_password_file": "none.txt"}, "are both given: leave one out"),
        ({"kafka_password_file": "none.txt"}, "none.txt cannot be read"),
        ({"redis_ca_file": "ca.pem"}, "need EMOTRACK_REDIS_URL rediss://"),
        (
            {"redis_url": "redis://u:hunter2@h", "redis_password": "hunter2"},
            "EMOTRACK_REDIS_PASSWORD and the password in EMOTRACK_REDIS_URL",
        ),
        (
            {"redis_url": "redis://u@h", "redis_username": "u"},
            "EMOTRACK_REDIS_USERNAME and the user in",
        ),
        (
            {"redis_url": "redis+sentinel://:hunter2@h/s", "redis_password": "hunter2"},
            "EMOTRACK_REDIS_PASSWORD and the password in EMOTRACK_REDIS_URL",
        ),
        (
            {"redis_sentinel_password": "hunter2"},
            r"EMOTRACK_REDIS_SENTINEL_PASSWORD need EMOTRACK_REDIS_URL redis\+sentinel://",
        ),
        ({"kafka_options": {"sasl.password": "hunter2"}}, "use EMOTRACK_KAFKA_PASSWORD"),
        ({"model_digest": "a5c5"}, "EMOTRACK_MODEL_DIGEST"),
    ],
)
def test_security_settings_that_do_not_go_together_are_one_sentence(
    flags: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as met:
        load_settings(flags)
    assert "hunter2" not in str(met.value)
    assert "\n" not in str(met.value)


def test_each_value_is_shown_with_its_origin_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("hunter2")
    file = tmp_path / "emotrack.toml"
    file.write_text(f'group = "file"\nthreads = 2\nredis_password_file = "{tmp_path}/secret"\n')
    monkeypatch.setenv("EMOTRACK_THREADS", "3")
    monkeypatch.setenv("EMOTRACK_KAFKA_OPTIONS", '{"ssl.keystore.password": "hunter2"}')
    monkeypatch.setenv("EMOTRACK_REDIS_URL", "redis://h/?password=hunter2")
    shown = {one.name: one for one in shown_settings({"bootstrap": "b:1"}, file)}
    assert list(shown) == list(Settings.model_fields)
    said = {name: (one.value, one.origin, one.source) for name, one in shown.items()}
    assert said["bootstrap"] == ("b:1", "flag", "--bootstrap")
    assert said["threads"] == ("3", "environment", "EMOTRACK_THREADS")
    assert said["group"] == ("file", "file", str(file))
    assert said["redis_password"] == ("***", "file", str(file))
    assert said["window"] == ("-", "default", "")
    assert said["kafka_options"][0] == "ssl.keystore.password=***"
    assert said["redis_url"][0] == "redis://h/?***"
    assert "hunter2" not in repr(shown)


@pytest.mark.parametrize(
    ("told", "setting", "says"),
    [
        ({"group_protocol": "consumer"}, "session_timeout_ms", "not used with group_protocol"),
        ({}, "session_timeout_ms", "the most that is accepted"),
        ({"group_protocol": "classic"}, "session_timeout_ms", ""),
        ({"runtime": "faust"}, "group_protocol", "not used by runtime faust"),
        ({"runtime": "faust"}, "kafka_options", "not used by runtime faust"),
        ({"runtime": "faust"}, "session_timeout_ms", ""),
        ({"mock_broker": True}, "group_protocol", "not used on a mock cluster"),
    ],
)
def test_a_setting_that_does_not_apply_is_shown_so(
    told: dict[str, str], setting: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(f"EMOTRACK_{name.upper()}", str(value))
    (note,) = [one.note for one in shown_settings({}) if one.name == setting]
    assert says in note and bool(says) == bool(note)
    (line,) = [
        line
        for line in CliRunner().invoke(main.app, ["config", "show"]).output.splitlines()
        if line.startswith(f"{setting} = ")
    ]
    assert says in line


@pytest.mark.parametrize("option", ["group.id", "group.protocol", "session.timeout.ms"])
def test_an_option_that_has_a_setting_is_refused_by_its_name(option: str) -> None:
    """Else what `doctor` says of the group would not be what the worker does."""
    with pytest.raises(
        ConfigError, match=f"{option} has a setting .* use EMOTRACK_(GROUP|SESSION)"
    ):
        load_settings({"kafka_options": {option: "1"}})


def test_an_empty_secret_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="empty is empty"):
        load_settings({"redis_password_file": tmp_path / "empty"})


def test_the_page_names_only_settings_that_exist() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    (table,) = re.findall(r"^\| setting \|.*?\n\n", page, re.M | re.S)
    named = re.findall(r"`([A-Z][A-Z_]+)`", table)
    assert len(named) > 15
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_settings_never_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(Settings(), "group", "x")  # noqa: B010 -- a checker would refuse the assignment


def test_kafka_options_that_are_no_json_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTRACK_KAFKA_OPTIONS", "notjson")
    with pytest.raises(ConfigError, match="EMOTRACK_KAFKA_OPTIONS must be a JSON object"):
        load_settings()
