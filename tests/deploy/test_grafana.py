"""The dashboards: written from code, importable anywhere, and about metrics that exist."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.grafana.dashboards import text
from deploy.grafana.panels import DASHBOARDS, STAGES
from stream.metrics.catalogue import Metrics

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy/grafana"
METRIC: Final = re.compile(r"\bemotrack_[a-z_]+\b")
RECORDED: Final = re.compile(r"\bemotrack:[\w:]+\b")
NAMES: Final = sorted(DASHBOARDS)


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return loaded


def expressions(name: str) -> list[str]:
    return [target["expr"] for panel in load(name)["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_what_the_code_writes(name: str) -> None:
    written = (FOLDER / f"{name}.json").read_text("utf-8")
    assert written == text(name), "run: python -m deploy.grafana.dashboards"


@pytest.mark.parametrize("name", NAMES)
def test_every_query_is_about_the_chosen_teams(name: str) -> None:
    """A series without a choice of job and namespace shows other teams' workers as well."""
    chosen = re.compile(r'\{[^}]*job=~"\$job", namespace=~"\$namespace"[^}]*\}')
    series = re.compile(r"\b(?:emotrack[_:]|process_|ALERTS\b)[\w:]*(?P<chosen>\{[^}]*\})?")
    for expression in expressions(name):
        for found in series.finditer(expression):
            assert chosen.fullmatch(found["chosen"] or ""), expression


def test_there_is_no_other_dashboard() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_asks_the_data_source_that_was_chosen(name: str) -> None:
    dashboard = load(name)
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in dashboard["panels"]:
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
        assert set(re.findall(r"\$(\w+)", str(panel["targets"]))) <= {
            *variables,
            "__rate_interval",
        }


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_titles_and_ids_of_their_own_and_do_not_overlap(name: str) -> None:
    panels = load(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_exists(name: str) -> None:
    entries = Metrics().entries
    known = {e.name for e in entries}
    known |= {f"{e.name}{end}" for e in entries for end in ("_bucket", "_sum", "_count")}
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/recording.yml").read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"]}
    asked = " ".join(expressions(name))
    assert set(METRIC.findall(asked)) <= known
    assert set(RECORDED.findall(asked)) <= recorded


def test_every_metric_of_the_catalogue_is_on_a_dashboard() -> None:
    asked = " ".join(expression for name in NAMES for expression in expressions(name))
    rules = (ROOT / "deploy/prometheus/rules/recording.yml").read_text()
    unseen = [e.name for e in Metrics().entries if e.name not in asked + rules]
    assert not unseen


def test_the_stages_on_the_dashboard_are_the_seven_that_explain_end_to_end() -> None:
    told = [e.name for e in Metrics().entries if e.text.startswith("Stage ")]
    assert [f"emotrack_{stage}_seconds" for stage in STAGES] == told
