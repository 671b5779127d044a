"""Train an HRG-SSA on labelled conversations: one seed, chosen on dev, deterministic.

The encoder is frozen, so its token states are computed once. While it trains, the model is told a
growing share of its own past answers instead of the true labels (scheduled sampling): it must live
with its own mistakes when it is served. The test split is never asked for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.answers import Answers
from model.calibration import calibrate
from model.checkpoint import Calibration, Thresholds
from model.data import UNLABELLED, DataSource, Dialogue, column_statistics, label_counts
from model.encoder import TextEncoder
from model.evaluate import emotion_weighted_f1, thread_count
from model.hrg_ssa import UNTOLD, HrgSsa, WholeTalks
from model.hrg_ssa_answers import answer_talks, talk_of
from model.hrg_ssa_collate import Talk, TalkBatch, collate_talks
from model.hrg_ssa_config import FELT, HrgSsaConfig
from model.hrg_ssa_losses import modality_alignment, primary_alignment
from model.hrg_ssa_recipe import HrgRecipe
from model.losses import focal_loss, moved_loss, shift_labels, shift_loss, weighted
from model.resume import load_progress, save_progress
from model.token_encoder import TokenEncoder, token_states
from model.train import MOST_EPOCHS, Epoch


@dataclass(frozen=True, slots=True)
class HrgTrained:
    """The chosen weights and how they came about."""

    model: HrgSsa
    calibration: Calibration
    thresholds: Thresholds
    history: tuple[Epoch, ...]
    chosen: Epoch
    text: TextEncoder
    cut: int  # sentences that were longer than the model reads


@dataclass(frozen=True, slots=True)
class _Sample:
    talk: Talk
    labels: Tensor  # [T]
    at: int  # place of its first utterance in the table of own answers


def train_hrg_ssa(
    data: DataSource,
    config: HrgSsaConfig,
    recipe: HrgRecipe,
    *,
    encoder: TokenEncoder,
    start: Mapping[str, Tensor] | None = None,
    seed: int,
    threads: int = 1,
    cache: Path | None = None,
    progress: Path | None = None,
    on_step: Callable[[float], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> HrgTrained:
    """Train on `data.split("train")`, choose the epoch on `data.split("dev")`.

    As `model.train.train`, whose words on progress, determinism and errors hold here too. Token
    states are kept in the folder `cache`. Weights of a pretrained decoder are the `start`: they are
    trained only after what is new (models.md B6).
    """
    for split in ("train", "dev"):
        if not any((d.labels != UNLABELLED).any() for d in data.split(split)):
            raise ValueError(f"the {split} split of {data.name} has no labelled utterance")
    with torch.random.fork_rng(devices=[]), thread_count(threads):
        torch.manual_seed(seed)
        training = _Training(data, config, recipe, seed, encoder, cache, start or {})
        return training.run(progress, on_step, on_epoch)


class _Training:
    """The moving parts of one run."""

    def __init__(
        self,
        data: DataSource,
        config: HrgSsaConfig,
        recipe: HrgRecipe,
        seed: int,
        encoder: TokenEncoder,
        cache: Path | None,
        start: Mapping[str, Tensor],
    ) -> None:
        dialogues, self.dev = data.split("train"), data.split("dev")
        self.config, self.recipe, self.encoder = config, recipe, encoder
        self.model = HrgSsa(config)
        self.model.load_state_dict(dict(start), strict=False)
        self.pretrained = [p for n, p in self.model.named_parameters() if n in start]
        _normalise(self.model, dialogues)
        train_talks, self.dev_talks = (
            [
                talk_of(dialogue, states, config)
                for dialogue, states in zip(
                    part, token_states(encoder, part, cache=cache), strict=True
                )
            ]
            for part in (dialogues, self.dev)
        )
        starts = np.cumsum([0, *(len(d) for d in dialogues)]).tolist()
        self.samples = [
            _Sample(talk, torch.from_numpy(d.labels), at)
            for talk, d, at in zip(train_talks, dialogues, starts[:-1], strict=True)
        ]
        self.own = torch.full((starts[-1],), UNTOLD)  # what the model last said of each
        self.emotion_texts = _emotion_texts(encoder, config)
        self.average = copy.deepcopy(self.model)
        self.optimiser = _optimiser(self.model, recipe)
        self.class_weight = _class_weight(dialogues, config.classes, recipe.class_weight_power)
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.step_number = 0
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}  # the averaged weights of the best epoch
        per = max(
            1, math.ceil(starts[-1] / (recipe.batch_utterances + starts[-1] / len(dialogues) / 2))
        )
        wanted = math.ceil(recipe.steps_at_least / per)
        self.epochs = max(recipe.epochs, min(MOST_EPOCHS, wanted))
        self.steps = self.epochs * per  # about: each epoch packs its batches anew
        self.fingerprint = repr((data.name, starts[-1], seed, asdict(config), recipe))

    @property
    def chosen(self) -> Epoch:
        """The epoch with the best dev score so far; the first of equals."""
        return max(self.history, key=lambda epoch: (epoch.dev_weighted_f1, -epoch.number))

    def run(
        self,
        progress: Path | None,
        on_step: Callable[[float], None] | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> HrgTrained:
        if progress is not None:
            self._restore(progress)
        for number in range(len(self.history) + 1, self.epochs + 1):
            if self.history and number - 1 - self.chosen.number >= self.recipe.patience:
                break
            losses = []
            for samples in self._shuffled():
                losses.append(self._step(samples))
                if on_step:
                    on_step(min(1.0, self.step_number / self.steps))
            self.history.append(self._judge(number, sum(losses) / len(losses)))
            if self.chosen.number == number:
                self.best = copy.deepcopy(self.average.state_dict())
            if progress is not None:
                self._keep(progress)
            if on_epoch:
                on_epoch(self.history[-1])
        if on_step:
            on_step(1.0)
        self.average.load_state_dict(self.best)
        return self._calibrated()

    def _calibrated(self) -> HrgTrained:
        """Fit temperatures and thresholds on dev; the diagonal's bias goes into the shift head."""
        model, found = self._answers()
        classes = self.config.classes
        calibration, thresholds, bias = calibrate(
            found.emotion, found.labels, found.shift, found.shifts, classes
        )
        with torch.no_grad():
            model.shift_head.bias[:: classes + 1] += bias
        encoder = self.encoder
        return HrgTrained(
            model,
            calibration,
            thresholds,
            tuple(self.history),
            self.chosen,
            encoder.text,
            encoder.cut,
        )

    def _judge(self, number: int, train_loss: float) -> Epoch:
        _, found = self._answers()
        loss = focal_loss(
            torch.from_numpy(found.emotion), torch.from_numpy(found.labels), gamma=0.0
        )
        return Epoch(number, train_loss, loss.item(), emotion_weighted_f1(found))

    def _answers(self) -> tuple[HrgSsa, Answers]:
        """What the averaged weights say of dev, as they would be saved."""
        model = as_saved(self.average)
        return model, answer_talks(model, self.dev, self.dev_talks)

    def _shuffled(self) -> Iterator[list[_Sample]]:
        """Whole conversations in a new order, added up to `batch_utterances`."""
        batch: list[_Sample] = []
        for i in self.rng.permutation(len(self.samples)):
            batch.append(self.samples[i])
            if sum(len(s.labels) for s in batch) >= self.recipe.batch_utterances:
                yield batch
                batch = []
        if batch:
            yield batch

    def _step(self, samples: Sequence[_Sample]) -> float:
        batch = self._thinned(collate_talks([s.talk for s in samples], self.config))
        labels = torch.cat([s.labels for s in samples])
        at = torch.cat([torch.arange(s.at, s.at + len(s.labels)) for s in samples])
        self.model.train()
        second = self.step_number >= self.recipe.new_only * self.steps
        for parameter in self.pretrained:
            parameter.requires_grad_(second)
        out = self.model(batch, self._told(at, labels), self._given(labels))
        loss = self._loss(out, batch, labels)
        self._set_learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        # drawn, not the likeliest: of sentences it has learned by heart it is too often right
        said = torch.softmax(out.emotion.detach(), 1)
        self.own[at] = torch.multinomial(said, 1, generator=self.generator).squeeze(1)
        self.step_number += 1
        self._follow()
        return loss.item()

    def _told(self, at: Tensor, labels: Tensor) -> Tensor:
        """The labels of the past that later utterances are told, [N]."""
        if "no-labels" in self.config.research:
            return torch.full_like(labels, UNTOLD)
        if "gold-history" in self.config.research:
            return labels
        r = self.recipe
        share = r.own_history * min(1.0, self.step_number / max(1.0, r.ramp * self.steps))
        own = self.own[at]
        chosen = torch.rand(len(at), generator=self.generator) < share
        return torch.where((chosen & (own >= 0)) | (labels < 0), own, labels)

    def _given(self, labels: Tensor) -> Tensor:
        """The decoder's input under teacher forcing, [N, T]: the target one place later."""
        start = torch.full((len(labels), 1), self.config.label_words.start)
        return torch.cat((start, self._target(labels)[:, :-1]), dim=1)

    def _target(self, labels: Tensor) -> Tensor:
        words, sentiment = self.config.label_words, self.config.sentiment_classes
        table = [words.sentence(c, sentiment[c]) for c in range(self.config.classes)]
        return torch.tensor(table)[labels.clamp_min(0)]

    def _loss(self, out: WholeTalks, batch: TalkBatch, labels: Tensor) -> Tensor:
        r, c = self.recipe, self.config
        shifts = shift_labels(labels, batch.pairs, c.classes)
        labelled = labels >= 0
        scores = self.model.vocabulary_scores(out.sentence[labelled]).flatten(0, 1)
        window = torch.where(batch.past >= 0, labels[batch.past.clamp_min(0)], UNTOLD)
        texts = self.model.text_norm(self.model.text_projection(self.emotion_texts))
        losses = {
            "emotion": focal_loss(
                out.emotion,
                labels,
                gamma=0.0,
                class_weight=self.class_weight,
                smoothing=r.smoothing,
            ),
            "sentence": nn.functional.cross_entropy(
                scores, self._target(labels)[labelled].flatten()
            ),
            "shift": shift_loss(out.shift, shifts),
            "moved": moved_loss(out.shift, shifts, c.classes),
            "psa": primary_alignment(out.kept_nodes[batch.past.clamp_min(0)], texts, window),
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
        """Take inputs away at random, so that any subset is an answerable one."""
        r = self.recipe
        kept = torch.rand(batch.present.shape, generator=self.generator) >= r.drop_other
        conversations = int(batch.conversation[-1]) + 1
        text_only = torch.rand(conversations, generator=self.generator) < r.text_only
        kept &= ~text_only[batch.conversation][:, None]
        silent = (torch.rand(len(batch), generator=self.generator) < r.drop_text).tolist()
        states = tuple(
            state[:0] if gone else state for state, gone in zip(batch.states, silent, strict=True)
        )
        return replace(batch, present=batch.present & kept, states=states)

    def _set_learning_rate(self) -> None:
        """Linear warm-up, then a half cosine to zero."""
        done = self.step_number / self.steps
        warm = min(1.0, (self.step_number + 1) / max(1.0, self.recipe.warm_up * self.steps))
        rate = self.recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; quickly at first, when they are random."""
        decay = min(self.recipe.average_decay, (self.step_number + 1) / (self.step_number + 10))
        for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)

    def _keep(self, progress: Path) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "own": self.own,
            "step": self.step_number,
            "history": [asdict(epoch) for epoch in self.history],
            "order": self.rng.bit_generator.state,
            "draws": self.generator.get_state(),
            "torch": torch.get_rng_state(),
        }
        save_progress(progress, state)

    def _restore(self, progress: Path) -> None:
        state = load_progress(progress, self.fingerprint)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.best, self.own = state["best"], state["own"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step_number = state["step"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.rng.bit_generator.state = state["order"]
        self.generator.set_state(state["draws"])
        torch.set_rng_state(state["torch"])


def as_saved(model: HrgSsa) -> HrgSsa:
    """A copy whose weights are float16 numbers, as a checkpoint stores them."""
    saved = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.copy_(parameter.half().float())
    return saved


def _emotion_texts(encoder: TokenEncoder, config: HrgSsaConfig) -> Tensor:
    """The encoder's mean state of "emotion & sentiment" of each label, [C, text]."""
    texts = [f"{label} & {config.sentiment[label]}" for label in config.labels]
    return torch.stack([encoder.states(text).float().mean(0) for text in texts])


def _normalise(model: HrgSsa, dialogues: Sequence[Dialogue]) -> None:
    for name, (mean, deviation) in column_statistics(dialogues).items():
        if name in FELT and model.config.widths[name]:
            model.set_normalisation(name, torch.from_numpy(mean), torch.from_numpy(deviation))


def _optimiser(model: HrgSsa, recipe: HrgRecipe) -> torch.optim.Optimizer:
    """AdamW that decays matrices only: norms, tags and embeddings are left alone."""
    decayed: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and "embed" not in name and "tag" not in name
        (decayed if matrix else rest).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _class_weight(dialogues: Sequence[Dialogue], classes: int, power: float) -> Tensor | None:
    if not power:
        return None
    counts = np.maximum(label_counts(dialogues, classes), 1)
    weight = (counts.sum() / counts) ** power
    return torch.from_numpy(weight / weight.mean()).float()
