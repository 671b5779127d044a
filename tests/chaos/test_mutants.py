"""The test of the tests: a worker that breaks a promise is caught, by the invariant it breaks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.plant import Servers
from tests.chaos.run import carry_out
from tests.chaos.scenarios import Facts, Stage, killed_before_commit, poisoned, zombie

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.chaos,
]

TRIES = 4
CAUGHT: dict[str, tuple[Callable[[Stage], Facts], str]] = {
    "commit_before_write": (partial(killed_before_commit, point="F5"), "I1"),
    "no_fencing": (zombie, "I4"),
    "shared_buffer": (killed_before_commit, "I5"),
    "replay_recomputed": (killed_before_commit, "I2"),
    "dead_letter_dropped": (poisoned, "I1"),
}


@pytest.mark.parametrize("mutant", CAUGHT)
def test_a_mutated_worker_is_caught_by_name(
    chaos_servers: Servers, tmp_path: Path, mutant: str
) -> None:
    scenario, invariant = CAUGHT[mutant]
    found: set[str] = set()
    for seed in range(TRIES):  # a fault may miss the moment that matters
        verdict = carry_out(
            mutant,
            scenario,
            chaos_servers,
            tmp_path / str(seed),
            seed=seed,
            full=False,
            mutant=mutant,
        )
        found |= {violation.partition(":")[0] for violation in verdict.violations}
        if invariant in found:
            return
    pytest.fail(f"{verdict.error or 'no error'}; found {sorted(found)}")
