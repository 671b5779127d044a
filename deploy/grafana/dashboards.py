"""Grafana's dashboards, written from here: `python -m deploy.grafana.dashboards`.

Three JSON files beside this one: overview (for a team lead), operations, model. The data source is
a variable, so that they can be imported anywhere; a test runs every query on a real Prometheus.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from deploy.grafana.panels import DASHBOARDS, TEAM, Panel

HERE: Final = Path(__file__).parent
WIDTH: Final = 24  # of Grafana's grid
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard as Grafana reads it."""
    others = [other for other in DASHBOARDS if other != name]
    return {
        "uid": f"emotrack-{name}",
        "title": f"emotrack {name}",
        "tags": ["emotrack"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [data_source(), *chosen()]},
        "links": [link(other) for other in others],
        "panels": placed(DASHBOARDS[name]),
    }


def placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Panels left to right, then down, each row as high as its highest."""
    x = y = row = 0
    out: list[dict[str, Any]] = []
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > WIDTH:
            x, y, row = 0, y + row, 0
        out.append(drawn(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
        x, row = x + panel.width, max(row, panel.height)
    return out


def drawn(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    """One panel's JSON."""
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if panel.stacked else {}
    instant = panel.kind != "timeseries"
    return {
        "id": number,
        "title": panel.title,
        "description": panel.note,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def data_source() -> dict[str, Any]:
    """Return the variable that chooses the Prometheus."""
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }


def chosen() -> list[dict[str, Any]]:
    """Return the variables that choose teams and workers, each among what is chosen before it."""
    return [
        several("job", "Job", "emotrack_ready", ".*emotrack.*"),
        several("namespace", "Namespace", 'emotrack_ready{job=~"$job"}'),
        several("instance", "Worker", f"emotrack_ready{{{TEAM}}}"),
    ]


def several(label: str, title: str, series: str, every: str = ".*") -> dict[str, Any]:
    """Return a variable with the values of a label; all of them is `every`, none included."""
    return {
        "name": label,
        "label": title,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({series}, {label})", "refId": label},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": every,
        "current": {"text": "All", "value": "$__all"},
    }


def link(name: str) -> dict[str, Any]:
    """To another dashboard of ours, with the same time and variables."""
    return {
        "type": "link",
        "title": name,
        "url": f"/d/emotrack-{name}",
        "keepTime": True,
        "includeVars": True,
    }


def text(name: str) -> str:
    """The file of a dashboard."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (HERE / f"{each}.json").write_text(text(each), "utf-8")
