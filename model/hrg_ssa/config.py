"""The settings that, with the weights, define an HRG-SSA: sizes, label sentence, recurrence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from model.data.dataset import SENTIMENTS, checked_sentiment
from model.hrg_ssa.label_words import LabelWords, own_label_words
from model.interface import Modality, StoreDType
from state.window import Recurrence

NODES: Final = ("text", "audio", "video")
FELT: Final[tuple[Modality, ...]] = ("audio", "video")  # inputs of one vector an utterance
WINDOW: Final = 8  # past utterances (docs/models.md B8)


@dataclass(frozen=True, slots=True)
class HrgSsaConfig:
    """Sizes and settings of one model; frozen, and stored in the checkpoint's config.json.

    `text` is the width of the encoder's token states. An `audio` or `video` of width 0 is never
    present: the model reads its learned missing vector.
    """

    labels: tuple[str, ...]
    text: int = 384
    audio: int = 8
    video: int = 17
    width: int = 384  # d
    heads: int = 6
    head_width: int = 64
    feed_forward: int = 768
    stack_layers: int = 1  # blocks of the text, audio and video stacks; 6 in the paper
    decoder_layers: int = 2
    node_layers: tuple[int, ...] = (1,)  # decoder blocks that read the nodes; the upper half
    graph_layers: int = 1
    graph_heads: int = 6
    detector: int = 64  # width of the implicit-edge scorer
    pooled: int = 4  # k, vectors stored of a past utterance's token states
    shift_width: int = 192  # of the shift node stored of a speaker's last answer
    most_tokens: int = 128  # of an utterance; the rest is cut
    dropout: float = 0.1
    input_dropout: float = 0.3
    input_clip: float = 5.0  # bound of a normalised audio or video number
    words: LabelWords | None = None  # filled with a vocabulary of its own when None
    store_dtype: StoreDType = "float16"
    recurrence: Recurrence = field(default_factory=lambda: Recurrence(window=WINDOW))
    sentiment: Mapping[str, str] = field(default_factory=dict)  # filled from labels when empty
    research: tuple[str, ...] = ()  # parts of `model.study.ablations`; such a model is not served

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentiment", checked_sentiment(self.labels, self.sentiment))
        if self.width % self.graph_heads:
            raise ValueError(f"width={self.width} does not split into {self.graph_heads} heads")
        if not self.node_layers or not set(self.node_layers) <= set(range(self.decoder_layers)):
            raise ValueError(
                f"node_layers={self.node_layers} must name some of the {self.decoder_layers} "
                "decoder blocks"
            )
        if self.words is None:
            object.__setattr__(self, "words", own_label_words(self.labels))
        if len(self.label_words.emotions) != self.classes:
            raise ValueError("the label sentence must have one word for each label")

    @property
    def label_words(self) -> LabelWords:
        """The label sentence in token numbers."""
        assert self.words is not None, "filled in __post_init__"
        return self.words

    @property
    def classes(self) -> int:
        """C, the number of emotions."""
        return len(self.labels)

    @property
    def sentiment_classes(self) -> tuple[int, ...]:
        """Each label's number in `SENTIMENTS`, [C]."""
        return tuple(SENTIMENTS.index(self.sentiment[label]) for label in self.labels)

    @property
    def widths(self) -> dict[str, int]:
        """Input widths by name; text is words, so its width is that of a token's state."""
        return {"text": self.text, "audio": self.audio, "video": self.video}

    @property
    def spoke_width(self) -> int:
        """Numbers stored of a speaker's last answer: its shift node, and a score for each label."""
        return self.shift_width + self.classes
