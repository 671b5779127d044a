"""One scenario from its servers to its verdict, and the table of all."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stream.verify.run import verify_topics
from tests.chaos.plant import Plant, Servers
from tests.chaos.scenarios import Facts, Stage


@dataclass(frozen=True)
class Verdict:
    """The result of one scenario."""

    name: str
    title: str
    seed: int
    full: bool
    passed: bool
    seconds: float
    records: int
    predictions: int
    repeats: int  # predictions sent again, byte-equal
    kills: int
    violations: list[str] = field(default_factory=list)  # by invariant, the first few
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def save(self, folder: Path) -> None:
        """Keep it, so that a run goes on with the scenario after it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def carry_out(
    name: str,
    scenario: Callable[[Stage], Facts],
    servers: Servers,
    directory: Path,
    *,
    seed: int,
    full: bool,
    mutant: str | None = None,
) -> Verdict:
    """Run one scenario, let everything be committed, and verify every topic it used."""
    title = (scenario.__doc__ or "").partition(": ")[2].rstrip(".")
    directory.mkdir(parents=True, exist_ok=True)
    stage = Stage(servers, directory, seed, full, mutant)
    began, facts, error = time.monotonic(), {}, ""
    try:
        facts = scenario(stage)
    except AssertionError as failed:
        error = str(failed) or traceback.format_exc(limit=3)
    records = predictions = repeats = kills = 0
    violations: list[str] = []
    for proxy in (servers.kafka_proxy, servers.redis_proxy):  # whatever a failure left behind
        proxy.mode, proxy.delay_s = "pass", 0.0
    for plant in stage.plants:
        stage.closing.callback(plant.close)
        error = error or settle(plant)
        report = verify_topics(
            plant.site.settings,
            plant.predictor(),
            allow_truncation=plant.truncates,
            tolerance=None,
        )
        records += report.counts["records"]
        predictions += report.counts["predictions"]
        repeats += (again := report.counts["prediction_repeats"])
        if again and plant.settings.delivery == "transactional":
            error = error or f"{again} predictions were seen twice in spite of transactions"
        kills += plant.kills
        violations += [f"{v.invariant}: {v.says}" for v in report.violations[:20]]
    stage.closing.close()
    return Verdict(
        name,
        title,
        seed,
        full,
        passed=not violations and not error,
        seconds=round(time.monotonic() - began, 1),
        records=records,
        predictions=predictions,
        repeats=repeats,
        kills=kills,
        violations=violations,
        facts=facts,
        error=error,
    )


def settle(plant: Plant) -> str:
    """Have all that was sent committed, by a worker of its own if none is left; else say why."""
    plant.reap()
    if not plant.workers:
        plant.start()
    try:
        plant.settled()
    except AssertionError as failed:
        return f"{failed}: {plant.site.committed()} of {plant.site.sent} committed"
    for worker in list(plant.workers):
        if plant.stop(worker) != 0:
            return f"a worker did not drain:\n{worker.log_tail()}"
    return ""


def table(verdicts: Sequence[Verdict]) -> str:
    """The result table in Markdown."""
    lines = [
        "| # | what happens | seed | records | kills | repeats | violations | seen | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for v in verdicts:
        facts = "; ".join(f"{k}: {as_text(x)}" for k, x in v.facts.items())
        found = "0" if v.passed else f"**{len(v.violations)}** {v.error[:80]}"
        counts = (f"{v.records:,}", v.kills, v.repeats)
        row = (v.name, v.title, v.seed, *counts, found, facts, f"{v.seconds:.0f}")
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines) + "\n"


def as_text(fact: Any) -> str:
    """A fact in few words."""
    if isinstance(fact, dict):
        return ", ".join(f"{k} {v}" for k, v in fact.items())
    return ", ".join(map(str, fact)) if isinstance(fact, list) else str(fact)
