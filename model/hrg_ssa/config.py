"""The settings that, with the weights, define an HRG-SSA: sizes, label sentence, recurrence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from model.data.dataset import SENTIMENTS, checked_sentiment
from model.hrg_ssa.label_words import LabelWords, own_label_words
from model.interface import Modality, StoreDType
from model.training.setting import Setting
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

    labels: Annotated[tuple[str, ...], Setting("the emotions", given="the data set")]
    text: Annotated[int, Setting("width of a token's state", "numbers", least=1)] = 384
    audio: Annotated[int, Setting("width of an audio vector", "numbers", least=0)] = 8
    video: Annotated[int, Setting("width of a video vector", "numbers", least=0)] = 17
    width: Annotated[int, Setting("d, width of every layer", "numbers", least=1)] = 384
    heads: Annotated[int, Setting("attention heads", "heads", least=1)] = 6
    head_width: Annotated[int, Setting("width of one head", "numbers", least=1)] = 64
    feed_forward: Annotated[
        int, Setting("width of the layer inside a block", "numbers", least=1)
    ] = 768
    stack_layers: Annotated[
        int,
        Setting("blocks of the text, audio and video stacks; 6 in the paper", "blocks", least=1),
    ] = 1
    decoder_layers: Annotated[int, Setting("blocks of the decoder", "blocks", least=1)] = 2
    node_layers: Annotated[
        tuple[int, ...],
        Setting("decoder blocks, from 0, that read the nodes; the upper half", "blocks"),
    ] = (1,)
    graph_layers: Annotated[int, Setting("layers of the graph", "layers", least=1)] = 1
    graph_heads: Annotated[
        int, Setting("heads of the graph; they share `width`", "heads", least=1)
    ] = 6
    detector: Annotated[
        int, Setting("width of the scorer of implicit edges", "numbers", least=1)
    ] = 64
    pooled: Annotated[
        int, Setting("k, stored of a past utterance's token states", "vectors", least=1)
    ] = 4
    shift_width: Annotated[
        int, Setting("of the shift node stored of a speaker's last answer", "numbers", least=1)
    ] = 192
    most_tokens: Annotated[int, Setting("of an utterance; the rest is cut", "tokens", least=1)] = (
        128
    )
    dropout: Annotated[float, Setting("in every block", "share", 0, 1)] = 0.1
    input_dropout: Annotated[float, Setting("of the inputs", "share", 0, 1)] = 0.3
    input_clip: Annotated[
        float,
        Setting("bound of a normalised audio or video number", "standard deviations", least=0),
    ] = 5.0
    words: Annotated[
        LabelWords | None,  # filled with a vocabulary of its own when None
        Setting("the label sentence in token numbers", given="the labels and the decoder"),
    ] = None
    store_dtype: Annotated[
        StoreDType, Setting("numbers of the stored state: float16, or float32 (no rounding)")
    ] = "float16"
    recurrence: Annotated[
        Recurrence,
        Setting(
            "what is remembered: window (utterances), max_speakers, idle_s and max_session_s "
            "(seconds), duplicate_horizon (utterances)"
        ),
    ] = field(default_factory=lambda: Recurrence(window=WINDOW))
    sentiment: Annotated[
        Mapping[str, str],  # filled from labels when empty
        Setting("positive, neutral or negative for each label; empty: the usual one"),
    ] = field(default_factory=dict)
    research: Annotated[
        tuple[str, ...], Setting("parts of the accuracy study; such a model is not served")
    ] = ()  # of `model.study.ablations`

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
