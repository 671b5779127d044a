"""A whole training run: a model of any kind trained, and its folder written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model.checkpoint_files import LoadedCheckpoint, save_model, write_card
from model.errors import RecipeError
from model.evaluate import evaluate
from model.kind import Plan
from model.registry import load_any
from model.scoring.report import Report
from model.text.encode_sentences import sentences_of
from model.text.sentence_encoder import encoder_name
from model.text.trained_languages import trained_languages
from model.training.learning_curves import learning_curves
from model.training.loop import Trained
from model.training.progress import Listener

PROGRESS = "progress.pt"


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
) -> TrainedRun:
    """Train, save the checkpoint with its card and learning curves, and score it on dev.

    The scores are of the checkpoint as `load` reads it back. A killed run resumes after its last
    epoch when it is started again. `languages` are those of the option; the checkpoint states them,
    or those of the encoder. Raises `ModelError` where the sentences are in others.
    """
    plan = stating(plan, languages)
    listener.on_phase("training")
    trained = plan.train(folder / PROGRESS, listener)
    digest = save_model(
        folder,
        trained.model,
        name=plan.kind,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors=plan.extractors(trained),
        card="",  # written below: it has the scores of the saved checkpoint
        text=trained.text,
        languages=plan.languages,
    )
    report = evaluate(load(folder), plan.data, "dev", threads=plan.threads, encoder=plan.encoder)
    write_card(folder, plan.card(trained, report))
    learning_curves(trained.history, folder / "learning-curves.png")
    return TrainedRun(folder, digest, report, trained)


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
