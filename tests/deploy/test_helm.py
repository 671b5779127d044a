"""The chart, rendered by Helm itself with several sets of values, held to Kubernetes' schemas."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from stream.settings import Settings
from stream.worker.recovery import LIMIT_S, QUIET_S
from tests.deploy.chart import (
    BUILT_IN,
    CHART,
    EXAMPLES,
    FULL,
    KUBERNETES,
    OWN_MODEL,
    SCALED,
    SMALL,
    WATCHED,
    container,
    environment,
    plain_settings,
    pod_labels,
    render,
    run,
)
from tests.deploy.programs import ROOT, RUNBOOKS


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda p: p.stem)
def test_helm_lint_has_nothing_to_say(values: Path) -> None:
    linted = run("lint", values)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "[WARNING]" not in linted.stdout and "[ERROR]" not in linted.stdout


@pytest.mark.parametrize(
    ("values", "sets"),
    [
        *((values, ()) for values in EXAMPLES),
        (SMALL, SCALED),
        (SMALL, WATCHED),
        (SMALL, ("model.existingClaim=ours", "model.path=mine")),
        (SMALL, ("strategy.type=Recreate",)),
    ],
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


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda p: p.stem)
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
    """Only readiness depends on Kafka or Redis: a start that waits for them is no failed start."""
    worker = container(render())
    paths = {
        n: worker[f"{n}Probe"]["httpGet"]["path"] for n in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    startup = worker["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 120
    assert worker["ports"] == [{"name": "metrics", "containerPort": 9464, "protocol": "TCP"}]
    assert Settings(**plain_settings(render())).start_wait_s == 600  # type: ignore[arg-type]


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda p: p.stem)
def test_a_drain_ends_before_the_grace_period_does(values: Path) -> None:
    objects = render(values)
    drain = float(environment(objects)["EMOTRACK_DRAIN_BUDGET_S"]["value"])
    command = container(objects)["lifecycle"]["preStop"]["exec"]["command"]
    (waited,) = re.findall(r"sleep\((\d+)\)", command[-1])
    grace = objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert float(waited) + drain < grace


def test_every_value_of_the_environment_is_a_setting_of_the_worker() -> None:
    objects = render(FULL)
    settings = Settings(**plain_settings(objects), kafka_password="from a Secret")  # type: ignore[arg-type]
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
    password = entries["EMOTRACK_KAFKA_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert password == {"name": "kafka-login", "key": "password"}
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


def test_the_lag_that_calls_a_worker_is_what_one_answers_in_a_third_of_a_second() -> None:
    """docs/deploy.md derives it; 200 was three seconds of a worker's work on text."""
    called = {
        kind: render(SMALL, *SCALED, f"input={kind}")["ScaledObject"]["spec"]["triggers"][0]
        for kind in ("text", "features")
    }
    assert {k: t["metadata"]["lagThreshold"] for k, t in called.items()} == {
        "text": "20",
        "features": "400",
    }
    page = (ROOT / "docs/deploy.md").read_text()
    assert "| raw text | 64/s | 20 |" in page and "| features | 1,220/s | 400 |" in page
    said = render(SMALL, *SCALED, "autoscaling.lagThreshold=7")["ScaledObject"]["spec"]
    assert said["triggers"][0]["metadata"]["lagThreshold"] == "7"


def test_cpu_scales_without_keda_or_together_with_lag() -> None:
    """Never two autoscalers of one Deployment: they would fight each other."""
    alone = render(OWN_MODEL)
    assert "ScaledObject" not in alone
    scaled = alone["HorizontalPodAutoscaler"]["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (2, 4)
    assert scaled["scaleTargetRef"]["name"] == alone["Deployment"]["metadata"]["name"]
    assert scaled["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    assert scaled["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    both = render(FULL)
    assert "HorizontalPodAutoscaler" not in both
    triggers = both["ScaledObject"]["spec"]["triggers"]
    assert [trigger["type"] for trigger in triggers] == ["kafka", "cpu"]
    assert triggers[1]["metadata"] == {"value": "60"}
    for objects in (alone, both):
        assert "cpu" in container(objects)["resources"]["requests"]
        assert "replicas" not in objects["Deployment"]["spec"]


def test_an_update_can_free_a_gpu_before_it_needs_one() -> None:
    assert render()["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }
    assert render(FULL)["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": 1,
    }
    stopped_first = render(SMALL, "strategy.type=Recreate")["Deployment"]["spec"]["strategy"]
    assert stopped_first == {"type": "Recreate"}


def test_an_update_waits_until_a_worker_stays_ready() -> None:
    """Longer than a check's pause, and a worker's limit is far from the update's own deadline."""
    spec = render()["Deployment"]["spec"]
    assert spec["minReadySeconds"] > QUIET_S
    assert LIMIT_S + spec["minReadySeconds"] < spec.get("progressDeadlineSeconds", 600) / 2
    assert render(SMALL, "strategy.minReadySeconds=0")["Deployment"]["spec"]["minReadySeconds"] == 0


def test_a_fixed_number_of_workers_needs_no_autoscaler() -> None:
    objects = render(SMALL, "replicas=3")
    assert objects["Deployment"]["spec"]["replicas"] == 3 and "ScaledObject" not in objects


def test_a_node_can_be_drained_even_when_there_is_one_worker() -> None:
    budget = render()["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1 and "minAvailable" not in budget
    assert budget["selector"]["matchLabels"].items() <= pod_labels(render()).items()


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


def test_every_rule_and_dashboard_of_deploy_is_in_the_chart_and_alerts_link_to_your_page() -> None:
    objects = render(FULL)
    rules = {
        p.name: yaml.safe_load(p.read_text().replace(RUNBOOKS, "https://wiki.internal/emotrack"))
        for p in (ROOT / "deploy/prometheus/rules").glob("*.yml")
    }
    boards = {p.name: json.loads(p.read_text()) for p in (ROOT / "deploy/grafana").glob("*.json")}
    rendered = [o["spec"] for k, o in objects.items() if k.startswith("PrometheusRule/")]
    shown = [o["data"] for k, o in objects.items() if k.startswith("ConfigMap/")]
    assert sorted(map(str, rendered)) == sorted(map(str, rules.values()))
    assert {n: json.loads(t) for data in shown for n, t in data.items()} == boards
    assert "https://wiki.internal/emotrack/runbook.md#emotrackredisdown" in str(rendered)
    assert RUNBOOKS not in str(rendered)
    assert f"{RUNBOOKS}/runbook.md#emotrackredisdown" in str(render(SMALL, *WATCHED))


def test_the_network_policy_lets_out_the_named_ports_and_name_look_ups_only() -> None:
    policy = render(FULL)["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    out = {p["port"] for rule in policy["egress"] for p in rule["ports"]}
    assert out == {53, 9093, 6380, 4318}


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
        ("strategy.maxSurge=0", "no worker could ever be replaced"),
        ("strategy.type=Rolling", "/strategy/type"),
        ("monitoring.runbookBase=docs", "/monitoring/runbookBase"),
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
        (("autoscaling.by=cpu", "resources.requests=null"), "needs resources.requests.cpu"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(sets: tuple[str, ...], said: str) -> None:
    refused = run("template", SMALL, [*SCALED, *sets])
    assert refused.returncode != 0 and said in refused.stderr


def test_the_notes_say_what_the_values_leave_to_chance(tmp_path: Path) -> None:
    """Helm shows notes at installation only, so a copy of the chart renders them as an object."""
    copy = tmp_path / "emotrack"
    shutil.copytree(CHART, copy)
    notes = copy / "templates/NOTES.txt"
    shown = notes.rename(notes.with_name("notes.yaml"))
    lines = "\n".join(f"  {line}" for line in shown.read_text().splitlines())
    shown.write_text(f"kind: Notes\nmetadata: {{name: n}}\napiVersion: v1\ntext: |\n{lines}\n")
    chances = ("needs a GPU that is free", "autoscaling.min is 1", "runbook_url leads nowhere")
    careless = ("gpu.enabled=true", *SCALED, *WATCHED)
    said = render(SMALL, *careless, chart=copy)["Notes"]["text"]
    assert all(chance in said for chance in chances)
    said = render(FULL, chart=copy)["Notes"]["text"]
    assert "kafka-0:9093" in said and not [chance for chance in chances if chance in said]


def test_helm_is_built_to_assume_the_kubernetes_that_these_tests_ask_for(tmp_path: Path) -> None:
    """Else it assumes 1.20, and `helm template` refuses the chart. `go` only takes notes here."""
    (tmp_path / "deploy/dev").mkdir(parents=True)
    script = tmp_path / "deploy/dev/helm.sh"
    script.write_text((ROOT / "deploy/dev/helm.sh").read_text())
    go = tmp_path / "go"
    go.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$GOBIN/called"\n')
    go.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", script], env=env, check=True, capture_output=True)
    command, flag, assumed, module = (tmp_path / ".servers/helm/called").read_text().splitlines()
    assert (command, flag) == ("install", "-ldflags") and module.startswith("helm.sh/helm/v3/cmd/")
    major, minor, _ = KUBERNETES.split(".")
    assert set(assumed.removeprefix("-X ").split(" -X ")) == {
        f"helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={number}"
        for package in ("chartutil", "lint/rules")
        for part, number in (("Major", major), ("Minor", minor))
    }


def test_the_chart_carries_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
