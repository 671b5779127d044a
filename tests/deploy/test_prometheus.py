"""Rules, Alertmanager's settings, runbook: checked by the real binaries, and by each other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from stream.local.servers import ServerMissing, need
from stream.metrics.catalogue import Metrics
from tests.conftest import missing
from tests.deploy.programs import RUNBOOKS

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy/prometheus"
UNIT_TESTS: Final = ROOT / "tests/deploy/prometheus"
METRIC: Final = re.compile(r"\bemotrack_[a-z_]+\b")
RECORDED: Final = re.compile(r"\bemotrack:[\w:]+\b")
OF_ALERTS: Final = ("alerts", "drift")
OF_HISTOGRAM: Final = ("_bucket", "_sum", "_count")


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / f"rules/{name}.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS: Final = rules("alerts")
RECORDINGS: Final = rules("recording")
NAMES: Final = [rule["alert"] for rule in ALERTS]


def run(*argv: str | Path, cure: str = "prometheus") -> subprocess.CompletedProcess[str]:
    """Run one of Prometheus' tools, or skip where it is missing (fail under CI=true)."""
    try:
        program = need(str(argv[0]), f"install it (Debian: apt-get install {cure})")
    except ServerMissing as why:
        missing(why)
    return subprocess.run(
        [program, *map(str, argv[1:])], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_configuration_is_valid() -> None:
    checked = run("promtool", "check", "config", DEPLOY / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout
    assert f"{len(RECORDINGS)} rules found" in checked.stdout


@pytest.mark.parametrize("name", ["alerts", "drift", "recording", "teams"])
def test_every_rule_does_in_its_unit_test_what_it_says(name: str) -> None:
    tested = run("promtool", "test", "rules", UNIT_TESTS / f"{name}.test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


TEAM: Final = ("job", "namespace")
GROUPED: Final = re.compile(r"\b(?:by|on) \(([^)]*)\)")


@pytest.mark.parametrize("rule", ALERTS + RECORDINGS, ids=lambda r: r.get("alert", r.get("record")))
def test_every_sum_and_every_match_is_within_a_team(rule: dict[str, Any]) -> None:
    """A sum over two teams hides that one of them is dead."""
    grouped = GROUPED.findall(rule["expr"])
    assert all(tuple(labels.split(", "))[:2] == TEAM for labels in grouped), grouped
    aggregated = re.findall(r"\b(?:sum|min|max|avg|count|group)\b\s*(\(|by)", rule["expr"])
    assert "(" not in aggregated, "an aggregation without `by` is over all teams"
    assert not set(rule.get("labels", ())) & {*TEAM}, "they are the workers' own"


@pytest.mark.parametrize("path", ["prometheus", "compose"])
def test_alertmanager_groups_and_inhibits_within_a_team(path: str) -> None:
    config = yaml.safe_load((ROOT / f"deploy/{path}/alertmanager.yml").read_text())
    assert tuple(config["route"]["group_by"][:2]) == TEAM
    assert all(tuple(rule["equal"]) == TEAM for rule in config.get("inhibit_rules", ()))


def cases() -> list[dict[str, Any]]:
    files = (yaml.safe_load((UNIT_TESTS / f"{n}.test.yml").read_text()) for n in OF_ALERTS)
    return [case for file in files for test in file["tests"] for case in test["alert_rule_test"]]


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_fires_in_a_unit_test_and_is_quiet_in_another(name: str) -> None:
    fired = [bool(case["exp_alerts"]) for case in cases() if case["alertname"] == name]
    assert set(fired) == {True, False}


@pytest.mark.slow
def test_no_unit_test_passes_without_its_alert(tmp_path: Path) -> None:
    """The test of the test: alerts that cannot fire are found out, each of them."""
    broken = yaml.safe_load((DEPLOY / "rules/alerts.yml").read_text())
    for group in broken["groups"]:
        for rule in group["rules"]:
            rule["expr"] = f"({rule['expr']}) and vector(0) > 1"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(broken))
    (tmp_path / "recording.yml").write_text((DEPLOY / "rules/recording.yml").read_text())
    failed: set[str] = set()
    for name in OF_ALERTS:
        tests = yaml.safe_load((UNIT_TESTS / f"{name}.test.yml").read_text())
        tests["rule_files"] = ["recording.yml", "alerts.yml"]
        (tmp_path / f"{name}.test.yml").write_text(yaml.safe_dump(tests))
        tested = run("promtool", "test", "rules", tmp_path / f"{name}.test.yml")
        assert tested.returncode != 0
        failed |= set(re.findall(r"alertname: (\w+)", tested.stdout + tested.stderr))
    assert failed == set(NAMES)


def known_metrics() -> set[str]:
    """The names on a worker's page."""
    entries = Metrics().entries
    parts = {e.name + end for e in entries if e.kind == "histogram" for end in OF_HISTOGRAM}
    return parts | {entry.name for entry in entries}


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md", "docs/runbook.md"])
def test_pages_name_only_metrics_that_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    headers = {"emotrack_dlq_message"}
    assert set(METRIC.findall(text)) - headers <= known_metrics()
    assert set(RECORDED.findall(text)) <= {rule["record"] for rule in RECORDINGS}


def test_rules_ask_only_for_metrics_of_the_catalogue_and_for_what_is_recorded() -> None:
    recorded = {rule["record"] for rule in RECORDINGS}
    asked = " ".join(rule["expr"] for rule in ALERTS + RECORDINGS)
    assert set(METRIC.findall(asked)) <= known_metrics()
    assert set(RECORDED.findall(asked)) <= recorded


def test_every_stage_of_the_catalogue_has_its_quantiles() -> None:
    stages = {
        entry.name.removeprefix("emotrack_").removesuffix("_seconds")
        for entry in Metrics().entries
        if entry.kind == "histogram" and entry.name.endswith("_seconds")
    }
    recorded = {
        rule["labels"]["stage"]: rule["expr"]
        for rule in RECORDINGS
        if rule["record"] == "emotrack:stage_seconds_bucket:rate5m"
    }
    assert set(recorded) == stages
    for stage, expression in recorded.items():
        assert f"emotrack_{stage}_seconds_bucket" in expression


def anchors(page: Path) -> list[str]:
    """Return the anchors of a Markdown page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_every_alert_has_a_severity_a_summary_and_a_section_of_the_runbook(
    rule: dict[str, Any],
) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    link, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert link == f"{RUNBOOKS}/runbook.md", "one base, which a line of sed or the chart replaces"
    assert anchor in anchors(ROOT / "docs/runbook.md")


def test_the_runbook_has_a_section_for_no_alert_that_is_not_there() -> None:
    sections = {a for a in anchors(ROOT / "docs/runbook.md") if a.startswith("emotrack")}
    assert sections == {name.lower() for name in NAMES}


def test_the_runbook_calls_each_severity_by_its_name() -> None:
    text = (ROOT / "docs/runbook.md").read_text("utf-8")
    said = dict(re.findall(r"^### (Emotrack\w+)\n\n\*(page|ticket)", text, re.MULTILINE))
    assert said == {rule["alert"]: rule["labels"]["severity"] for rule in ALERTS}


UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
# A window in which nothing may have moved; `rate` of what must be there, too, is 0 only then.
STILL: Final = re.compile(r"(?:\bchanges|\bunless sum by [^\[]*?\brate)\([^\[]*\[(\d+[smhd])\]")


def seconds(duration: str) -> int:
    """Return the seconds of one of Prometheus' durations."""
    return int(duration[:-1]) * UNITS_S[duration[-1]]


def told_within(rule: dict[str, Any]) -> str:
    """Return the longest time until somebody is told, from the shipped files."""
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["global"]
    route = yaml.safe_load((DEPLOY / "alertmanager.yml").read_text())["route"]
    assert all("group_wait" not in inner for inner in route["routes"])
    evaluations = 2 if RECORDED.search(rule["expr"]) else 1
    parts = [prometheus["scrape_interval"], *[prometheus["evaluation_interval"]] * evaluations]
    parts += [*STILL.findall(rule["expr"]), rule.get("for", "0s"), route["group_wait"]]
    minutes, left_s = divmod(sum(map(seconds, parts)), 60)
    return f"{minutes} min {left_s} s" if left_s else f"{minutes} min"


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_the_runbook_says_how_long_it_takes_until_somebody_is_told(rule: dict[str, Any]) -> None:
    section = (ROOT / "docs/runbook.md").read_text("utf-8").split(f"### {rule['alert']}\n\n")[1]
    severity = rule["labels"]["severity"]
    kind = r"\*" + severity + r"(?: · live(?:, [^*·]+)?)? · told within ([^*]+)\.\*"
    said = re.match(kind, section)
    assert said is not None, f"say: *{severity} · told within {told_within(rule)}.*"
    assert said[1] == told_within(rule)


def test_a_window_in_which_nothing_may_have_moved_is_part_of_the_time() -> None:
    within = {rule["alert"]: told_within(rule) for rule in ALERTS}
    assert within["EmotrackRedisDown"] == "2 min", "15 s, 15 s, 1 min, 30 s"
    assert within["EmotrackPartitionStuck"] == "16 min", "ten minutes of silence, five more"
    assert within["EmotrackNoPredictions"] == "11 min"
    assert within["EmotrackWorkerHung"] == "7 min"
    assert within["EmotrackNoWorkerReady"] == "3 min", "its day is a memory, no silence"


def test_the_runbook_looks_for_what_takes_the_time_before_what_waits_for_it() -> None:
    """A loop that is held up shows that in fetch_wait as well: see test_observe.py."""
    page = (ROOT / "docs/runbook.md").read_text("utf-8")
    section = page.split("### EmotrackLatencyBudgetFast")[1].split("\n###")[0]
    steps = re.findall(r"^\d\. (?:Only )?`(\w+)`", section, re.MULTILINE)
    assert steps == ["state_load", "produce", "inference", "fetch_wait"]


def test_alertmanager_takes_its_configuration_and_pages_for_pages_only() -> None:
    config = DEPLOY / "alertmanager.yml"
    checked = run("amtool", "check-config", config, cure="prometheus-alertmanager")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for severity, receiver in (("page", "pager"), ("ticket", "tickets")):
        ask = ["config", "routes", "test", f"--config.file={config}", f"severity={severity}"]
        routed = run("amtool", *ask, cure="prometheus-alertmanager")
        assert routed.stdout.strip().startswith(receiver), routed.stdout + routed.stderr


def test_alertmanager_silences_only_alerts_that_exist_and_not_the_cause_itself() -> None:
    config = yaml.safe_load((DEPLOY / "alertmanager.yml").read_text())
    for rule in config["inhibit_rules"]:
        (source,) = rule["source_matchers"]
        (target,) = rule["target_matchers"]
        cause = source.split('"')[1]
        assert cause in NAMES
        consequences = [n for n in NAMES if re.fullmatch(target.split('"')[1], n)]
        assert consequences
        assert cause not in consequences
