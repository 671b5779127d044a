"""Train an HRG-SSA on labelled conversations: one seed, chosen on dev, deterministic.

The encoder is frozen, so its token states are computed once. In training the model reads its own
past answers instead of the true labels, and for some utterances none: when served it has to cope
with its own mistakes. The test split is never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.data.dataset import DataSet
from model.hrg_ssa.collate import Talk, TalkBatch
from model.hrg_ssa.config import FELT, HrgSsaConfig
from model.hrg_ssa.losses import modality_alignment, primary_alignment
from model.hrg_ssa.model import NO_LABEL, HrgSsa, WholeTalks
from model.hrg_ssa.recipe import HrgRecipe
from model.hrg_ssa.whole import answer_talks, talk_of
from model.scoring.answers import Answers
from model.text.token_encoder import TokenEncoder, token_states
from model.training.loop import (
    TrainingLoop,
    as_saved,
    class_weight,
    decaying,
    normalise_inputs,
)
from model.training.losses import focal_loss, moved_loss, shift_labels, shift_loss, weighted


@dataclass(frozen=True, slots=True)
class _Sample:
    talk: Talk
    labels: Tensor  # [T]
    at: int  # place of its first utterance in the table of own answers


class Training(TrainingLoop[_Sample, HrgSsa, HrgSsa]):
    """One run of HRG-SSA."""

    config: HrgSsaConfig
    recipe: HrgRecipe

    def __init__(
        self,
        data: DataSet,
        config: HrgSsaConfig,
        recipe: HrgRecipe,
        seed: int,
        encoder: TokenEncoder,
        cache: Path | None,
        start: Mapping[str, Tensor],
        device: torch.device,
        network: type[HrgSsa],
    ) -> None:
        """Store token states in the folder `cache`; `start` are a pretrained decoder's weights.

        They are trained only after the new ones (docs/models.md B6).
        """
        dialogues, self.device = data.split("train"), device
        model = network(config)
        model.load_state_dict(dict(start), strict=False)
        normalise_inputs(model, dialogues, FELT)
        model.to(device)
        self.pretrained = [p for n, p in model.named_parameters() if n in start]
        train_talks, self.dev_talks = (
            [
                talk_of(dialogue, states, config)
                for dialogue, states in zip(
                    part, token_states(encoder, part, cache=cache), strict=True
                )
            ]
            for part in (dialogues, data.split("dev"))
        )
        starts = np.cumsum([0, *(len(d) for d in dialogues)]).tolist()
        samples = [
            _Sample(talk, torch.from_numpy(d.labels), at)
            for talk, d, at in zip(train_talks, dialogues, starts[:-1], strict=True)
        ]
        self.own = torch.full((starts[-1],), NO_LABEL)  # the model's last answer to each
        texts = [f"{label} & {config.sentiment[label]}" for label in config.labels]
        means = [encoder.states(text).float().mean(0) for text in texts]
        self.emotion_texts = torch.stack(means).to(device)  # [C, text]
        weight = class_weight(dialogues, config.classes, recipe.class_weight_power)
        self.class_weight = None if weight is None else weight.to(device)
        groups = decaying(model.named_parameters(), _is_matrix, recipe, recipe.learning_rate)
        super().__init__(data, config, recipe, seed, network=model, groups=groups, samples=samples)

    def extra(self) -> dict[str, Any]:
        return {"own": self.own}

    def answers(self) -> tuple[HrgSsa, Answers]:
        model = as_saved(self.average)
        return model, answer_talks(model, self.dev, self.dev_talks)

    def loss_of(self, samples: Sequence[_Sample]) -> Tensor:
        """Return the loss of one batch; its answers are the past labels of a later epoch."""
        batch = self._thinned(self.network.collate([s.talk for s in samples]))
        batch = batch.on(self.device)
        labels = torch.cat([s.labels for s in samples])
        at = torch.cat([torch.arange(s.at, s.at + len(s.labels)) for s in samples])
        second = self.step_number >= self.recipe.new_only * self.steps
        for parameter in self.pretrained:
            parameter.requires_grad_(second)
        history, labels = self._history(at, labels).to(self.device), labels.to(self.device)
        target = self._target(labels)
        start = torch.full((len(labels), 1), self.config.label_words.start, device=self.device)
        forced = torch.cat((start, target[:, :-1]), dim=1)  # teacher forcing: one place later
        out = self.network(batch, history, forced)
        # drawn, not the likeliest: of sentences it has learned by heart it is too often right
        probability = torch.softmax(out.emotion.detach(), 1).cpu()
        self.own[at] = torch.multinomial(probability, 1, generator=self.generator).squeeze(1)
        return self._loss(out, batch, labels, target)

    def _history(self, at: Tensor, labels: Tensor) -> Tensor:
        """Return the labels of the past that later utterances read, [N]."""
        fixed = self.network.fixed_history(labels)
        if fixed is not None:
            return fixed
        r = self.recipe
        ramp = r.ramp * self.steps
        share = r.own_history * (min(1.0, self.step_number / ramp) if ramp else 1.0)
        # before its first answer a model reads no label, never the true one in its place
        chosen = torch.rand(len(at), generator=self.generator) < share
        history = torch.where(chosen | (labels < 0), self.own[at], labels)
        hidden = torch.rand(len(at), generator=self.generator) < r.untold
        return history.masked_fill(hidden, NO_LABEL)

    def _target(self, labels: Tensor) -> Tensor:
        """Return the label sentence of each label, [N, T]."""
        words, sentiment = self.config.label_words, self.config.sentiment_classes
        table = [words.sentence(c, sentiment[c]) for c in range(self.config.classes)]
        return torch.tensor(table, device=self.device)[labels.clamp_min(0)]

    def _loss(self, out: WholeTalks, batch: TalkBatch, labels: Tensor, target: Tensor) -> Tensor:
        r, c = self.recipe, self.config
        shifts = shift_labels(labels, batch.pairs, c.classes)
        labelled = labels >= 0
        scores = self.network.vocabulary_scores(out.sentence[labelled]).flatten(0, 1)
        window = torch.where(batch.past >= 0, labels[batch.past.clamp_min(0)], NO_LABEL)
        texts = self.network.text_norm(self.network.text_projection(self.emotion_texts))
        losses = {
            "emotion": focal_loss(
                out.emotion,
                labels,
                gamma=0.0,
                class_weight=self.class_weight,
                smoothing=r.smoothing,
            ),
            "sentence": nn.functional.cross_entropy(scores, target[labelled].flatten()),
            "shift": shift_loss(out.shift, shifts),
            "moved": moved_loss(out.shift, shifts, c.classes),
            "psa": primary_alignment(out.stored_nodes[batch.past.clamp_min(0)], texts, window),
            "msa": modality_alignment(
                out.graph_nodes, batch.window_speakers(torch.arange(len(labels))) >= 0
            ),
        }
        weights = {
            "emotion": 1.0, "sentence": r.sentence_weight, "shift": r.shift_weight,
            "moved": r.moved_weight, "psa": r.psa_weight, "msa": r.msa_weight,
        }  # fmt: skip
        return weighted(losses, weights)

    def _thinned(self, batch: TalkBatch) -> TalkBatch:
        """Drop inputs at random, so that the model can answer from any subset."""
        r = self.recipe
        remaining = torch.rand(batch.present.shape, generator=self.generator) >= r.drop_other
        conversations = int(batch.conversation[-1]) + 1
        text_only = torch.rand(conversations, generator=self.generator) < r.text_only
        remaining &= ~text_only[batch.conversation][:, None]
        silent = (torch.rand(len(batch), generator=self.generator) < r.drop_text).tolist()
        states = tuple(
            state[:0] if gone else state for state, gone in zip(batch.states, silent, strict=True)
        )
        return replace(batch, present=batch.present & remaining, states=states)


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """Return False for norms, tags and embeddings."""
    return parameter.ndim >= 2 and "embed" not in name and "tag" not in name
