"""A whole training run: a model of any kind trained, and its folder written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from model.atomic_files import write_whole
from model.checkpoint_files import (
    DIGEST_FILE,
    ENCODER_FILE,
    LoadedCheckpoint,
    save_model,
    write_card,
)
from model.errors import CheckpointError, RecipeError
from model.evaluate import evaluate
from model.kind import Plan
from model.registry import load_any
from model.scoring.report import Report
from model.text.encode_sentences import sentences_of
from model.text.sentence_encoder import encoder_name
from model.text.trained_languages import trained_languages
from model.training.finished import RUN_FILE, run_file
from model.training.learning_curves import learning_curves
from model.training.loop import Trained
from model.training.progress import PROGRESS, Listener

WRITING: Final = ".writing"  # in the run's folder: files of a checkpoint that is not complete
MoreFiles = Callable[["TrainedRun"], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished run: its folder's checkpoint, and the scores of that."""

    folder: Path
    digest: str
    report: Report  # of dev
    trained: Trained[Any] = field(repr=False)


def carry_out(
    plan: Plan,
    folder: Path,
    listener: Listener = Listener(),
    load: Callable[[Path], LoadedCheckpoint] = load_any,
    languages: str | None = None,
    ledger: str = "",
    more: MoreFiles = lambda _: {},
) -> TrainedRun:
    """Train, save the checkpoint with its card and learning curves, and score it on dev.

    All files, those of `more` too, are written aside and moved into `folder` at the end, the
    digest last: a run that is killed or fails leaves no part of a checkpoint.

    The scores are of the checkpoint as `load` reads it back. A killed run resumes after its last
    epoch when it is started again. `languages` are those of the option; the checkpoint states them,
    or those of the encoder; the card names the `ledger` of looks at test. Raises `ModelError`
    where the sentences are in others.
    """
    identity = plan.identity(languages)
    plan = replace(stating(plan, languages), ledger=ledger)
    listener.on_phase("training")
    trained = plan.train(folder / PROGRESS, listener)
    aside = folder / WRITING
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed just here
    try:
        outcome = _written(plan, trained, folder, aside, load)
        files = {RUN_FILE: run_file(identity, plan.command), **more(outcome)}
        with _writing(folder):
            learning_curves(trained.history, aside / "learning-curves.png")
            write_whole(aside, files)
            _move(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return outcome


def _written(
    plan: Plan,
    trained: Trained[Any],
    folder: Path,
    aside: Path,
    load: Callable[[Path], LoadedCheckpoint],
) -> TrainedRun:
    """Write the checkpoint of `folder` to `aside`, with the card of its scores."""
    digest = save_model(
        aside,
        trained.model,
        name=plan.kind,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors=plan.extractors(trained),
        card="",  # written below: it has the scores of the saved checkpoint
        text=trained.text,
        languages=plan.languages,
    )
    report = evaluate(load(aside), plan.data, "dev", threads=plan.threads, encoder=plan.encoder)
    write_card(aside, plan.card(trained, report))
    return TrainedRun(folder, digest, report, trained)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise `CheckpointError` where a file of the run cannot be written."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror}): make room and run the same command "
            f"again; {PROGRESS} has the training"
        ) from error


def _move(aside: Path, folder: Path) -> None:
    """Move complete files into the run's folder; without the digest they are no checkpoint."""
    (folder / DIGEST_FILE).unlink(missing_ok=True)
    if not (aside / ENCODER_FILE).exists():
        (folder / ENCODER_FILE).unlink(missing_ok=True)
    for file in sorted(aside.iterdir(), key=lambda file: file.name == DIGEST_FILE):
        os.replace(file, folder / file.name)


def stating(plan: Plan, languages: str | None) -> Plan:
    """Return the plan with the languages that its checkpoint will state. Raises `ModelError`."""
    if plan.config.widths.get("text", 1) == 0:
        if languages is not None:
            raise RecipeError("this model has no text input: leave --languages out")
        return plan
    of_vectors = plan.data.extractors.get("text", "")
    reads = of_vectors if plan.encoder is None else encoder_name(plan.encoder)
    sentences = sentences_of(plan.data.split("train"))
    return replace(plan, languages=trained_languages(languages, reads, sentences))


def finished(folder: Path) -> None:
    """Remove the file that only a resumed run needs."""
    (folder / PROGRESS).unlink(missing_ok=True)
