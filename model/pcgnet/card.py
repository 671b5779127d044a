"""The model card that lies beside the weights: what it is, what it was fed, how good, what not."""

from __future__ import annotations

from dataclasses import asdict

from model.kind import Plan
from model.pcgnet.model import Pcgnet
from model.pcgnet.recipe import Recipe
from model.scoring.card import how_good, limits
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
    return f"""\
# PCGNet, causal, trained on {data}

Answers utterance by utterance: the emotion of the utterance ({", ".join(config.labels)}) and, from
a speaker's second utterance on, how likely that speaker's emotion has just shifted. It hears the
past only. {weights:,} weights, stored as float16; hidden width {config.hidden}, window
{config.recurrence.window} utterances.

## Inputs

Any subset of them; each vector describes one utterance alone. Values are given raw: the
normalisation (mean and deviation of the train split, bounded to {config.input_clip:g} deviations)
is inside the checkpoint. A value that could not be measured must be replaced before publishing, by
the train mean of its column.

| input | width | recipe |
|---|---|---|
{inputs}

How to compute them: `emotrack extract audio | video | text`; the exact settings of each (pitch
floor, frames, columns, units) are in `docs/data.md`. {_words(trained, plan.recipe)}

## Training

`{plan.command}`

Train split of {data} only; the epoch ({trained.chosen.number}) was chosen on the dev split by
weighted F1; one seed ({plan.seed}). {settings}

{how_good(report, trained.thresholds)}

{limits(data, report.class_f1)}"""


def _words(trained: Trained[Pcgnet], recipe: Recipe) -> str:
    """How raw text gets in."""
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
