"""The chart as Helm renders it, for the tests of this folder."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.programs import ROOT, helm

CHART = ROOT / "deploy/helm/emotrack"
KUBERNETES = "1.33.0"
SMALL, FULL = CHART / "ci/small.yaml", CHART / "ci/full.yaml"
SECURED, OWN_MODEL = CHART / "ci/secured.yaml", CHART / "ci/own-model.yaml"
EXAMPLES = (SMALL, FULL, SECURED, OWN_MODEL)
SCALED = ("autoscaling.enabled=true",)
WATCHED = ("monitoring.podMonitor=true", "monitoring.prometheusRule=true")
BUILT_IN = {"apps/v1", "v1", "policy/v1", "networking.k8s.io/v1", "autoscaling/v2"}


def run(
    command: str,
    values: Path,
    sets: Sequence[str] = (),
    chart: Path = CHART,
    release: str = "emotrack",
) -> subprocess.CompletedProcess[str]:
    changes = [part for change in sets for part in ("--set", change)]
    named = [release] if command == "template" else []
    argv = [helm(), command, *named, str(chart), "-f", str(values), *changes]
    return subprocess.run(
        [*argv, "--kube-version", KUBERNETES], capture_output=True, text=True, check=False
    )


def render(
    values: Path = SMALL, *sets: str, chart: Path = CHART, release: str = "emotrack"
) -> dict[str, dict[str, Any]]:
    """The rendered objects by kind, or kind/name where a kind comes more than once."""
    rendered = run("template", values, sets, chart, release)
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


def pod_labels(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
    return dict(objects["Deployment"]["spec"]["template"]["metadata"]["labels"])


def plain_settings(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The settings whose values are in the Deployment, by their names in `Settings`."""
    plain = {k: e["value"] for k, e in environment(objects).items() if "value" in e}
    return {k.removeprefix("EMOTRACK_").lower(): v for k, v in plain.items()}
