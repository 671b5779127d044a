"""Measured figures as a JSON file: rows by name, with the machine, command and commit beside them.

``{"P1": {"value": 27.4, "unit": "x", "first": 15, "aim": 25, …}, "machine": {…}, …}``
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.scoring.bootstrap import Difference
    from model.scoring.report import Report


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The commit of the checkout this package runs from, "-dirty" if edited; None in a wheel."""
    git = shutil.which("git")
    root = Path(__file__).parents[2]
    if git is None or not (root / ".git").exists():
        return None
    ask = [git, "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return said.stdout.strip()


def write_figures(path: Path, rows: Mapping[str, Mapping[str, Any]], command: str) -> None:
    """Write rows (value, unit, first, aim, …) with where they come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(figures_json(rows, command), "utf-8")


def figures_json(rows: Mapping[str, Mapping[str, Any]], command: str) -> str:
    """The text of such a file."""
    whole = {**rows, "machine": machine(), "command": command, "commit": commit()}
    return json.dumps(whole, indent=1) + "\n"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def hush_torch_geometric() -> None:
    """Its import warns that torch.jit.script is deprecated: nothing a reader of scores can cure."""
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def score_rows(
    report: Report,
    set_name: str,
    split: str,
    checkpoint: str,
    differences: Sequence[Difference] = (),
) -> dict[str, dict[str, Any]]:
    """The report's rows of goals.md, each with what it was measured on."""
    from model.scoring.report import difference_rows, goal_rows

    rows = goal_rows(report)
    for row in rows.values():
        row |= {"set": set_name, "split": split, "checkpoint": checkpoint}
    return rows | ({"against": difference_rows(differences)} if differences else {})
