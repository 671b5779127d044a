"""The settings that, with the weights, define a PCGNet: sizes, labels, dropouts, recurrence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from model.data.dataset import IEMOCAP_LABELS, MELD_LABELS, checked_sentiment
from model.interface import INPUTS, MODALITIES, StoreDType
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

    labels: tuple[str, ...]
    text: int = 1024
    audio: int = 300
    video: int = 342
    persona: int = 5
    hidden: int = 200  # H, the same for all modalities
    persona_heads: int = 4
    graph_heads: int = 4
    input_dropout: float = 0.0
    gru_dropout: float = 0.2
    persona_dropout: float = 0.2
    graph_dropout: float = 0.2
    head_dropout: float = 0.5
    input_clip: float = 5.0  # bound of a normalised input: an outlier cannot overflow float16
    store_dtype: StoreDType = "float16"
    recurrence: Recurrence = field(default_factory=Recurrence)
    sentiment: Mapping[str, str] = field(default_factory=dict)  # filled from labels when empty
    research: tuple[str, ...] = ()  # of `model.study.ablations`; such a model is not served

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
