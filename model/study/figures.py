"""Measured figures as a JSON file: rows by name, with the machine, command and commit.

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
    """Describe the machine that the figures were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": next(named, platform.processor()),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """Return the checkout's commit, "-dirty" if edited; None in a wheel."""
    git = shutil.which("git")
    root = Path(__file__).parents[2]
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return result.stdout.strip()


def write_figures(path: Path, rows: Mapping[str, Mapping[str, Any]], command: str) -> None:
    """Write rows (value, unit, first, aim, …) with their origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(figures_json(rows, command), "utf-8")


def figures_json(rows: Mapping[str, Mapping[str, Any]], command: str) -> str:
    """Return the text of a file of figures."""
    whole = {**rows, "machine": machine(), "command": command, "commit": commit()}
    return json.dumps(whole, indent=1) + "\n"


def hush_torch_geometric() -> None:
    """Ignore its warning on import that torch.jit.script is deprecated: no user can cure it."""
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def score_rows(
    report: Report,
    set_name: str,
    split: str,
    checkpoint: str,
    differences: Sequence[Difference] = (),
) -> dict[str, dict[str, Any]]:
    """Return the report's rows of docs/benchmarks.md, each with its set, split and checkpoint."""
    from model.scoring.report import difference_rows, goal_rows

    rows = goal_rows(report)
    for row in rows.values():
        row |= {"set": set_name, "split": split, "checkpoint": checkpoint}
    return rows | ({"against": difference_rows(differences)} if differences else {})
