"""HRG-SSA's model card, in the form of PCGNet's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from model.hrg_ssa.model import HrgSsa
from model.kind import Plan
from model.scoring.card import filled_card
from model.scoring.report import Report
from model.training.loop import Trained


def hrg_model_card(plan: Plan, trained: Trained[HrgSsa], report: Report) -> str:
    """Return Markdown for the checkpoint's README; `report` is of the dev split."""
    config, data, extractors = trained.model.config, plan.data.name, plan.extractors(trained)
    inputs = "\n".join(
        f"| {name} | {'words' if name == 'text' else config.widths[name]} | {extractors[name]} |"
        for name in config.widths
        if name in extractors
    )
    sizes = {k: v for k, v in asdict(config).items() if isinstance(v, int | float | tuple)}
    sizes.pop("labels"), sizes.pop("research")
    settings = ", ".join(
        f"{name}={value}" for name, value in {**asdict(plan.recipe), **sizes}.items()
    )
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
        width=config.width,
        pooled=config.pooled,
        most_tokens=config.most_tokens,
        cut=trained.cut,
        words=_words(trained),
    )


def _words(trained: Trained[HrgSsa]) -> str:
    text = trained.text
    assert text is not None, "words are always read through an encoder"
    if not text.delta:
        return (
            f"Words are heard through {text.name} as it is (the installed package or folder whose "
            f"digest begins {text.base[:12]}; not in the checkpoint)."
        )
    return (
        f"Words are heard through {text.name}, of which the upper layers were tuned with another "
        "model of the project on the same train split (`encoder.safetensors` holds what was added "
        f"to them, 8 bits a weight; the rest is of the installed package, digest {text.base[:12]})."
    )
