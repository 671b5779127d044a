"""The model as the worker sees it: windows and utterances in, predictions and new arrays out.

No clock, network, metric or environment. `stream` imports this module's data classes,
and `model.registry.load_predictor`; neither imports torch before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from msgspec import Struct

from state.window import Applied, StateSpec, Window

Modality = Literal["text", "audio", "video"]
MODALITIES: Final[tuple[Modality, ...]] = ("text", "audio", "video")
INPUTS: Final = (*MODALITIES, "persona")  # column order of every presence mask [N, 4]
StoreDType = Literal["float16", "bfloat16", "float32"]
Device = Literal["auto", "cpu", "cuda"]
# Why an answer is outside of what its model knows: it abstains, and no alert follows from it.
Doubt = Literal["language", "unknown_words"]
DEFAULT_KIND: Final = "pcgnet"  # the model used where none is named


class Tensor(Struct, frozen=True):
    """A feature vector in its wire form: little-endian bytes, moved to the device unchanged."""

    dtype: Literal["float16", "bfloat16", "float32"]
    shape: tuple[int, ...]
    data: bytes


class Turn(Struct, frozen=True):
    """One utterance to predict, with its conversation's window.

    `features` holds only present inputs; sizes were checked against `ModelInfo.inputs`. `text` is
    raw text, which the predictor encodes when `features` has no "text". `language` is the one that
    the producer states, in any spelling.
    """

    window: Window
    speaker_id: str
    features: Mapping[Modality, Tensor]
    persona: tuple[float, ...] | None = None
    text: str | None = None
    language: str | None = None


class Prediction(Struct, frozen=True):
    """The model's answer to one utterance, calibrated; probabilities sum to 1.

    `shift` is the flattened C x C matrix P(speaker's previous emotion, current emotion), or None
    for the speaker's first utterance of the session (or a speaker returning after being forgotten).
    """

    probabilities: tuple[float, ...]  # [C], label order of `ModelInfo.labels`
    shift: tuple[float, ...] | None  # [C * C]
    shift_probability: float | None  # 1 - trace
    modalities_used: tuple[str, ...]  # subset of text, audio, video, persona
    applied: Applied
    doubt: Doubt | None = None  # outside of the languages that the checkpoint states


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A checkpoint's description."""

    name: str  # "pcgnet"
    version: str
    digest: str  # sha256 hex over weights and config, and what judges languages
    labels: tuple[str, ...]
    sentiment: Mapping[str, str]  # label -> positive | neutral | negative
    inputs: Mapping[str, int]  # modality -> width: text, audio, video, persona
    extractors: Mapping[str, str]  # modality -> name of the recipe its vectors come from
    tuned: frozenset[str]  # modalities whose extractor was tuned with the model: it takes no other
    calibration: str  # e.g. "temperature(emotion=0.68, shift=1.59; fitted on dev), mapped"
    abstain_below: float  # confidence under which a prediction is marked abstained
    shift_threshold: float  # operating point of the built-in alert rule, chosen on dev
    shift_exit: float  # hysteresis: the rule re-arms below this
    languages: tuple[str, ...] = ()  # ISO 639-1; none stated: no language is judged

    @property
    def own_extractors(self) -> dict[str, str]:
        """The extractors of the tuned modalities."""
        return {name: self.extractors[name] for name in self.tuned}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """Options for serving a checkpoint.

    `window`, `idle_s` and `max_session_s` override the recurrence stored in the checkpoint and are
    part of `StateSpec.digest`.
    """

    device: Device = "auto"
    window: int | None = None
    idle_s: float | None = None
    max_session_s: float | None = None
    threads: int = 1
    encoder: Path | None = None  # folder of the sentence encoder; None: the installed one
    # For recomputing a log, where sentences come again; neither changes a byte of an answer.
    remembered_texts: int = 0  # vectors of the last texts that are kept
    texts_at_once: int = 1  # texts that are encoded at the same time, each on a thread


class Predictor(Protocol):
    """A loaded model on a device."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def spec(self) -> StateSpec: ...

    @property
    def device(self) -> str: ...

    def warm_up(self) -> None:
        """Run every code path once, so that the first utterance is as fast as the next."""

    def can_encode_text(self) -> bool:
        """Return True where the sentence encoder that raw text needs is installed."""

    def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
        """Predict a batch, at most one turn of a conversation in it; order is kept.

        A row's bytes do not depend on the rest of its batch (docs/architecture.md §3a). A turn
        without any known modality is predicted from context alone (`modalities_used` is empty).
        Raises `NotFinite`, `DeviceExhausted`, `DeviceLost`, `EncoderMissing`.
        """

    def begin(self, turns: Sequence[Turn]) -> Callable[[], list[Prediction]]:
        """Begin to predict a batch; return a call that waits for it and returns the predictions.

        Same predictions and same errors as `predict`, which may be called in between.
        """

    def device_memory_bytes(self) -> int:
        """Return the device memory in use; 0 on CPU."""
