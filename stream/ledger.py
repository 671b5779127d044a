"""The ledger of looks at a test split: whoever scores on one leaves a line."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.evaluate import Report

LEDGER: Final = Path("docs/test-ledger.csv")
COLUMNS: Final = (
    "date", "checkpoint", "set", "utterances", "pairs", "accuracy", "wf1", "wf1_low", "wf1_high",
    "shift_auroc", "shift_c2_wf1", "emotion_ece", "shift_ece",
)  # fmt: skip


def check_ledger(ledger: Path) -> None:
    """Raise `ConfigError` before the look when it could not be recorded."""
    if not ledger.parent.is_dir():
        raise ConfigError(
            f"a look at the test split is recorded in {ledger}, but {ledger.parent} is no folder: "
            "run this in the project's folder or name a file with --ledger"
        )


def note_look(
    ledger: Path, checkpoint: str, set_name: str, report: Report, *, now: datetime
) -> None:
    """Append one look at a test split (shares as in the report); `checkpoint` is its digest."""
    f1 = report.weighted_f1
    scores = (
        report.accuracy, f1.value, f1.low, f1.high, report.shift_auroc.value,
        report.shift_c2_weighted_f1.value, report.emotion_ece, report.shift_ece,
    )  # fmt: skip
    row = [now.isoformat(timespec="seconds"), checkpoint, set_name]
    row += [str(report.utterances), str(report.pairs), *(f"{score:.4f}" for score in scores)]
    new = not ledger.exists()
    with ledger.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(row)
