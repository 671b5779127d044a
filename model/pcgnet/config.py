"""The settings that, with the weights, define a PCGNet: sizes, labels, dropouts, recurrence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from model.data.dataset import IEMOCAP_LABELS, MELD_LABELS, checked_sentiment
from model.interface import INPUTS, MODALITIES, StoreDType
from model.training.setting import Setting
from state.window import Recurrence

TEXT: Final = INPUTS.index("text")
PERSONA: Final = INPUTS.index("persona")
SLOPE: Final = 0.2  # of LeakyReLU in both attentions


@dataclass(frozen=True, slots=True)
class PcgnetConfig:
    """Sizes and settings of one model; frozen, and stored in the checkpoint's config.json.

    A modality of width 0 is never present: the model reads its learned missing vector. The
    recurrence is defined on values as stored in `store_dtype`; "float32" switches rounding off.
    """

    labels: Annotated[tuple[str, ...], Setting("the emotions", given="the data set")]
    text: Annotated[int, Setting("width of a text vector", "numbers", least=0)] = 1024
    audio: Annotated[int, Setting("width of an audio vector", "numbers", least=0)] = 300
    video: Annotated[int, Setting("width of a video vector", "numbers", least=0)] = 342
    persona: Annotated[int, Setting("width of a persona vector", "numbers", least=1)] = 5
    hidden: Annotated[
        int, Setting("H, width of every layer, the same for all inputs", "numbers", least=4)
    ] = 200
    persona_heads: Annotated[
        int, Setting("heads of the persona attention; they share `hidden`", "heads", least=1)
    ] = 4
    graph_heads: Annotated[
        int, Setting("heads of the graph attention; they share `hidden`", "heads", least=1)
    ] = 4
    input_dropout: Annotated[float, Setting("of the inputs", "share", 0, 1)] = 0.0
    gru_dropout: Annotated[float, Setting("between the layers of a GRU", "share", 0, 1)] = 0.2
    persona_dropout: Annotated[float, Setting("of the persona attention", "share", 0, 1)] = 0.2
    graph_dropout: Annotated[float, Setting("of the graph attention", "share", 0, 1)] = 0.2
    head_dropout: Annotated[float, Setting("before both answers", "share", 0, 1)] = 0.5
    input_clip: Annotated[
        float,  # so that an outlier cannot overflow float16
        Setting("bound of a normalised input", "standard deviations", least=0),
    ] = 5.0
    store_dtype: Annotated[
        StoreDType, Setting("numbers of the stored state: float16, or float32 (no rounding)")
    ] = "float16"
    recurrence: Annotated[
        Recurrence,
        Setting(
            "what is remembered: window (utterances), max_speakers, idle_s and max_session_s "
            "(seconds), duplicate_horizon (utterances)"
        ),
    ] = field(default_factory=Recurrence)
    sentiment: Annotated[
        Mapping[str, str],  # filled from labels when empty
        Setting("positive, neutral or negative for each label; empty: the usual one"),
    ] = field(default_factory=dict)
    research: Annotated[
        tuple[str, ...], Setting("parts of the accuracy study; such a model is not served")
    ] = ()  # of `model.study.ablations`

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentiment", checked_sentiment(self.labels, self.sentiment))
        for name in (*MODALITIES, "persona"):
            least = 1 if name == "persona" else 0
            if getattr(self, name) < least:
                raise ValueError(f"width of {name} must be at least {least}")
        for name in ("persona_heads", "graph_heads"):
            heads = getattr(self, name)
            if heads < 1 or self.hidden % heads:
                raise ValueError(f"hidden={self.hidden} does not split into {name}={heads}")

    @property
    def classes(self) -> int:
        """C, the number of emotions."""
        return len(self.labels)

    @property
    def widths(self) -> dict[str, int]:
        """Input widths by name, in the order of `INPUTS`."""
        return {name: int(getattr(self, name)) for name in INPUTS}


PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # The paper's sizes (docs/models.md A1, A2): RoBERTa-large, openSMILE, DenseNet features.
    "meld": {"labels": MELD_LABELS},
    "iemocap": {
        "labels": IEMOCAP_LABELS,
        "audio": 1582,
        "hidden": 400,
        "persona_heads": 8,
        "input_dropout": 0.3,
    },
    # Features anyone can compute: MiniLM sentence vectors, Praat, OpenFace action units.
    "meld-minilm": {"labels": MELD_LABELS, "text": 384, "audio": 8, "video": 17},
}


def preset(name: str, **changes: Any) -> PcgnetConfig:
    """Return a named configuration with `changes` applied. Raises KeyError for another name."""
    return PcgnetConfig(**{**PRESETS[name], **changes})
