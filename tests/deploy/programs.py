"""Programs that the tests of this folder run: skipped without on a laptop, failed under CI=true."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELM = ROOT / ".servers/helm/helm"
RUNBOOKS = "https://emotrack.example/docs"  # the base of every alert's link, for you to replace


def missing(what: str) -> None:
    """Skip with the reason; fail where every program must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every program: {what}")
    pytest.skip(what)


def installed(*names: str) -> str:
    """The first of these programs that is on PATH (systems name some differently)."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        missing(f"{names[0]} is not installed: run `make servers`")
    assert found is not None
    return found


def helm() -> str:
    """Helm, as `make helm` builds it."""
    if not HELM.exists():
        missing("Helm is not built: run `make helm`")
    return str(HELM)
