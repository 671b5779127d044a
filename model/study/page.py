"""docs/accuracy.md: the tables of the accuracy study, from the stored answers of its runs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

import numpy as np

from model.scoring.bootstrap import (
    Difference,
    Resampled,
    ScoreName,
    dialogue_weights,
    differences,
    interval,
    resampled_scores,
)
from model.study import rows as study
from model.study.rows import Row
from model.study.run import chosen_on_dev, load_answers

if TYPE_CHECKING:
    from datetime import date

    from model.data.dataset import Split

HERE: Final = Path(__file__).parent
OUTSIDE: Final = "†"  # a mean outside its interval: page.md says why

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
    mean: Resampled

    def cell(self, name: ScoreName, factor: float) -> str:
        """Return mean ± standard deviation over seeds, and the 95 % interval of the mean."""
        values = [factor * value for value in self.seeds[name]]
        found = interval(self.mean[name])
        digits = 3 if factor == 1.0 else 1
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        middle, low, high = (
            f"{value:.{digits}f}"
            for value in (np.mean(values), factor * found.low, factor * found.high)
        )
        inside = float(low) <= float(middle) <= float(high)  # as they are printed
        return f"{middle}{spread} ({low} to {high}){'' if inside else ' ' + OUTSIDE}"


def scored(row: Row, split: Split, runs: Path) -> Scored | None:
    """Score the answers of a row's finished runs on a split; None without any."""
    each = []
    for seed in range(row.seeds):
        stored = runs / row.run_name(seed) / f"{split}.npz"
        if stored.is_file():
            answers, calibration = load_answers(stored)
            drawn = dialogue_weights(answers.dialogues)
            each.append(resampled_scores(answers, calibration, drawn))
    if not each:
        return None
    names = list(each[0])
    return Scored(
        row,
        {name: [float(scores[name][0]) for scores in each] for name in names},
        {name: np.mean([scores[name] for scores in each], axis=0) for name in names},
    )


def gap(one: Scored, other: Scored, name: ScoreName) -> Difference:
    """Return `one` minus `other`, means over seeds, on the same resamples of the same dialogues."""
    return next(d for d in differences(one.mean, other.mean) if d.score == name)


def table(models: Sequence[Scored], against: Row | None = None) -> str:
    """Return Markdown: a line a model, with its weighted F1 less that of the row `against`."""
    reference = _of(against, models)
    titles = ["model", "seeds", *(title for _, title, _ in SHOWN)]
    if reference is not None:
        titles.append(f"wF1 less *{reference.row.name}*")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for one in models:
        ran = len(one.seeds["weighted_f1"])
        seeds = str(ran) if ran == one.row.seeds else f"{ran} of {one.row.seeds}"
        cells = [f"**{one.row.name}**: {one.row.description}", seeds]
        cells += [one.cell(name, factor) for name, _, factor in SHOWN]
        if reference is not None:
            cells.append("" if one is reference else _gap_cell(one, reference))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _gap_cell(one: Scored, other: Scored) -> str:
    f1 = gap(one, other, "weighted_f1")
    return f"{100 * f1.value:+.1f} ({100 * f1.low:+.1f} to {100 * f1.high:+.1f}): {f1.verdict}"


def whole_page(runs: Path, *, looks: Sequence[dict[str, str]], today: date) -> str:
    """Return the page of the runs that are there; rows without any are left out."""
    main = (*study.MAIN, *study.BASELINES)
    test, dev = _scored(main, "test", runs), _scored(main, "dev", runs)
    frozen, twin = (_of(row, test) for row in (study.FROZEN, study.TWIN))
    text = _filled(
        "page.md",
        today=today.isoformat(),
        plainly=plainly(
            {one.row.name: one for one in (*test, *_scored(study.OTHER_SETS, "test", runs))}
        ),
        looks=len(looks),
        meld=sum(look["set"] == "meld" for look in looks),
        test=table(test, study.FROZEN),
        price="not run" if frozen is None or twin is None else _gap_cell(twin, frozen),
        shipped=_shipped(study.ADAPTED, runs) if _of(study.ADAPTED, test) else "none",
        main=table(dev, study.FROZEN),
        ablations=table(_scored((study.FROZEN, *study.ABLATIONS), "dev", runs), study.FROZEN),
        others=by_split(study.OTHER_SETS, runs),
    )
    own = study.HRG_OWN
    parts = _scored((own, *study.HRG_PARTS), "dev", runs)
    if not parts:
        return text
    return f"{text}\n" + _filled(
        "page_hrg_ssa.md",
        honesty=by_split((study.FROZEN, *study.HRG_HONESTY), runs, own),
        off=table(_scored((own, *study.HRG_OFF), "dev", runs), own),
        parts=table(parts, own),
    )


def plainly(rows: Mapping[str, Scored]) -> str:
    """Return the summary of MELD's test split in plain words, of the rows by name."""
    if not {"adapted", "majority", "logistic", "frozen"} <= set(rows):
        return "The rows that a summary needs have not been run."

    def of(name: str, score: ScoreName) -> float:
        return 100 * float(np.mean(rows[name].seeds[score]))

    best = "adapted"
    emory = ""
    if {"emorynlp", "emorynlp-logistic"} <= set(rows):
        emory = (
            " On EmoryNLP, a set with finer emotions and text alone, weighted F1 is "
            f"{of('emorynlp', 'weighted_f1'):.1f} %, of logistic regression "
            f"{of('emorynlp-logistic', 'weighted_f1'):.1f} %."
        )
    said = (
        f"Of 100 utterances of MELD's test split, the kind of model that is shipped (*{best}*) "
        f"names the emotion of {of(best, 'accuracy'):.0f} as the annotators did. Always answering "
        f"neutral is right for {of('majority', 'accuracy'):.0f}, logistic regression that hears "
        f"one utterance at a time for {of('logistic', 'accuracy'):.0f}. Its weighted F1 is "
        f"{of(best, 'weighted_f1'):.1f} %, theirs {of('majority', 'weighted_f1'):.1f} and "
        f"{of('logistic', 'weighted_f1'):.1f} %; without tuning the sentence encoder (*frozen*) it "
        f"is {of('frozen', 'weighted_f1'):.1f} %. Given a speaker who has just changed emotion and "
        f"one who has not, it finds the right one {of(best, 'shift_auroc'):.0f} times of 100 (a "
        f"coin: 50). The confidence it states is off by {of(best, 'emotion_ece'):.1f} points, the "
        f"probability of a shift by {of(best, 'shift_ece'):.1f}.{emory}"
    )
    return textwrap.fill(said, 100, break_on_hyphens=False)


def _filled(template: str, **values: object) -> str:
    return Template((HERE / template).read_text("utf-8")).substitute(values)


def _shipped(row: Row, runs: Path) -> str:
    """Name the run of a row that dev chose, with its digest."""
    seed, folder = chosen_on_dev(row, runs)
    digest = (folder / "digest").read_text("utf-8").strip()
    return f"seed {seed} of *{row.name}*, the best of its seeds on dev; digest `{digest[:16]}`"


def by_split(rows: Sequence[Row], runs: Path, against: Row | None = None) -> str:
    """Return a table for test and one for dev, less those without a row."""
    splits: tuple[Split, ...] = ("test", "dev")
    return "\n\n".join(
        f"{split.capitalize()}:\n\n{table(models, against)}"
        for split in splits
        if (models := _scored(rows, split, runs))
    )


def _scored(rows: Sequence[Row], split: Split, runs: Path) -> list[Scored]:
    return [one for row in rows if (one := scored(row, split, runs)) is not None]


def _of(row: Row | None, models: Sequence[Scored]) -> Scored | None:
    return next((one for one in models if one.row is row), None)
