"""The short set of scenarios: every promise under every kind of fault, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.plant import Servers
from tests.chaos.run import carry_out
from tests.chaos.sets import SHORT

pytestmark = [pytest.mark.timeout(1200), pytest.mark.integration, pytest.mark.slow]

SEED = 20_261_124


@pytest.mark.parametrize("name", SHORT)
def test_no_invariant_is_violated(chaos_servers: Servers, tmp_path: Path, name: str) -> None:
    verdict = carry_out(name, SHORT[name], chaos_servers, tmp_path, seed=SEED, full=False)
    assert verdict.passed, f"{verdict.error}\n" + "\n".join(verdict.violations)
