"""Runs of the accuracy study: train what is missing, score on test once a model and seed.

Each run has a folder named by a digest of its settings; what is there is not trained again, and a
run that was killed continues from its last epoch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from io import BytesIO
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Final

import numpy as np

from model.interface import Device
from model.kind import TextMode
from model.registry import kind_named, load_any
from model.study.figures import hush_torch_geometric
from model.study.ledger import LEDGER, note_look
from model.training.options import Run

if TYPE_CHECKING:
    from model.data.dataset import DataSet, Split
    from model.scoring.answers import Answers
    from model.serving.calibration import Calibration
    from model.study.baselines import BaselineName
    from model.study.rows import Row

NOTED: Final = "look-noted"


@dataclass(frozen=True, slots=True)
class Job:
    """One model to train: a row of the study with a seed."""

    row: Row
    seed: int
    data: Path
    runs: Path
    device: Device = "cpu"  # of a model that can be trained elsewhere

    @property
    def folder(self) -> Path:
        return self.runs / self.row.run_name(self.seed)

    @property
    def splits(self) -> tuple[Split, ...]:
        return ("dev", "test") if self.row.on_test else ("dev",)

    @property
    def done(self) -> bool:
        return all((self.folder / f"{split}.npz").is_file() for split in self.splits)


def jobs_of(rows: Sequence[Row], data: Path, runs: Path, device: Device = "cpu") -> list[Job]:
    """Return every model of the rows, longest first, so that two workers end together.

    A row that uses another row's weights brings that row along.
    """
    rows = list(rows)
    rows += [row.weights for row in rows if row.weights is not None]
    rows = [row for at, row in enumerate(rows) if row not in rows[:at]]
    jobs = [Job(row, seed, data, runs, device) for row in rows for seed in range(row.seeds)]
    return sorted(jobs, key=lambda job: -job.row.minutes)


def hours(jobs: Sequence[Job], workers: int) -> float:
    """Estimate the time that the jobs which are not done will take."""
    return sum(job.row.minutes for job in jobs if not job.done) / 60 / workers


def run_all(jobs: Sequence[Job], workers: int, ledger: Path) -> Iterator[Job]:
    """Train what is not trained yet; yield each job when it is done and its look is recorded."""
    for job in jobs:
        if job.done:
            note(job, ledger)
            yield job
    waiting = [job for job in jobs if not job.done]
    trained = [job for job in waiting if job.row.weights is None]
    derived = [job for job in waiting if job.row.weights is not None]  # once those are trained
    spawned = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawned, initializer=end_with_parent) as pool:
        for some in (trained, derived):
            running: dict[Future[None], Job] = {pool.submit(run_one, job): job for job in some}
            for finished in as_completed(running):
                finished.result()
                note(running[finished], ledger)
                yield running[finished]


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, however it was killed."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)  # in the middle of a training: it continues from its last epoch

    Thread(target=wait, daemon=True).start()


def run_one(job: Job) -> None:
    """Train one model; save its answers to dev, and to test where the row is scored on it."""
    hush_torch_geometric()
    if job.row.baseline is not None:
        _run_baseline(job, job.row.baseline)
        return
    from model.evaluate import answers_of
    from model.study.ablations import load, under
    from model.train_run import finished

    data, weights = data_of(job.row, job.data), job.row.weights
    if weights is None:
        _train(job, data)
        checkpoint = load(job.folder)
    else:
        checkpoint = under(load_any(replace(job, row=weights).folder), **job.row.model)
    for split in job.splits:
        answers = answers_of(checkpoint, data, split)
        save_answers(job.folder / f"{split}.npz", answers, checkpoint.calibration)
    if weights is None:
        finished(job.folder)


def _train(job: Job, data: DataSet) -> None:
    """Train the row's model into the job's folder, with its scores on dev."""
    from model.study.ablations import ablated, load
    from model.study.run_figures import run_figures
    from model.train_run import carry_out

    row, kind = job.row, kind_named(job.row.kind)
    command = f"emotrack accuracy --only {row.name}"
    text: TextMode = "vectors" if "text" in row.without else row.text
    plan = kind.plan(
        data,
        kind.study_options(seed=job.seed, text=text, device=job.device),
        Run(
            command=command,
            recipe_changes=row.recipe,
            model_changes=row.model,
            cache=job.runs / ".text",
        ),
    )
    carry_out(
        ablated(plan), job.folder, load=load, ledger=str(LEDGER), more=run_figures(data, command)
    )


def _run_baseline(job: Job, name: BaselineName) -> None:
    from model.study.baselines import fit_baseline, with_sentences

    data = data_of(job.row, job.data)
    if name != "majority":
        data = with_sentences(data, ("train", *job.splits), cache=job.runs / ".text")
    for split in job.splits:
        fitted = fit_baseline(name, data, split, seed=job.seed)
        save_answers(job.folder / f"{split}.npz", fitted.answers, fitted.calibration)


def data_of(row: Row, folder: Path) -> DataSet:
    """Read the row's data set, less its modalities, restaged and joined as the row has it."""
    from model.data.reader import read_data_set
    from model.data.splits import joined, restaged, without

    data = read_data_set(folder, row.set_name)
    if row.without:
        data = without(data, [m for m in row.without if m in data.widths])
    if row.stay:
        data = restaged(data, row.stay)
    return joined(data, row.joined) if row.joined else data


def note(job: Job, ledger: Path) -> None:
    """Record the look at test, once."""
    if not job.row.on_test or (job.folder / NOTED).exists():
        return
    from model.scoring.report import score
    from model.serving.calibration import Thresholds

    answers, calibration = load_answers(job.folder / "test.npz")
    labels = [str(number) for number in range(answers.classes)]
    report = score(answers, calibration, Thresholds(), labels)
    digest = job.folder / "digest"
    name = digest.read_text("utf-8").strip() if digest.exists() else job.folder.name
    note_look(ledger, name, job.row.set_name, report, now=datetime.now(UTC))
    (job.folder / NOTED).touch()


def save_answers(path: Path, answers: Answers, calibration: Calibration) -> None:
    """Save answers and their calibration as arrays; the file is whole or not there."""
    from model.atomic_files import write_whole

    fitted = np.array(json.dumps(asdict(calibration)))
    content = BytesIO()
    np.savez_compressed(content, allow_pickle=False, calibration=fitted, **asdict(answers))
    write_whole(path.parent, {path.name: content.getvalue()})


def load_answers(path: Path) -> tuple[Answers, Calibration]:
    """Read a file of `save_answers`."""
    from model.checkpoint_files import calibration_from
    from model.scoring.answers import Answers

    with np.load(path, allow_pickle=False) as arrays:
        stored = {field.name: arrays[field.name] for field in fields(Answers)}
        calibration = calibration_from(json.loads(str(arrays["calibration"])))
    return replace(Answers(**stored), dialogues=int(stored["dialogues"])), calibration


def chosen_on_dev(row: Row, runs: Path) -> tuple[int, Path]:
    """Return the seed with the best dev weighted F1 and its folder: the one to ship."""
    scores = []
    for seed in range(row.seeds):
        folder = runs / row.run_name(seed)
        if (folder / "metrics.json").is_file():
            metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
            scores.append((metrics["A1"]["value"], -seed, folder))
    best = max(scores)
    return -best[1], best[2]
