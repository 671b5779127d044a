"""The chart, rendered by Helm itself with several sets of values, held to Kubernetes' schemas."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stream.settings import Settings
from tests.deploy.programs import ROOT, helm

CHART = ROOT / "deploy/helm/emotrack"
KUBERNETES = "1.33.0"
SMALL, FULL = CHART / "ci/small.yaml", CHART / "ci/full.yaml"
SCALED = ("autoscaling.enabled=true",)
WATCHED = ("monitoring.podMonitor=true", "monitoring.prometheusRule=true")
BUILT_IN = {"apps/v1", "v1", "policy/v1", "networking.k8s.io/v1"}


def run(
    command: str, values: Path, sets: Sequence[str] = (), release: str = "emotrack"
) -> subprocess.CompletedProcess[str]:
    changes = [part for change in sets for part in ("--set", change)]
    named = [release] if command == "template" else []
    argv = [helm(), command, *named, str(CHART), "-f", str(values), *changes]
    return subprocess.run(
        [*argv, "--kube-version", KUBERNETES], capture_output=True, text=True, check=False
    )


def render(
    values: Path = SMALL, *sets: str, release: str = "emotrack"
) -> dict[str, dict[str, Any]]:
    """The rendered objects by kind, or kind/name where a kind comes more than once."""
    rendered = run("template", values, sets, release)
    assert rendered.returncode == 0, rendered.stderr
    found: dict[str, dict[str, Any]] = {}
    for each in filter(None, yaml.safe_load_all(rendered.stdout)):
        kind, name = each["kind"], each["metadata"]["name"]
        found[f"{kind}/{name}" if kind in ("PrometheusRule", "ConfigMap") else kind] = each
    return found


def container(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (worker,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(worker)


def environment(objects: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in container(objects)["env"]}


@pytest.mark.parametrize("values", [SMALL, FULL], ids=lambda p: p.stem)
def test_helm_lint_has_nothing_to_say(values: Path) -> None:
    linted = run("lint", values)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "[WARNING]" not in linted.stdout and "[ERROR]" not in linted.stdout


@pytest.mark.parametrize(
    ("values", "sets"), [(SMALL, ()), (SMALL, SCALED), (SMALL, WATCHED), (FULL, ())]
)
def test_every_object_is_valid_by_kubernetes_own_schemas(values: Path, sets: tuple[str]) -> None:
    """Objects of KEDA and the Prometheus operator have no schema here: see the tests below."""
    checked = 0
    for each in render(values, *sets).values():
        if each["apiVersion"] in BUILT_IN:
            kubernetes_validate.validate(each, "1.33", strict=True)
            checked += 1
    assert checked >= 3


def test_by_default_there_is_nothing_that_needs_an_operator() -> None:
    assert {o["apiVersion"] for o in render().values()} <= BUILT_IN


@pytest.mark.parametrize("values", [SMALL, FULL], ids=lambda p: p.stem)
def test_a_worker_cannot_gain_rights_nor_write_outside_tmp(values: Path) -> None:
    objects = render(values)
    pod, worker = objects["Deployment"]["spec"]["template"]["spec"], container(objects)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001  # as in deploy/Dockerfile
    assert pod["automountServiceAccountToken"] is False
    assert worker["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [m["mountPath"] for m in worker["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["/tmp"]


def test_probes_ask_what_the_worker_answers() -> None:
    """Liveness never depends on Kafka or Redis; a start has two minutes."""
    worker = container(render())
    paths = {
        n: worker[f"{n}Probe"]["httpGet"]["path"] for n in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    startup = worker["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 120
    assert worker["ports"] == [{"name": "metrics", "containerPort": 9464, "protocol": "TCP"}]


@pytest.mark.parametrize("values", [SMALL, FULL], ids=lambda p: p.stem)
def test_a_drain_ends_before_the_grace_period_does(values: Path) -> None:
    objects = render(values)
    drain = float(environment(objects)["EMOTRACK_DRAIN_BUDGET_S"]["value"])
    command = container(objects)["lifecycle"]["preStop"]["exec"]["command"]
    (waited,) = re.findall(r"sleep\((\d+)\)", command[-1])
    grace = objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert float(waited) + drain < grace


def test_every_value_of_the_environment_is_a_setting_of_the_worker() -> None:
    objects = render(FULL)
    plain = {k: e["value"] for k, e in environment(objects).items() if "value" in e}
    named = {k.removeprefix("EMOTRACK_").lower(): v for k, v in plain.items()}
    settings = Settings(**named)
    assert (settings.batch_max, settings.threads, settings.log_level) == (128, 2, "warning")
    assert (settings.commit_interval_ms, settings.drain_budget_s) == (250.5, 30.0)
    assert (settings.device, settings.topic_prefix, settings.group) == ("cuda", "live.", "live")
    assert settings.metrics_port == 9464
    assert objects["Deployment"]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_secrets_are_named_and_never_rendered() -> None:
    entries = environment(render(FULL))
    redis = entries["EMOTRACK_REDIS_URL"]
    assert "value" not in redis
    assert redis["valueFrom"]["secretKeyRef"] == {"name": "emotrack-redis", "key": "address"}
    options = entries["EMOTRACK_KAFKA_OPTIONS"]["valueFrom"]["secretKeyRef"]
    assert options == {"name": "kafka-login", "key": "options"}
    (mount,) = (m for m in container(render(FULL))["volumeMounts"] if m["name"] == "kafka-ca")
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/emotrack/kafka", True)


def test_keda_scales_on_lag_from_one_worker_to_one_a_partition() -> None:
    objects = render(SMALL, *SCALED, "partitions=6")
    scaled = objects["ScaledObject"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 6)
    assert scaled["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    said = trigger["metadata"]
    assert trigger["type"] == "kafka" and said["excludePersistentLag"] == "true"
    assert (
        said["topic"] == Settings().topics.utterances and said["consumerGroup"] == Settings().group
    )
    assert "replicas" not in objects["Deployment"]["spec"], "it would fight the autoscaler"


def test_a_fixed_number_of_workers_needs_no_autoscaler() -> None:
    objects = render(SMALL, "replicas=3")
    assert objects["Deployment"]["spec"]["replicas"] == 3 and "ScaledObject" not in objects


def test_a_node_can_be_drained_even_when_there_is_one_worker() -> None:
    budget = render()["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1 and "minAvailable" not in budget
    assert budget["selector"]["matchLabels"].items() <= pod_labels(render()).items()


def pod_labels(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
    return dict(objects["Deployment"]["spec"]["template"]["metadata"]["labels"])


def test_a_gpu_is_asked_for_only_where_it_is_switched_on() -> None:
    assert "nvidia.com/gpu" not in json.dumps(render())
    limits = container(render(SMALL, "gpu.enabled=true"))["resources"]["limits"]
    assert limits == {"memory": "2Gi", "nvidia.com/gpu": 1}
    assert container(render(SMALL, "gpu.enabled=true"))["image"] == "emotrack:0.1.0-cuda"
    assert container(render())["image"] == "emotrack:0.1.0"


def test_the_pod_monitor_scrapes_the_port_that_the_pods_have() -> None:
    objects = render(SMALL, *WATCHED)
    monitor = objects["PodMonitor"]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == container(objects)["ports"][0]["name"]
    assert monitor["selector"]["matchLabels"].items() <= pod_labels(objects).items()
    assert {"targetLabel": "job", "replacement": "emotrack"} in endpoint["relabelings"]


@pytest.mark.parametrize(
    ("release", "job"), [("live-emotrack", "live-emotrack"), ("b", "b-emotrack")]
)
def test_two_releases_in_one_namespace_are_two_jobs(release: str, job: str) -> None:
    monitor = render(SMALL, *WATCHED, release=release)["PodMonitor"]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": job} in endpoint["relabelings"]
    assert re.fullmatch(".*emotrack.*", job), "the rules ask for jobs of such a name"


def test_every_rule_and_dashboard_of_deploy_is_in_the_chart_as_it_is() -> None:
    objects = render(FULL)
    rules = {
        p.name: yaml.safe_load(p.read_text())
        for p in (ROOT / "deploy/prometheus/rules").glob("*.yml")
    }
    boards = {p.name: json.loads(p.read_text()) for p in (ROOT / "deploy/grafana").glob("*.json")}
    rendered = [o["spec"] for k, o in objects.items() if k.startswith("PrometheusRule/")]
    shown = [o["data"] for k, o in objects.items() if k.startswith("ConfigMap/")]
    assert sorted(map(str, rendered)) == sorted(map(str, rules.values()))
    assert {n: json.loads(t) for data in shown for n, t in data.items()} == boards


def test_the_network_policy_lets_out_the_named_ports_and_name_look_ups_only() -> None:
    policy = render(FULL)["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    out = {p["port"] for rule in policy["egress"] for p in rule["ports"]}
    assert out == {53, 9093, 6380}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("kafka.bootstrap=kafka", "/kafka/bootstrap"),
        ("redis.secretName=", "/redis/secretName"),
        ("redis.url=redis://:secret@r", "'url' not allowed"),
        ("autoscaling.min=0", "/autoscaling/min"),
        ("partitions=none", "/partitions"),
        ("gpu.enabled=maybe", "/gpu/enabled"),
        ("image.digest=sha256:12", "/image/digest"),
        ("replica=3", "'replica' not allowed"),
        ("settings.batchMax=3", "'batchMax' not allowed"),
        ("settings.redis_url=redis://:secret@r", "it is set by redis.secretName"),
        ("shutdown.graceSeconds=23", "a drain would be cut off"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(change: str, said: str) -> None:
    refused = run("template", SMALL, [change])
    assert refused.returncode != 0 and not refused.stdout and "secret@" not in refused.stderr
    assert len([line for line in refused.stderr.splitlines() if said in line]) == 1, refused.stderr


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("autoscaling.max=5",), "more than partitions (4)"),
        (("autoscaling.min=3", "autoscaling.max=2"), "the most workers there may be (2)"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(sets: tuple[str, ...], said: str) -> None:
    refused = run("template", SMALL, [*SCALED, *sets])
    assert refused.returncode != 0 and said in refused.stderr


def test_the_chart_carries_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
