"""The live tests run the shipped rules: only time is shorter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.short_windows import faster

RULES = Path(__file__).parents[2] / "deploy/prometheus/rules"


def test_only_durations_change() -> None:
    text = "expr: emotrack:slow:ratio5m > rate(x[5m]) + deriv(y[1h]) * 10m\nfor: 15m\n"
    expected = "expr: emotrack:slow:ratio5m > rate(x[2500ms]) + deriv(y[30000ms]) * 10m\n"
    assert faster(text, 120) == f"{expected}for: 7500ms\n"


@pytest.mark.parametrize("name", ["alerts", "recording"])
def test_with_the_same_clock_the_shipped_rules_come_out_again(name: str) -> None:
    text = (RULES / f"{name}.yml").read_text()
    before, after = yaml.safe_load(text), yaml.safe_load(faster(text, 1))
    assert re.sub(r"\d+(ms|[smhd])\b", "", str(after)) == re.sub(r"\d+[smhd]\b", "", str(before))
    assert not re.search(r"\[\d+[smhd]\]|for: \d+[smhd]\b", faster(text, 120)), "all were found"
