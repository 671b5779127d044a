"""One page for one cause: what a real Alertmanager holds back with the shipped configuration.

Alerts are handed over in order, so that nothing depends on how fast the machine is.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from stream.local.servers import free_ports
from tests.conftest import ROOT, enter
from tests.integration.workers import wait_for
from tests.servers import configured_alertmanager

pytestmark = pytest.mark.integration

CONFIG = ROOT / "deploy/prometheus/alertmanager.yml"
RULES = ROOT / "deploy/prometheus/rules/alerts.yml"
NAMES = re.findall(r"- alert: (\w+)", RULES.read_text("utf-8"))


def held_back() -> list[tuple[str, str]]:
    """Cause and consequence of every inhibition rule, for every alert that there is."""
    pairs: list[tuple[str, str]] = []
    for rule in yaml.safe_load(CONFIG.read_text("utf-8"))["inhibit_rules"]:
        cause, pattern = (
            rule[side][0].split('"')[1] for side in ("source_matchers", "target_matchers")
        )
        pairs += [(cause, name) for name in NAMES if re.fullmatch(pattern, name)]
    return pairs


class Alertmanager:
    """A running one, through its API."""

    def __init__(self, port: int) -> None:
        self._alerts = f"http://127.0.0.1:{port}/api/v2/alerts"

    def tell(self, name: str, job: str, **more: str) -> None:
        labels = {"alertname": name, "job": job, "severity": "page"} | more
        body = json.dumps([{"labels": labels}]).encode()
        kind = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(self._alerts, body, kind), timeout=10).close()
        wait_for(lambda: (name, job) in self.states(), f"{name} known to Alertmanager")

    def states(self) -> dict[tuple[str, str], str]:
        found = json.load(urllib.request.urlopen(self._alerts, timeout=10))
        return {(a["labels"]["alertname"], a["labels"]["job"]): a["status"]["state"] for a in found}


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    config = tmp_path_factory.mktemp("alertmanager") / "alertmanager.yml"
    config.write_text(CONFIG.read_text("utf-8").replace("group_wait: 30s", "group_wait: 100ms"))
    (port,) = free_ports(1)
    server = configured_alertmanager(config, port)
    enter(server)
    yield Alertmanager(port)
    server.__exit__(None, None, None)


@pytest.mark.parametrize(("cause", "consequence"), held_back())
def test_a_consequence_is_held_back_and_its_cause_is_not(
    alertmanager: Alertmanager, cause: str, consequence: str
) -> None:
    job = f"{cause}-{consequence}"
    alertmanager.tell(cause, job)
    alertmanager.tell(consequence, job)
    wait_for(
        lambda: alertmanager.states()[consequence, job] == "suppressed", f"{consequence} held back"
    )
    assert alertmanager.states()[cause, job] == "active"


def test_another_job_s_alert_and_an_unrelated_one_are_told(alertmanager: Alertmanager) -> None:
    alertmanager.tell("EmotrackRedisDown", "one")
    alertmanager.tell("EmotrackPartitionStuck", "another")
    alertmanager.tell("EmotrackDeadLetters", "one")
    told = {("EmotrackPartitionStuck", "another"), ("EmotrackDeadLetters", "one")}
    wait_for(lambda: {alertmanager.states()[at] for at in told} == {"active"}, "both told")


def test_a_team_s_outage_holds_back_nothing_of_a_team_in_another_namespace(
    alertmanager: Alertmanager,
) -> None:
    """Releases of two namespaces have the same job."""
    alertmanager.tell("EmotrackRedisDown", "shared", namespace="one")
    alertmanager.tell("EmotrackLagGrowing", "shared", namespace="one")
    alertmanager.tell("EmotrackNoWorkerReady", "shared", namespace="another")
    wait_for(
        lambda: alertmanager.states()["EmotrackLagGrowing", "shared"] == "suppressed",
        "the consequence held back",
    )
    wait_for(
        lambda: alertmanager.states()["EmotrackNoWorkerReady", "shared"] == "active", "a page told"
    )
