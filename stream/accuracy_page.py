"""docs/accuracy.md: the tables of the accuracy study, from the answers its runs kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from stream.accuracy import chosen_on_dev, load_answers

if TYPE_CHECKING:
    from model.bootstrap import Difference, ScoreName
    from model.data import Split
    from model.study import Row

Scores = dict["ScoreName", NDArray[np.float64]]  # [1 + resamples], mean over seeds

SHOWN: Final[tuple[tuple[ScoreName, str, float], ...]] = (
    ("weighted_f1", "wF1 %", 100.0),
    ("accuracy", "accuracy %", 100.0),
    ("shift_auroc", "shift AUROC", 1.0),
    ("shift_c2_weighted_f1", "C² wF1 %", 100.0),
    ("emotion_ece", "ECE emotion %", 100.0),
    ("shift_ece", "ECE shift %", 100.0),
)


@dataclass(frozen=True, slots=True)
class Scored:
    """A row on a split: its scores seed by seed and their mean on every resample."""

    row: Row
    seeds: dict[ScoreName, list[float]]
    mean: Scores

    def cell(self, name: ScoreName, factor: float) -> str:
        """Mean ± standard deviation over seeds, and the 95 % interval of the mean."""
        from model.bootstrap import interval

        values = [factor * value for value in self.seeds[name]]
        found = interval(self.mean[name])
        digits = 3 if factor == 1.0 else 1
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        low, high = factor * found.low, factor * found.high
        return f"{np.mean(values):.{digits}f}{spread} ({low:.{digits}f} to {high:.{digits}f})"


def scored(row: Row, split: Split, runs: Path) -> Scored | None:
    """What a row's runs answered on a split; None where a run is missing."""
    from model.bootstrap import dialogue_weights, resampled_scores
    from model.checkpoint import load_checkpoint

    each = []
    for seed in range(row.seeds):
        folder = runs / row.run_name(seed)
        if not (folder / f"{split}.npz").is_file():
            return None
        answers = load_answers(folder / f"{split}.npz")
        drawn = dialogue_weights(answers.dialogues)
        each.append(resampled_scores(answers, load_checkpoint(folder).calibration, drawn))
    names = list(each[0])
    return Scored(
        row,
        {name: [float(found[name][0]) for found in each] for name in names},
        {name: np.mean([found[name] for found in each], axis=0) for name in names},
    )


def gap(one: Scored, other: Scored, name: ScoreName) -> Difference:
    """`one` minus `other`, means over seeds, on the same resamples of the same dialogues."""
    from model.bootstrap import differences

    return next(d for d in differences(one.mean, other.mean) if d.score == name)


def table(found: Sequence[Scored], against: Scored | None = None) -> str:
    """Markdown: one row a model, and its weighted F1 beside that of `against`."""
    titles = ["model", "seeds", *(title for _, title, _ in SHOWN)]
    if against is not None:
        titles.append(f"wF1 less *{against.row.name}*")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for one in found:
        cells = [f"**{one.row.name}**: {one.row.says}", str(one.row.seeds)]
        cells += [one.cell(name, factor) for name, _, factor in SHOWN]
        if against is not None:
            cells.append("" if one is against else _gap_cell(one, against))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _gap_cell(one: Scored, against: Scored) -> str:
    found = gap(one, against, "weighted_f1")
    low, high = 100 * found.low, 100 * found.high
    return f"{100 * found.value:+.1f} ({low:+.1f} to {high:+.1f}): {found.verdict}"


def shipped(row: Row, runs: Path) -> str:
    """Which run of a row dev chose, as a sentence with its digest."""
    seed, folder = chosen_on_dev(row, runs)
    digest = (folder / "digest").read_text("utf-8").strip()
    return f"seed {seed} of *{row.name}*, the best of its seeds on dev; digest `{digest[:16]}`"
