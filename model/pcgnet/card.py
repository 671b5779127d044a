"""The model card that lies beside the weights: what it is, what it was fed, how good, what not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from model.kind import Plan
from model.pcgnet.model import Pcgnet
from model.pcgnet.recipe import Recipe
from model.scoring.card import filled_card
from model.scoring.report import Report
from model.training.loop import Trained


def model_card(plan: Plan, trained: Trained[Pcgnet], report: Report) -> str:
    """Markdown for the checkpoint's README; `report` is of the dev split."""
    config, data, extractors = trained.model.config, plan.data.name, plan.extractors(trained)
    inputs = "\n".join(
        f"| {name} | {config.widths[name]} | {extractors[name]} |" for name in extractors
    )
    dropouts = {name: value for name, value in asdict(config).items() if "dropout" in name}
    chosen = {**asdict(plan.recipe), **dropouts}
    settings = ", ".join(f"{name}={value}" for name, value in chosen.items())
    weights = sum(p.numel() for p in trained.model.parameters())
    return filled_card(
        Path(__file__).with_name("card.md"),
        report,
        trained.thresholds,
        data=data,
        labels=", ".join(config.labels),
        weights=f"{weights:,}",
        window=config.recurrence.window,
        clip=f"{config.input_clip:g}",
        inputs=inputs,
        command=plan.command,
        epoch=trained.chosen.number,
        seed=plan.seed,
        settings=settings,
        hidden=config.hidden,
        words=_words(trained, plan.recipe),
    )


def _words(trained: Trained[Pcgnet], recipe: Recipe) -> str:
    """Say how raw text gets in."""
    if trained.text is None or not trained.text.delta:
        return "Raw text is encoded by the worker with the sentence encoder named above."
    return (
        f"Raw text is encoded by the worker with {trained.text.name}, of which the last "
        f"{recipe.tuned_layers} layers were tuned with this model on the same train split "
        f"(`encoder.safetensors` holds what was added to them, 8 bits a weight; the rest is from "
        f"the installed package). A sentence's vector is the mean over its tokens and over the "
        f"last {trained.text.layers} layers, scaled to length 1. Vectors of the untuned encoder "
        "are refused."
    )
