"""The chart's settings are those of the worker: typed, whole numbers, no password in clear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy import chart_schema
from stream.security import SETTING_OF_OPTION
from stream.settings import SECRETS, Settings
from tests.deploy.chart import (
    EXAMPLES,
    FULL,
    SECURED,
    SMALL,
    container,
    environment,
    plain_settings,
    render,
    run,
)

SCHEMA = json.loads(chart_schema.SCHEMA.read_text("utf-8"))
LARGE = 1_234_567
MILLION = 1_000_000
OURS = chart_schema.OWN_VALUE


def values_of(tmp_path: Path, **values: Any) -> Path:
    """A values file: the least that must be said, and this."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(SMALL.read_text()) | values))
    return file


def refused(tmp_path: Path, **values: Any) -> str:
    """The complaint of `helm template` and of `helm lint`, each refusing."""
    linted = run("lint", values_of(tmp_path, **values))
    assert linted.returncode != 0, "lint lets it pass"
    assert "hunter2" not in linted.stdout + linted.stderr
    return refused_when_rendered(tmp_path, **values)


def refused_when_rendered(tmp_path: Path, **values: Any) -> str:
    """The complaint of `helm template`: lint does not carry out what a template refuses."""
    rendered = run("template", values_of(tmp_path, **values))
    assert rendered.returncode != 0 and not rendered.stdout
    assert "hunter2" not in rendered.stderr
    return rendered.stderr


def test_the_schema_is_that_of_the_settings_of_this_version() -> None:
    """`python -m deploy.chart_schema` writes it."""
    assert chart_schema.document(SCHEMA) == SCHEMA
    written = json.dumps(SCHEMA, indent=2, ensure_ascii=False) + "\n"
    assert chart_schema.SCHEMA.read_text("utf-8") == written
    for place in ("settings", "secretSettings"):
        assert SCHEMA["properties"][place]["properties"].keys() == Settings.model_fields.keys()


def fitting(name: str) -> list[Any]:
    """Values of a setting as a values file gives them, one as a number and one as text."""
    field = Settings.model_json_schema()["properties"][name]
    if "anyOf" in field:
        field = field["anyOf"][0]
    if "enum" in field:
        return [field["enum"][-1]]
    texts = {"model_digest": "a" * 64, "trace_endpoint": "http://collector:4318"}
    kinds: dict[str, list[Any]] = {
        "boolean": [True, "false"],
        "integer": [LARGE, str(LARGE)],
        "number": [LARGE, 1.5, "0.25"],
        "string": [texts.get(name, "/some/where")],
        "object": [{"queued.min.messages": "1000"}, '{"queued.min.messages": "1000"}'],
    }
    return kinds[field["type"]]


def test_every_setting_takes_what_the_worker_takes() -> None:
    schema = SCHEMA["properties"]["settings"]["properties"]
    for name in Settings.model_fields.keys() - set(SECRETS) - set(OURS):
        for value in fitting(name):
            jsonschema.validate(value, schema[name])


def test_what_worked_in_quotes_or_empty_works_on(tmp_path: Path) -> None:
    given = {"batch_max": "32", "commit_interval_ms": "250.5", "trace_endpoint": "", "model": ""}
    found = plain_settings(render(values_of(tmp_path, settings=given)))
    assert {name: found[name] for name in given} == given


def test_numbers_of_a_million_stay_whole_in_the_environment(tmp_path: Path) -> None:
    """Helm reads every number as a float, and 1000000 came out as 1e+06."""
    properties = Settings.model_json_schema()["properties"]
    whole = {
        name: LARGE
        for name, field in properties.items()
        if name not in OURS
        and {"integer", "number"} & {k.get("type") for k in (field, *field.get("anyOf", ()))}
    }
    whole |= {"high_water": 3 * MILLION, "low_water": 2 * MILLION, "max_poll_interval_ms": MILLION}
    fractions = {"retry_ms": 1_234_567.25, "commit_interval_ms": 0.5}
    objects = render(
        values_of(
            tmp_path,
            settings=whole | fractions,
            shutdown={
                "preStopSeconds": MILLION,
                "drainSeconds": MILLION,
                "graceSeconds": 9 * MILLION,
            },
            startWaitSeconds=MILLION,
        )
    )
    found = plain_settings(objects)
    assert len(whole) >= 15
    assert {name: found[name] for name in whole} == {
        name: str(value) for name, value in (whole | fractions).items() if name in whole
    }
    assert found["retry_ms"] == "1234567.25"
    assert (found["drain_budget_s"], found["start_wait_s"]) == ("1000000", "1000000")
    loaded = Settings(**found)  # type: ignore[arg-type]
    assert (loaded.cache_conversations, loaded.max_poll_interval_ms) == (LARGE, MILLION)


def largest(schema: dict[str, Any]) -> Any:
    """Values that give every whole number of the chart as a million, where that is allowed."""
    found = {}
    for name, field in schema["properties"].items():
        if field.get("type") == "integer" and "maximum" not in field:
            found[name] = MILLION
        elif "properties" in field and name not in ("settings", "secretSettings"):
            found |= {name: below} if (below := largest(field)) else {}
    return found


@pytest.mark.parametrize("by", ["", "lag", "cpu", "lag-and-cpu"])
def test_every_other_number_of_the_chart_stays_whole_too(tmp_path: Path, by: str) -> None:
    values = largest(SCHEMA)
    assert {"replicas", "partitions", "shutdown", "autoscaling", "gpu"} <= values.keys()
    values["autoscaling"] |= {"enabled": True, "by": by} if by else {"enabled": False}
    values["shutdown"]["graceSeconds"] = 3 * MILLION
    values["gpu"]["enabled"] = True
    values["monitoring"] |= {"podMonitor": True}
    values["strategy"] = {"maxSurge": MILLION, "maxUnavailable": MILLION}
    values["podDisruptionBudget"] = {"maxUnavailable": MILLION}
    rendered = run("template", values_of(tmp_path, **values))
    assert rendered.returncode == 0, rendered.stderr
    assert "e+0" not in rendered.stdout and rendered.stdout.count("1000000") >= 8


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_maxx": 3}, ["batch_maxx"]),
        ({"batch_max": "many"}, ["/settings/batch_max"]),
        ({"batch_max": 0}, ["/settings/batch_max"]),
        ({"batch_max": 1.5}, ["/settings/batch_max"]),
        ({"redis_cluster": "perhaps"}, ["/settings/redis_cluster"]),
        ({"log_level": "loud"}, ["/settings/log_level", "warning"]),
        ({"model_digest": "12"}, ["/settings/model_digest"]),
        ({"trace_endpoint": "collector:4318"}, ["/settings/trace_endpoint"]),
        ({"kafka_options": {"queued.min.messages": 1}}, ["/settings/kafka_options"]),
        ({"kafka_options": {"ssl.keystore.password": "hunter2"}}, ["ssl.keystore.password"]),
        ({"kafka_options": '{"ssl.keystore.password": "hunter2"}'}, ["/settings/kafka_options"]),
        ({"kafka_options": '{"sasl.mechanism": "PLAIN"}'}, ["/settings/kafka_options"]),
    ],
)
def test_a_typo_or_a_wrong_type_is_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], named: list[str]
) -> None:
    said = refused(tmp_path, settings=settings)
    assert all(name in said for name in named), said


@pytest.mark.parametrize("name", sorted(set(SECRETS) - {"kafka_options"}))
def test_a_password_in_clear_is_refused_with_the_way_to_give_it(tmp_path: Path, name: str) -> None:
    said = refused(tmp_path, settings={name: "hunter2"})
    assert f"/settings/{name}" in said
    assert ("redis.secretName" if name == "redis_url" else f"secretSettings.{name}") in said


@pytest.mark.parametrize("option", sorted(SETTING_OF_OPTION))
def test_an_option_that_has_a_setting_is_refused_as_the_worker_would(
    tmp_path: Path, option: str
) -> None:
    said = refused(tmp_path, settings={"kafka_options": {option: "x"}})
    assert f"it is settings.{SETTING_OF_OPTION[option]}" in said


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_setting_that_has_a_value_of_its_own_is_refused_with_that_value(
    tmp_path: Path, name: str
) -> None:
    secret = {name: {"name": "a-secret", "key": "k"}}
    for values in ({"settings": {name: "1"}}, {"secretSettings": secret}):
        (place,) = values
        said = refused(tmp_path, **values)
        assert f"/{place}/{name}" in said and f"it is set by {OURS[name]}" in said


def test_a_secret_for_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    secret = {"kafka_passwort": {"name": "kafka-login", "key": "password"}}
    assert "kafka_passwort" in refused(tmp_path, secretSettings=secret)
    both = {"kafka_username": {"name": "kafka-login", "key": "user"}}
    given = {"kafka_username": "worker"}
    said = refused_when_rendered(tmp_path, secretSettings=both, settings=given)
    assert "leave one out" in said


@pytest.mark.parametrize(
    ("settings", "extra"),
    [({"trace_endpoint": "http://collector:4318"}, "otel"), ({"runtime": "faust"}, "faust")],
)
def test_what_the_image_lacks_is_refused_until_the_image_is_said_to_have_it(
    tmp_path: Path, settings: dict[str, str], extra: str
) -> None:
    said = refused_when_rendered(tmp_path, settings=settings)
    assert f"make image EXTRAS={extra}" in said and f"image.extras: [{extra}]" in said
    rendered = render(values_of(tmp_path, settings=settings, image={"extras": [extra]}))
    assert settings.items() <= plain_settings(rendered).items()
    (name,) = settings
    secret = {name: {"name": "a-secret", "key": "k"}}
    assert "image.extras" in refused_when_rendered(tmp_path, secretSettings=secret)
    assert "/image/extras" in refused(tmp_path, image={"extras": ["gpu"]})


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda p: p.stem)
def test_the_worker_loads_the_environment_of_every_example(values: Path) -> None:
    assert settings_of(values).bootstrap.startswith("kafka")


def settings_of(values: Path) -> Settings:
    """The settings that the rendered environment makes, its Secrets filled in."""
    secrets = {"url": "redis://redis/0", "address": "redis://redis/0", "password": "hunter2"}
    if values == SECURED:
        secrets["url"] = "rediss://redis:6380/0"
    objects = render(values)
    refs = {
        n: e["valueFrom"]["secretKeyRef"]
        for n, e in environment(objects).items()
        if "valueFrom" in e
    }
    filled = {n.removeprefix("EMOTRACK_").lower(): secrets[r["key"]] for n, r in refs.items()}
    return Settings(**plain_settings(objects), **filled)  # type: ignore[arg-type]


def test_the_secured_example_is_sasl_over_tls_and_redis_over_tls_with_mounted_authorities() -> None:
    settings, mounts = settings_of(SECURED), container(render(SECURED))["volumeMounts"]
    assert settings.security.sasl and settings.security.tls and settings.kafka_options == {}
    assert (settings.kafka_username, settings.kafka_password) == ("worker", "hunter2")
    assert (settings.redis_username, settings.redis_password) == ("emotrack", "hunter2")
    assert settings.redis_url.startswith("rediss://")
    folders = [Path(mount["mountPath"]) for mount in mounts if mount["name"] != "tmp"]
    authorities = (settings.kafka_ca_file, settings.redis_ca_file)
    assert [authority and authority.parent for authority in authorities] == folders


def test_no_example_has_credentials_in_kafka_options() -> None:
    for values in EXAMPLES:
        assert "kafka_options" not in values.read_text()
    assert settings_of(FULL).security.sasl
