"""Train a causal PCGNet on labelled conversations: one seed, chosen on dev, deterministic.

The test split is never read. The result is the exponential average of the weights at the epoch
with the best dev weighted F1, rounded as a checkpoint stores them. Text comes in as vectors, or the
upper layers of a sentence encoder are tuned together with the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.data.dataset import DataSet, Dialogue, sentiment_of
from model.interface import INPUTS
from model.pcgnet.collate import Batch, ConversationTensors
from model.pcgnet.config import TEXT, PcgnetConfig
from model.pcgnet.model import Pcgnet, WholeOutput
from model.pcgnet.recipe import Recipe
from model.pcgnet.whole import answer, conversation_tensors
from model.scoring.answers import Answers
from model.text.encode_sentences import with_text
from model.text.tuning import TunedEncoder
from model.training.loop import (
    TrainingLoop,
    as_saved,
    class_weight,
    decaying,
    normalise_inputs,
    set_normalisation,
)
from model.training.losses import (
    LogVariances,
    focal_loss,
    log_sum,
    moved_loss,
    shift_contrast,
    shift_labels,
    shift_loss,
    weighted,
)
from state.window import Recurrence


@dataclass(frozen=True, slots=True)
class _Sample:
    tensors: ConversationTensors
    labels: Tensor  # [T]
    states: Sequence[Tensor]  # of the encoder's frozen layers, T of [tokens, width]; or empty


def fitting_config(
    data: DataSet, *, hidden: int = 128, window: int = 10, input_dropout: float = 0.4
) -> PcgnetConfig:
    """Return settings that fit a set's labels and vector widths; a missing input has width 0."""
    widths: dict[str, Any] = {"text": 0, "audio": 0, "video": 0, **data.widths}
    return PcgnetConfig(
        data.labels,
        **widths,  # of a set without personas, theirs is the default
        sentiment=sentiment_of(data.labels, data.sentiment),
        hidden=hidden,
        input_dropout=input_dropout,
        recurrence=Recurrence(window=window),
    )


class _Networks(nn.Module):
    """Everything that is trained: the model, the balance of its losses, and a tuned encoder."""

    def __init__(self, model: Pcgnet, encoder: TunedEncoder | None) -> None:
        super().__init__()
        self.model = model
        self.balance = LogVariances(("emotion", "shift", "moved", "contrast"))
        self.encoder = encoder
        self.text_head = None if encoder is None else nn.Linear(encoder.width, model.config.classes)


class Training(TrainingLoop[_Sample, _Networks, Pcgnet]):
    """One run of PCGNet."""

    config: PcgnetConfig
    recipe: Recipe

    def __init__(
        self,
        data: DataSet,
        config: PcgnetConfig,
        recipe: Recipe,
        seed: int,
        encoder: Path | None,
        network: type[Pcgnet],
    ) -> None:
        """Tune the sentence encoder in the folder `encoder` where the recipe says so."""
        dialogues, self.config = data.split("train"), config
        tuned = None
        if recipe.tuned_layers:
            if encoder is None:
                raise ValueError("a recipe that tunes the encoder needs its folder")
            tuned = TunedEncoder(encoder, trained=recipe.tuned_layers, layers=recipe.mixed_layers)
            if tuned.width != config.text:
                raise ValueError(f"the encoder gives {tuned.width} numbers, text={config.text}")
        networks = _Networks(network(config), tuned)
        groups = decaying(
            ((n, p) for n, p in networks.named_parameters() if not n.startswith("encoder.")),
            _is_matrix,
            recipe,
            recipe.learning_rate,
        )
        if tuned is None:
            normalise_inputs(networks.model, dialogues)
        else:  # its vectors have length 1, and their first statistics do not last
            groups += decaying(tuned.named_parameters(), _is_matrix, recipe, recipe.encoder_rate)
            normalise_inputs(networks.model, dialogues, ("audio", "video", "persona"))
            flat = torch.ones(tuned.width)
            set_normalisation(networks.model, "text", 0 * flat, flat * tuned.width**-0.5)
        self.emotion_loss = partial(
            focal_loss,
            gamma=recipe.gamma,
            class_weight=class_weight(dialogues, config.classes, recipe.class_weight_power),
            smoothing=recipe.smoothing,
        )
        samples = [self._sample(d, tuned) for d in dialogues]
        super().__init__(
            data, config, recipe, seed, network=networks, groups=groups, samples=samples
        )
        self.dev_states = [self._sample(d, tuned).states for d in self.dev]

    @torch.no_grad()
    def answers(self) -> tuple[Pcgnet, Answers]:
        model = as_saved(self.average.model)
        if self.average.encoder is None:
            return model, answer(model, self.dev)
        encoder = self.average.encoder.as_saved()
        vectors = [encoder(states).half().float().numpy() for states in self.dev_states]
        return model, answer(model, list(map(with_text, self.dev, vectors)))

    def _sample(self, dialogue: Dialogue, encoder: TunedEncoder | None) -> _Sample:
        states: Sequence[Tensor] = []
        if encoder is not None:
            states = encoder.lower(dialogue.sentences)
            width = np.zeros((len(dialogue), encoder.width), np.float32)
            dialogue = with_text(dialogue, width)
        tensors = conversation_tensors(dialogue, self.config)
        return _Sample(tensors, torch.from_numpy(dialogue.labels), states)

    def loss_of(self, samples: Sequence[_Sample]) -> Tensor:
        """Return the loss of one batch, of which inputs are removed at random."""
        batch = self.network.model.collate([s.tensors for s in samples])
        batch = replace(batch, present=self._thinned(batch))
        vectors = None
        if self.network.encoder is not None:
            vectors = self.network.encoder([state for s in samples for state in s.states])
            text = torch.where(batch.present[:, TEXT, None], vectors, torch.zeros(()))
            batch = replace(batch, inputs=batch.inputs | {"text": text})
        labels = torch.cat([s.labels for s in samples])
        return self._loss(self.network.model(batch), labels, vectors)

    def _loss(self, out: WholeOutput, labels: Tensor, vectors: Tensor | None) -> Tensor:
        r, classes = self.recipe, self.config.classes
        shifts = shift_labels(labels, out.pairs, classes)
        weights = {"emotion": 1.0, "shift": r.shift_weight, "moved": r.moved_weight}
        losses = {
            "emotion": self.emotion_loss(out.emotion, labels),
            "shift": shift_loss(out.shift_alone, shifts, smoothing=r.shift_smoothing),
            "moved": moved_loss(out.shift_alone, shifts, classes),
        }
        if r.contrast_weight:
            weights["contrast"] = r.contrast_weight
            losses["contrast"] = shift_contrast(
                out.pair_vectors, shifts, classes=classes, generator=self.generator
            )
        if r.balance == "log-sum":
            total = log_sum(losses, weights)
        elif r.balance == "uncertainty":
            total = self.network.balance(losses, weights)
        else:
            total = weighted(losses, weights)
        if vectors is None or self.network.text_head is None:
            return total
        logits = self.network.text_head(vectors * vectors.shape[1] ** 0.5)
        return total + r.text_weight * self.emotion_loss(logits, labels)

    def _thinned(self, batch: Batch) -> Tensor:
        """Remove inputs at random, so that the model learns to answer any subset: [N, 4] bool."""
        r = self.recipe
        chance = torch.full(batch.present.shape, r.drop_other)
        chance[:, TEXT] = r.drop_text
        present = torch.rand(batch.present.shape, generator=self.generator) >= chance
        conversations = int(batch.conversation[-1]) + 1
        text_only = torch.rand(conversations, generator=self.generator) < r.text_only
        others = torch.ones(len(INPUTS), dtype=torch.bool)
        others[TEXT] = False
        present &= ~(text_only[batch.conversation][:, None] & others)
        return batch.present & present


def _is_matrix(_: str, parameter: Tensor) -> bool:
    """Return False for biases, gates and learned vectors."""
    return parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1
