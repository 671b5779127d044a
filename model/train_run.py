"""A whole training run: sentences encoded, a model trained, and its folder written.

What `emotrack train` and the accuracy tables share.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.checkpoint_files import write_card
from model.evaluate import evaluate
from model.hrg_ssa.card import hrg_model_card
from model.hrg_ssa.checkpoint import load_hrg_checkpoint, save_hrg_checkpoint
from model.hrg_ssa.config import FELT
from model.hrg_ssa.train import train_hrg_ssa
from model.pcgnet.card import model_card
from model.pcgnet.checkpoint import load_checkpoint, save_checkpoint
from model.pcgnet.train import Trained, train
from model.scoring.report import Report
from model.text.encode_sentences import frozen_encoder
from model.text.sentence_encoder import TextEncoder
from model.text.token_encoder import TokenEncoder
from model.training.learning_curves import learning_curves
from model.training.loop import Listener

if TYPE_CHECKING:
    from model.hrg_ssa.train import HrgTrained
from model.hrg_ssa.plan import HrgPlan
from model.pcgnet.plan import Plan

PROGRESS = "progress.pt"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in its folder."""

    folder: Path
    digest: str
    report: Report  # of dev
    trained: Trained | HrgTrained = field(repr=False)


def carry_out(chosen: Plan, folder: Path, listener: Listener | None = None) -> Outcome:
    """Train, save the checkpoint with its card and learning curves; score what was saved on dev.

    A run that was killed goes on from its last epoch when it is carried out again.
    """
    listener = listener or Listener()
    listener.on_phase("training")
    trained = train(
        chosen.data,
        chosen.config,
        chosen.recipe,
        seed=chosen.seed,
        threads=chosen.threads,
        encoder=chosen.encoder,
        progress=folder / PROGRESS,
        on_step=listener.on_share,
        on_epoch=listener.on_epoch,
    )
    text = _text_encoder(chosen, trained)
    data = chosen.data
    if text is not None:
        data = replace(data, extractors={**data.extractors, "text": text.extractor})

    digest = save_checkpoint(
        folder,
        trained.model,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors=data.extractors,
        card="",  # it tells the scores of what is saved here
        text=text,
    )
    report = evaluate(
        load_checkpoint(folder), data, "dev", threads=chosen.threads, encoder=chosen.encoder
    )
    card = model_card(
        trained,
        report,
        data=data.name,
        extractors=data.extractors,
        recipe=chosen.recipe,
        seed=chosen.seed,
        command=chosen.command,
    )
    write_card(folder, card)
    learning_curves(trained.history, folder / "learning-curves.png")
    return Outcome(folder, digest, report, trained)


def finished(folder: Path) -> None:
    """Drop what only a run that goes on needs."""
    (folder / PROGRESS).unlink(missing_ok=True)


def _text_encoder(chosen: Plan, trained: Trained) -> TextEncoder | None:
    if trained.text is not None or chosen.encoder is None:
        return trained.text
    return frozen_encoder(chosen.encoder, chosen.recipe.mixed_layers)


def carry_out_hrg_ssa(chosen: HrgPlan, folder: Path, listener: Listener | None = None) -> Outcome:
    """Train, save the checkpoint with its card and learning curves; score what was saved on dev.

    A run that was killed goes on from its last epoch when it is carried out again.
    """
    listener = listener or Listener()
    words = TokenEncoder.load(
        chosen.encoder,
        chosen.text,
        layers=chosen.recipe.mixed_layers,
        most_tokens=chosen.config.most_tokens,
    )
    listener.on_phase("training")
    trained = train_hrg_ssa(
        chosen.data,
        chosen.config,
        chosen.recipe,
        encoder=words,
        start=chosen.start,
        seed=chosen.seed,
        threads=chosen.threads,
        device=chosen.device,
        cache=chosen.cache,
        progress=folder / PROGRESS,
        on_step=listener.on_share,
        on_epoch=listener.on_epoch,
    )
    data = chosen.data
    felt: dict[str, str] = {name: data.extractors[name] for name in FELT if name in data.extractors}
    extractors: dict[str, str] = {"text": trained.text.extractor, **felt}

    digest = save_hrg_checkpoint(
        folder,
        trained.model,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors=extractors,
        card="",  # it tells the scores of what is saved here
        text=trained.text,
    )
    report = evaluate(
        load_hrg_checkpoint(folder), data, "dev", threads=chosen.threads, encoder=chosen.encoder
    )
    card = hrg_model_card(
        trained,
        report,
        data=data.name,
        extractors=extractors,
        recipe=chosen.recipe,
        seed=chosen.seed,
        command=chosen.command,
    )
    write_card(folder, card)
    learning_curves(trained.history, folder / "learning-curves.png")
    return Outcome(folder, digest, report, trained)
