"""docs/accuracy.md: the tables of the accuracy study, from the answers its runs kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from model.study.run import chosen_on_dev, load_answers

if TYPE_CHECKING:
    from datetime import date

    from model.data.dataset import Split
    from model.scoring.bootstrap import Difference, ScoreName
    from model.study.rows import Row

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
        from model.scoring.bootstrap import interval

        values = [factor * value for value in self.seeds[name]]
        found = interval(self.mean[name])
        digits = 3 if factor == 1.0 else 1
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        low, high = factor * found.low, factor * found.high
        return f"{np.mean(values):.{digits}f}{spread} ({low:.{digits}f} to {high:.{digits}f})"


def scored(row: Row, split: Split, runs: Path) -> Scored | None:
    """What a row's finished runs answered on a split; None where none is."""
    from model.scoring.bootstrap import dialogue_weights, resampled_scores

    each = []
    for seed in range(row.seeds):
        folder = runs / row.run_name(seed)
        if not (folder / f"{split}.npz").is_file():
            continue
        answers, calibration = load_answers(folder / f"{split}.npz")
        drawn = dialogue_weights(answers.dialogues)
        each.append(resampled_scores(answers, calibration, drawn))
    if not each:
        return None
    names = list(each[0])
    return Scored(
        row,
        {name: [float(found[name][0]) for found in each] for name in names},
        {name: np.mean([found[name] for found in each], axis=0) for name in names},
    )


def gap(one: Scored, other: Scored, name: ScoreName) -> Difference:
    """`one` minus `other`, means over seeds, on the same resamples of the same dialogues."""
    from model.scoring.bootstrap import differences

    return next(d for d in differences(one.mean, other.mean) if d.score == name)


def table(found: Sequence[Scored], against: Scored | None = None) -> str:
    """Markdown: one row a model, and its weighted F1 beside that of `against`."""
    titles = ["model", "seeds", *(title for _, title, _ in SHOWN)]
    if against is not None:
        titles.append(f"wF1 less *{against.row.name}*")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for one in found:
        ran = len(one.seeds["weighted_f1"])
        seeds = str(ran) if ran == one.row.seeds else f"{ran} of {one.row.seeds}"
        cells = [f"**{one.row.name}**: {one.row.says}", seeds]
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


_HEAD: Final = """\
# Accuracy

Written by `make accuracy` ({today}); do not edit. Every number is causal (an answer has heard its
own utterance and earlier ones), in the stored precision, of a model whose epoch, calibration and
thresholds were chosen on the dev split. Cells: mean over seeds ± standard deviation over seeds,
then the 95 % interval of the mean by bootstrap over whole dialogues (1,000 resamples). Differences
are paired: the same resamples of the same dialogues; *within noise* means that the 95 % interval
covers zero.

The published numbers of PCGNet use other features, a bidirectional encoder and the test split for
selection: they are not the same experiment and stand in no table here.
"""

_ON_TEST: Final = """\
## MELD, test split

2,610 utterances; the shift scores are over 1,864 pairs, of which 53.8 % shift. Each model looked at
the split once a seed, after everything was chosen; `docs/test-ledger.csv` has every look there ever
was ({looks} lines, of MELD {meld}).

{table}

The price of causality, weighted F1 of the twin less that of frozen: {price}.

Shipped: {shipped}.
"""

_ON_DEV: Final = """\
## MELD, dev split

What was chosen, was chosen here; so these flatter. Baselines hear the frozen row's vectors.

{main}

### What each part is worth

Frozen text, three seeds each, on dev: no look at test was needed. Calibration is fitted on this
same split.

{ablations}
"""

_OTHERS: Final = """\
## Other sets, by the same command and settings

*Re-cut* joins MELD's dialogues to long ones. *Restaged* has its utterances said again in long talks
of two speakers whose emotions last (one stays with chance 0.7 at least; in MELD's own pairs 46 of
100 do): every sentence and sound is real, their course is made. There the past is worth much, and
the Markov chain, which learns the law that made it, says how much.

{table}
"""


_HRG: Final = """## HRG-SSA

Without persona, on the same audio, video and frozen MiniLM as PCGNet's *frozen* row beside it.
*hrg-gold* is told the true labels of past utterances, as the published prediction code is: **a
leak**, measured to know its size, and refused by the worker. All *hrg-* rows here are the same
weights: a difference is what being told is worth, not how two trainings fell out.

{honesty}

### What the trained model leans on

On dev, its own weights with a part switched off.

{off}

### What each part of it is worth

On dev, trained without it: one seed each, beside five of *hrg-own*, so a difference has the luck of
one training in it.

{parts}
"""


def _hrg_section(runs: Path) -> str:
    """Own answers against true labels and none; empty where none of its rows was trained."""
    from model.study.rows import FROZEN, HRG_HONESTY, HRG_OFF, HRG_OWN, HRG_PARTS

    tables = []
    for split in ("test", "dev"):
        found = _found((FROZEN, *HRG_HONESTY), split, runs)
        tables.append(f"{split.capitalize()}:\n\n{table(found, _of(HRG_OWN, found))}")
    off, parts = (_found((HRG_OWN, *rows), "dev", runs) for rows in (HRG_OFF, HRG_PARTS))
    if not parts:
        return ""
    return "\n" + _HRG.format(
        honesty="\n\n".join(tables),
        off=table(off, _of(HRG_OWN, off)),
        parts=table(parts, _of(HRG_OWN, parts)),
    )


def whole_page(runs: Path, *, looks: Sequence[dict[str, str]], today: date) -> str:
    """The page, from the runs that are there; rows without any are left out."""
    from model.study.rows import ABLATIONS, ADAPTED, BASELINES, FROZEN, MAIN, OTHER_SETS, TWIN

    test = _found((*MAIN, *BASELINES), "test", runs)
    dev = _found((*MAIN, *BASELINES), "dev", runs)
    parts = _found((FROZEN, *ABLATIONS), "dev", runs)
    frozen, twin = (_of(row, test) for row in (FROZEN, TWIN))
    price = "not run" if frozen is None or twin is None else _gap_cell(twin, frozen)
    text = _HEAD.format(today=today.isoformat())
    text += "\n" + _ON_TEST.format(
        looks=len(looks),
        meld=sum(look["set"] == "meld" for look in looks),
        table=table(test, frozen),
        price=price,
        shipped=shipped(ADAPTED, runs) if _of(ADAPTED, test) else "none",
    )
    text += "\n" + _ON_DEV.format(
        main=table(dev, _of(FROZEN, dev)), ablations=table(parts, _of(FROZEN, parts))
    )
    others = []
    splits: tuple[Split, ...] = ("test", "dev")
    for split in splits:
        found = _found(OTHER_SETS, split, runs)
        if found:
            others.append(f"{split.capitalize()}:\n\n{table(found)}")
    return text + "\n" + _OTHERS.format(table="\n\n".join(others)) + _hrg_section(runs)


def _found(rows: Sequence[Row], split: Split, runs: Path) -> list[Scored]:
    return [one for row in rows if (one := scored(row, split, runs)) is not None]


def _of(row: Row, found: Sequence[Scored]) -> Scored | None:
    return next((one for one in found if one.row is row), None)
