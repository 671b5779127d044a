"""The torch half of `emotrack bench model`: random models, conversations, and work to time.

`stream.bench.model` passes the clocks in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from model.interface import (
    INPUTS,
    MODALITIES,
    Device,
    Modality,
    ServingOptions,
    Tensor,
    Turn,
)
from model.pcgnet.checkpoint import Checkpoint, save_checkpoint
from model.pcgnet.collate import Batch, ConversationTensors, collate_conversations
from model.pcgnet.config import PcgnetConfig, preset
from model.pcgnet.model import Pcgnet
from model.pcgnet.predictor import PcgnetPredictor
from model.pcgnet.step import multiply_adds
from model.serving.calibration import Calibration, Thresholds
from model.serving.device import chosen_device
from model.serving.timing import Clock, TimedConversations
from state.window import Window

SPEAKERS = 2
AT_ONCE = 16


def random_predictor(hidden: int, device: Device = "cpu") -> PcgnetPredictor:
    """Build a model of the paper's input sizes (1024/300/342, W = 10) with random float16 weights.

    Raises `ModelError` where there is no such device.
    """
    changes = {"hidden": hidden, "persona_heads": hidden // 50}
    config = preset("meld", **changes)
    torch.manual_seed(0)
    checkpoint = Checkpoint(
        config=config,
        weights={name: value.half().float() for name, value in Pcgnet(config).state_dict().items()},
        calibration=Calibration(),
        thresholds=Thresholds(),
        extractors={},
        name="random",
        version="0",
        digest="0" * 64,
    )
    return PcgnetPredictor(checkpoint, chosen_device(device))


def cuda_name() -> str:
    """Return the GPU's name."""
    return torch.cuda.get_device_name()


def write_random_checkpoint(folder: Path) -> None:
    """Write `random_predictor(200)` as a checkpoint whose alert rule fires.

    The rule's threshold is the median of the model's shift probabilities on random conversations.
    """
    predictor = random_predictor(200)
    talks, moved = Talks.begin(predictor, 24), []
    for t in range(8):
        talks.predict(talks.turns(t), lambda: 0.0)
        answers = predictor.predict(talks.turns(t))
        moved += [a.shift_probability for a in answers if a.shift_probability is not None]
    middle = float(np.median(moved))
    save_checkpoint(
        folder,
        predictor.checkpoint.model(),
        calibration=Calibration(),
        thresholds=Thresholds(shift=middle, shift_exit=middle),
        extractors={},
        card="Random weights of the paper's sizes, for benchmarks.",
        name="random",
        version="0",
    )


def batch_cost_us(folder: Path, batch: int, clock: Clock) -> float:
    """Return the CPU time of one utterance in batches of `batch`, in us: the median of 60."""
    predictor = PcgnetPredictor.load(folder, ServingOptions(device="cpu"))
    talks = Talks.begin(predictor, batch)
    spent = talks.steps(range(72), clock)
    return 1e6 * float(np.median(spent[12:])) / batch


def use_threads(threads: int) -> None:
    """Set the number of threads torch computes with."""
    torch.set_num_threads(threads)


def sgemm_gflops(clock: Clock) -> float:
    """Return the speed of this machine's float32 matrix product, the best of five."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    return 2e-9 * 1024**3 / min(_timed(clock, lambda: a @ b) for _ in range(5))


class Talks(TimedConversations[PcgnetPredictor]):
    """Parallel conversations with all inputs."""

    @staticmethod
    def begin(predictor: PcgnetPredictor, conversations: int) -> Talks:
        """Begin conversations, each with an empty window."""
        return Talks(predictor, [Window.empty(predictor.spec) for _ in range(conversations)])

    def turns(self, t: int) -> list[Turn]:
        """Draw the t-th utterance of each conversation, with all inputs, float16 as on the wire."""
        draw = np.random.default_rng((0, t))
        inputs = self.predictor.info.inputs
        turns = []
        for window in self.windows:
            features: dict[Modality, Tensor] = {}
            for name in MODALITIES:
                values = draw.standard_normal(inputs[name], np.float32).astype(np.float16)
                features[name] = Tensor("float16", values.shape, values.tobytes())
            persona = tuple(draw.uniform(size=inputs["persona"]).tolist())
            speaker = f"speaker {int(draw.integers(SPEAKERS))}"
            turns.append(Turn(window, speaker, features, persona))
        return turns

    def steps(self, numbers: Iterable[int], clock: Clock) -> list[float]:
        """Predict these utterances of each conversation; return the seconds of each step."""
        return [self.predict(self.turns(t), clock) for t in numbers]


class FullRecompute:
    """The whole-conversation form over conversations of `turns` utterances, with the same weights.

    It runs `AT_ONCE` conversations at a time, its fastest: with all 64, a fifth of the time goes
    into fetching memory for 100 MB of messages (0.40 of sgemm instead of 0.51).
    """

    def __init__(self, predictor: PcgnetPredictor, conversations: int, turns: int) -> None:
        checkpoint = predictor.checkpoint
        self._model = checkpoint.model()
        talks = [_random_talk(checkpoint.config, turns, seed) for seed in range(conversations)]
        self._batches: list[Batch] = [
            collate_conversations(talks[at : at + AT_ONCE], checkpoint.config)
            for at in range(0, conversations, AT_ONCE)
        ]

    def seconds(self, clock: Clock) -> float:
        """Return the seconds of one pass, less laying out the batch, in the reference's favour."""
        with torch.inference_mode():
            return _timed(clock, lambda: [self._model(batch) for batch in self._batches])

    @property
    def gflop(self) -> float:
        """The matrix products of one pass, by formula."""
        config = self._model.config
        pairs = sum(len(batch.pairs) for batch in self._batches)
        utterances = sum(len(batch) for batch in self._batches)
        absent = (utterances - pairs) * 6 * config.hidden * config.classes**2
        return 2e-9 * (utterances * multiply_adds(config) - absent)


def step_gflop(predictor: PcgnetPredictor) -> float:
    """Return the matrix products of one utterance, by formula."""
    return 2e-9 * multiply_adds(predictor.checkpoint.config)


def _timed(clock: Clock, work: Callable[[], object]) -> float:
    begun = clock()
    work()
    return clock() - begun


def _random_talk(config: PcgnetConfig, turns: int, seed: int) -> ConversationTensors:
    draw = torch.Generator().manual_seed(seed)
    who = torch.randint(SPEAKERS, (turns,), generator=draw).tolist()
    parts = {n: torch.randn(turns, w, generator=draw) for n, w in config.widths.items()}
    present = torch.ones(turns, len(INPUTS), dtype=torch.bool)
    return ConversationTensors(
        **parts, present=present, speakers=tuple(f"speaker {i}" for i in who)
    )
