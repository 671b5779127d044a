"""HRG-SSA's model card, in the form of `model.pcgnet.card`."""

from __future__ import annotations

from dataclasses import asdict

from model.hrg_ssa.model import HrgSsa
from model.kind import Plan
from model.scoring.card import how_good, limits
from model.scoring.report import Report
from model.training.loop import Trained


def hrg_model_card(plan: Plan, trained: Trained[HrgSsa], report: Report) -> str:
    """Markdown for the checkpoint's README; `report` is of the dev split."""
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
    return f"""\
# HRG-SSA, causal, trained on {data}

Answers utterance by utterance with a sentence that names the emotion of the utterance
({", ".join(config.labels)}) and its sentiment, from which calibrated probabilities are read, and,
from a speaker's second utterance on, how likely that speaker's emotion has just shifted. It hears
the past only, and of the past what it said itself: never a label that a person gave.
{weights:,} weights, stored as float16; width {config.width}, window {config.recurrence.window}
utterances, {config.pooled} vectors kept of each.

## Inputs

Words, and where there are any, audio and video vectors of the same utterance. Text vectors are not
read. Values are given raw: the normalisation (mean and deviation of the train split, bounded to
{config.input_clip:g} deviations) is inside the checkpoint. Of a text, the first
{config.most_tokens} tokens are read, the rest is cut; {trained.cut} of the training and dev
sentences were. An utterance without words is answered from audio, video and the past.

| input | width | recipe |
|---|---|---|
{inputs}

How to compute them: `emotrack extract audio | video`; the exact settings are in `docs/data.md`.
{_words(trained)}

## Training

`{plan.command}`

Train split of {data} only; the epoch ({trained.chosen.number}) was chosen on the dev split by
weighted F1, the model being told its own past answers; one seed ({plan.seed}). {settings}

{how_good(report, trained.thresholds)}

{limits(data, report.class_f1)}"""


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
