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


def test_kills_violate_nothing_on_a_broker_on_its_own_defaults(
    default_servers: Servers, tmp_path: Path
) -> None:
    verdict = carry_out("R1", SHORT["R1"], default_servers, tmp_path, seed=SEED, full=False)
    assert verdict.passed, f"{verdict.error}\n" + "\n".join(verdict.violations)
    assert float(verdict.facts["slowest first output s"]) < 40, "a session of Kafka's own"
