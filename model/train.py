"""Train a causal PCGNet on labelled conversations: one seed, chosen on dev, deterministic.

The test split is never asked for. What is returned is the exponential average of the weights at
the epoch with the best dev weighted F1, rounded as a checkpoint stores them. Text comes in as
vectors, or the upper layers of a sentence encoder are tuned together with the graph.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from model.adapt import TunedEncoder
from model.answers import Answers
from model.calibration import calibrate
from model.checkpoint import Calibration, Thresholds
from model.collate import Batch, ConversationTensors, collate_conversations
from model.config import INPUTS, PcgnetConfig
from model.data import UNLABELLED, DataSource, Dialogue, column_statistics, label_counts
from model.encoder import TextEncoder
from model.evaluate import (
    answer,
    conversation_tensors,
    emotion_weighted_f1,
    thread_count,
)
from model.losses import (
    LogVariances,
    focal_loss,
    log_sum,
    moved_loss,
    shift_contrast,
    shift_labels,
    shift_loss,
    weighted,
)
from model.pcgnet import Pcgnet, WholeOutput
from model.recipe import Recipe
from model.resume import load_progress, save_progress
from model.text import with_text
from state.window import Recurrence

TEXT: Final = INPUTS.index("text")
MOST_EPOCHS: Final = 100


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch left behind, on dev; the weighted F1 is what is selected on."""

    number: int
    train_loss: float
    dev_loss: float  # emotion cross-entropy
    dev_weighted_f1: float


@dataclass(frozen=True, slots=True)
class Trained:
    """The chosen weights and how they came about."""

    model: Pcgnet
    calibration: Calibration
    thresholds: Thresholds
    history: tuple[Epoch, ...]
    chosen: Epoch
    text: TextEncoder | None = None  # of a tuned encoder


@dataclass(frozen=True, slots=True)
class _Sample:
    tensors: ConversationTensors
    labels: Tensor  # [T]
    states: Sequence[Tensor]  # of the encoder's frozen layers, T of [tokens, width]; or none


def train(
    data: DataSource,
    config: PcgnetConfig,
    recipe: Recipe,
    *,
    seed: int,
    threads: int = 1,
    encoder: Path | None = None,
    progress: Path | None = None,
    on_step: Callable[[float], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train on `data.split("train")`, choose the epoch on `data.split("dev")`.

    `encoder` is the folder of the sentence encoder to tune, where the recipe does. With a
    `progress` file each epoch is kept there, and a run that was killed goes on from the last one:
    to the same bytes. `on_step` hears the share done (0..1], `on_epoch` each epoch. Equal
    arguments give equal bytes on one machine and thread count. torch's global generator and
    threads are left as they were. Raises ValueError for a split without a labelled utterance.
    """
    for split in ("train", "dev"):
        if not any((d.labels != UNLABELLED).any() for d in data.split(split)):
            raise ValueError(f"the {split} split of {data.name} has no labelled utterance")
    with torch.random.fork_rng(devices=[]), thread_count(threads):
        torch.manual_seed(seed)
        training = _Training(data, config, recipe, seed, encoder)
        return training.run(progress, on_step, on_epoch)


def fitting_config(
    data: DataSource, *, hidden: int = 128, window: int = 10, input_dropout: float = 0.4
) -> PcgnetConfig:
    """The model that fits a data set's labels and vector widths; what it lacks gets width 0."""
    widths = data.widths
    return PcgnetConfig(
        labels=data.labels,
        text=widths.get("text", 0),
        audio=widths.get("audio", 0),
        video=widths.get("video", 0),
        persona=widths.get("persona", 5),  # a set without personas: never present
        hidden=hidden,
        input_dropout=input_dropout,
        recurrence=Recurrence(window=window),
    )


class _Networks(nn.Module):
    """All that is trained: the model, the balance of its losses, and a tuned encoder's parts."""

    def __init__(self, config: PcgnetConfig, recipe: Recipe, encoder: TunedEncoder | None) -> None:
        super().__init__()
        self.model = Pcgnet(config)
        self.balance = LogVariances(("emotion", "shift", "moved", "contrast"))
        self.encoder = encoder
        self.text_head = None if encoder is None else nn.Linear(encoder.width, config.classes)


class _Training:
    """The moving parts of one run."""

    def __init__(
        self,
        data: DataSource,
        config: PcgnetConfig,
        recipe: Recipe,
        seed: int,
        encoder: Path | None,
    ) -> None:
        dialogues = data.split("train")
        self.dev = data.split("dev")
        self.config, self.recipe = config, recipe
        tuned = None
        if recipe.tuned_layers:
            if encoder is None:
                raise ValueError("a recipe that tunes the encoder needs its folder")
            tuned = TunedEncoder(encoder, trained=recipe.tuned_layers, layers=recipe.mixed_layers)
            if tuned.width != config.text:
                raise ValueError(f"the encoder gives {tuned.width} numbers, text={config.text}")
        self.networks = _Networks(config, recipe, tuned)
        self.samples = [self._sample(d) for d in dialogues]
        self.dev_states = [self._sample(d).states for d in self.dev]
        if tuned is None:
            normalise_inputs(self.networks.model, dialogues)
        else:  # its vectors have length 1 and will not keep the statistics of the start
            normalise_inputs(self.networks.model, dialogues, ("audio", "video", "persona"))
            flat = torch.ones(tuned.width)
            self.networks.model.set_normalisation("text", 0 * flat, flat * tuned.width**-0.5)
        self.average = copy.deepcopy(self.networks)
        self.optimiser = _optimiser(self.networks, recipe)
        self.class_weight = _class_weight(dialogues, config.classes, recipe.class_weight_power)
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.step_number = 0
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}  # the averaged networks of the best epoch
        self.epochs = _epochs(recipe, [len(sample.labels) for sample in self.samples])
        self.fingerprint = repr((data.name, len(self.samples), seed, asdict(config), recipe))

    @property
    def steps(self) -> int:
        """Upper bound of the number of steps: each epoch packs its batches anew."""
        per = _steps(self.recipe, [len(sample.labels) for sample in self.samples])
        return self.epochs * per

    @property
    def chosen(self) -> Epoch:
        """The epoch with the best dev score so far; the first of equals."""
        return max(self.history, key=lambda epoch: (epoch.dev_weighted_f1, -epoch.number))

    def run(
        self,
        progress: Path | None,
        on_step: Callable[[float], None] | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> Trained:
        if progress is not None:
            self._restore(progress)
        steps = self.steps
        for number in range(len(self.history) + 1, self.epochs + 1):
            if self.history and number - 1 - self.chosen.number >= self.recipe.patience:
                break
            losses = []
            for samples in self._shuffled():
                losses.append(self._step(samples, steps))
                if on_step:
                    on_step(min(1.0, self.step_number / steps))
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

    def _calibrated(self) -> Trained:
        """Fit temperatures and thresholds on dev; the diagonal's bias goes into the shift head."""
        model, found = self._answers()
        classes = self.config.classes
        calibration, thresholds, bias = calibrate(
            found.emotion, found.labels, found.shift, found.shifts, classes
        )
        with torch.no_grad():
            model.shift_head.bias[:: classes + 1] += bias
        encoder = self.average.encoder
        text = None if encoder is None else encoder.text_encoder()
        history, chosen = tuple(self.history), self.chosen
        return Trained(model, calibration, thresholds, history, chosen, text)

    def _judge(self, number: int, train_loss: float) -> Epoch:
        _, found = self._answers()
        loss = focal_loss(
            torch.from_numpy(found.emotion), torch.from_numpy(found.labels), gamma=0.0
        )
        return Epoch(number, train_loss, loss.item(), emotion_weighted_f1(found))

    @torch.no_grad()
    def _answers(self) -> tuple[Pcgnet, Answers]:
        """What the averaged networks say of dev, as they would be saved."""
        model = as_saved(self.average.model)
        if self.average.encoder is None:
            return model, answer(model, self.dev)
        encoder = self.average.encoder.as_saved()
        vectors = [encoder(states).half().float().numpy() for states in self.dev_states]
        return model, answer(model, list(map(with_text, self.dev, vectors)))

    def _sample(self, dialogue: Dialogue) -> _Sample:
        encoder, states = self.networks.encoder, []
        if encoder is not None:
            states = encoder.lower(dialogue.sentences)
            width = np.zeros((len(dialogue), encoder.width), np.float32)
            dialogue = with_text(dialogue, width)
        tensors = conversation_tensors(dialogue, self.config)
        return _Sample(tensors, torch.from_numpy(dialogue.labels), states)

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

    def _step(self, samples: Sequence[_Sample], steps: int) -> float:
        batch = collate_conversations([s.tensors for s in samples], self.config)
        batch = replace(batch, present=self._thinned(batch))
        self.networks.train()
        vectors = None
        if self.networks.encoder is not None:
            vectors = self.networks.encoder([state for s in samples for state in s.states])
            heard = torch.where(batch.present[:, TEXT, None], vectors, torch.zeros(()))
            batch = replace(batch, inputs=batch.inputs | {"text": heard})
        labels = torch.cat([s.labels for s in samples])
        loss = self._loss(self.networks.model(batch), labels, vectors)
        self._set_learning_rate(steps)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.networks.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.step_number += 1
        self._follow()
        return loss.item()

    def _loss(self, out: WholeOutput, labels: Tensor, vectors: Tensor | None) -> Tensor:
        r, classes = self.recipe, self.config.classes
        shifts = shift_labels(labels, out.pairs, classes)
        weights = {"emotion": 1.0, "shift": r.shift_weight, "moved": r.moved_weight}
        losses = {
            "emotion": self._emotion_loss(out.emotion, labels),
            "shift": shift_loss(out.shift, shifts, smoothing=r.shift_smoothing),
            "moved": moved_loss(out.shift, shifts, classes),
        }
        if r.contrast_weight:
            weights["contrast"] = r.contrast_weight
            losses["contrast"] = shift_contrast(
                out.pair_vectors, shifts, classes=classes, generator=self.generator
            )
        if r.balance == "log-sum":
            total = log_sum(losses, weights)
        elif r.balance == "uncertainty":
            total = self.networks.balance(losses, weights)
        else:
            total = weighted(losses, weights)
        if vectors is None or self.networks.text_head is None:
            return total
        said = self.networks.text_head(vectors * vectors.shape[1] ** 0.5)
        return total + r.text_weight * self._emotion_loss(said, labels)

    def _emotion_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return focal_loss(
            logits,
            labels,
            gamma=self.recipe.gamma,
            class_weight=self.class_weight,
            smoothing=self.recipe.smoothing,
        )

    def _thinned(self, batch: Batch) -> Tensor:
        """Take inputs away at random, so that any subset is an answerable one: [N, 4] bool."""
        r = self.recipe
        chance = torch.full(batch.present.shape, r.drop_other)
        chance[:, TEXT] = r.drop_text
        kept = torch.rand(batch.present.shape, generator=self.generator) >= chance
        conversations = int(batch.conversation[-1]) + 1
        text_only = torch.rand(conversations, generator=self.generator) < r.text_only
        others = torch.ones(len(INPUTS), dtype=torch.bool)
        others[TEXT] = False
        kept &= ~(text_only[batch.conversation][:, None] & others)
        return batch.present & kept

    def _set_learning_rate(self, steps: int) -> None:
        """Linear warm-up, then a half cosine to zero."""
        done = self.step_number / steps
        warm = min(1.0, (self.step_number + 1) / max(1.0, self.recipe.warm_up * steps))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; quickly at first, when they are random."""
        decay = min(self.recipe.average_decay, (self.step_number + 1) / (self.step_number + 10))
        pairs = zip(self.average.parameters(), self.networks.parameters(), strict=True)
        for mean, weight in pairs:
            mean.lerp_(weight, 1 - decay)

    def _keep(self, progress: Path) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "networks": self.networks.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
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
        self.networks.load_state_dict(state["networks"])
        self.average.load_state_dict(state["average"])
        self.best = state["best"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step_number = state["step"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.rng.bit_generator.state = state["order"]
        self.generator.set_state(state["draws"])
        torch.set_rng_state(state["torch"])


def _steps(recipe: Recipe, lengths: Sequence[int]) -> int:
    """About how many steps an epoch takes: batches overshoot by half a conversation."""
    overshoot = sum(lengths) / len(lengths) / 2
    return max(1, math.ceil(sum(lengths) / (recipe.batch_utterances + overshoot)))


def _epochs(recipe: Recipe, lengths: Sequence[int]) -> int:
    wanted = math.ceil(recipe.steps_at_least / _steps(recipe, lengths))
    return max(recipe.epochs, min(MOST_EPOCHS, wanted))


def normalise_inputs(
    model: Pcgnet, dialogues: Sequence[Dialogue], names: Sequence[str] = INPUTS
) -> None:
    """Set the model's input normalisation from the train split's present rows."""
    for name, (mean, deviation) in column_statistics(dialogues).items():
        if name in names and model.config.widths[name]:
            model.set_normalisation(name, torch.from_numpy(mean), torch.from_numpy(deviation))


def as_saved(model: Pcgnet) -> Pcgnet:
    """A copy whose weights are float16 numbers, as a checkpoint stores them."""
    saved = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.copy_(parameter.half().float())
    return saved


def _optimiser(networks: _Networks, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW that decays matrices only: biases, gates and learned vectors are left alone."""
    encoder = [] if networks.encoder is None else list(networks.encoder.parameters())
    tuned = {id(p) for p in encoder}
    own = [p for p in networks.parameters() if id(p) not in tuned]
    groups: list[dict[str, Any]] = []
    for parameters, peak in ((own, recipe.learning_rate), (encoder, recipe.encoder_rate)):
        matrices = [p for p in parameters if p.ndim >= 2 and min(p.shape[-2:]) > 1]
        rest = [p for p in parameters if not (p.ndim >= 2 and min(p.shape[-2:]) > 1)]
        for part, decay in ((matrices, recipe.weight_decay), (rest, 0.0)):
            if part:
                groups.append({"params": part, "weight_decay": decay, "peak": peak})
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _class_weight(dialogues: Sequence[Dialogue], classes: int, power: float) -> Tensor | None:
    if not power:
        return None
    counts = np.maximum(label_counts(dialogues, classes), 1)
    weight = (counts.sum() / counts) ** power
    return torch.from_numpy(weight / weight.mean()).float()
