"""The ledger of looks at a test split: a line for each time one is scored on."""

from __future__ import annotations

import csv
import math
import os
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model.atomic_files import write_whole
from model.errors import LedgerError

if TYPE_CHECKING:
    from model.scoring.report import Report

LEDGER: Final = Path("docs/test-ledger.csv")  # the project's, of its own sets, in its checkout
COLUMNS: Final = (  # new ones go to the end: older lines stay as they are and leave them empty
    "date", "checkpoint", "set", "utterances", "pairs", "accuracy", "wf1", "wf1_low", "wf1_high",
    "shift_auroc", "shift_c2_wf1", "emotion_ece", "shift_ece",
    "macro_f1", "shift_average_precision", "shift_c2_accuracy", "aurc",
)  # fmt: skip


def ledger_of(set_name: str, folder: Path, checkpoint: Path | None = None) -> Path:
    """Return the file that looks at a set's test split are recorded in where none is named.

    In the project's checkout the project's, for a set of its study; else next to the set in
    `folder`. Where that cannot be written, next to the `checkpoint`, unless it is a shipped one.
    """
    from model.checkpoint_files import CHECKPOINTS
    from model.study.rows import ROWS

    if LEDGER.is_file() and set_name in {row.set_name for row in ROWS}:
        return LEDGER
    own = checkpoint is not None and checkpoint.resolve().parent != CHECKPOINTS.resolve()
    if checkpoint is not None and own and not os.access(folder, os.W_OK):
        return checkpoint / "test-ledger.csv"
    return folder / f"{set_name}_test-ledger.csv"


def check_ledger(ledger: Path) -> None:
    """Raise `LedgerError` before the look when it could not be recorded."""
    if not ledger.parent.is_dir():
        raise LedgerError(
            f"a look at the test split is recorded in {ledger}, but {ledger.parent} is no folder: "
            "make it, or name another file with --ledger"
        )
    writable = os.access(ledger if ledger.exists() else ledger.parent, os.W_OK)
    if ledger.is_dir() or not writable:
        raise LedgerError(
            f"a look at the test split is recorded in {ledger}, which cannot be written: "
            "name another file with --ledger"
        )
    _rows(ledger)


def note_look(
    ledger: Path, checkpoint: str, set_name: str, report: Report, *, now: datetime
) -> None:
    """Append one look at a test split (shares as in the report).

    `checkpoint` is its digest, or the name of a baseline. Raises `LedgerError` when the file is
    not a ledger.
    """
    f1 = report.weighted_f1
    scores = (
        report.accuracy.value, f1.value, f1.low, f1.high, report.shift_auroc.value,
        report.shift_c2_weighted_f1.value, report.emotion.after.ece, report.shift.after.ece,
        report.macro_f1.value, report.shift_average_precision.value,
        report.shift_c2_accuracy.value, report.risk.area,
    )  # fmt: skip
    row = [now.isoformat(timespec="seconds"), checkpoint, set_name]
    row += [str(report.utterances), str(report.pairs)]
    row += [f"{score:.4f}" if math.isfinite(score) else "" for score in scores]
    looks = [*_rows(ledger), row]
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *looks])
    try:
        write_whole(ledger.parent, {ledger.name: text.getvalue().encode()})
    except OSError as error:
        raise LedgerError(
            f"the look at the test split could not be recorded in {ledger} ({error.strerror}): "
            "make room, and write it down by hand"
        ) from error


def sentence_on_looks(ledger: Path, split: str, checkpoint: str) -> str:
    """Return a sentence for readers of scores: the number of looks at the test split so far."""
    looks = _rows(ledger)
    own = sum(look[1] == checkpoint for look in looks)
    if split == "test":
        return (
            f"This is a look at the test split, recorded in {ledger}: number {len(looks)} "
            f"there, number {own} of this checkpoint."
        )
    return (
        f"No look at the test split: {ledger} has {len(looks)} so far, {own} of this "
        "checkpoint. Epoch, calibration and thresholds were chosen on dev, so dev scores flatter."
    )


def looks_at(ledger: Path) -> list[dict[str, str]]:
    """Return the looks so far, by column."""
    return [dict(zip(COLUMNS, look, strict=True)) for look in _rows(ledger)]


def _rows(ledger: Path) -> list[list[str]]:
    """Read the looks so far, each as wide as `COLUMNS`."""
    if not ledger.exists():
        return []
    with ledger.open(encoding="utf-8", newline="") as file:
        header, *looks = list(csv.reader(file)) or [list(COLUMNS)]
    if tuple(header) != COLUMNS[: len(header)]:
        raise LedgerError(
            f"{ledger} is no ledger of looks at a test split (its first line is "
            f"{','.join(header)[:60]}): name another file with --ledger"
        )
    return [look + [""] * (len(COLUMNS) - len(look)) for look in looks]
