"""HRG-SSA's model card, in the form of `model.pcgnet.card`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from model.hrg_ssa.recipe import HrgRecipe
from model.hrg_ssa.train import HrgTrained
from model.scoring.card import filled_card
from model.scoring.report import Report


def hrg_model_card(
    trained: HrgTrained,
    report: Report,
    *,
    data: str,
    extractors: Mapping[str, str],
    recipe: HrgRecipe,
    seed: int,
    command: str,
) -> str:
    """Markdown for the checkpoint's README; `report` is of the dev split."""
    config = trained.model.config
    inputs = "\n".join(
        f"| {name} | {'words' if name == 'text' else config.widths[name]} | {extractors[name]} |"
        for name in config.widths
        if name in extractors
    )
    sizes = {k: v for k, v in asdict(config).items() if isinstance(v, int | float | tuple)}
    sizes.pop("labels"), sizes.pop("research")
    settings = ", ".join(f"{name}={value}" for name, value in {**asdict(recipe), **sizes}.items())
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
        command=command,
        epoch=trained.chosen.number,
        seed=seed,
        settings=settings,
        width=config.width,
        pooled=config.pooled,
        most_tokens=config.most_tokens,
        cut=trained.cut,
        words=_words(trained),
    )


def _words(trained: HrgTrained) -> str:
    text = trained.text
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
