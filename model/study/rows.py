"""The accuracy study: which models are trained to be compared, and what each is called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from model.interface import DEFAULT_KIND
from model.kind import TextMode
from model.registry import kind_named

if TYPE_CHECKING:
    from model.study.baselines import BaselineName

SEEDS: Final = 5
ABLATION_SEEDS: Final = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a model trained with several seeds."""

    name: str
    says: str  # what it is, for people
    set_name: str = "meld"
    text: TextMode = "frozen"
    seeds: int = ABLATION_SEEDS
    without: tuple[str, ...] = ()  # modalities taken out of the set
    stay: float = 0.0  # utterances restaged so that an emotion stays with this chance
    joined: int = 0  # dialogues joined to conversations of at least so many utterances
    recipe: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    baseline: BaselineName | None = None  # a simple model on the same vectors instead of PCGNet
    on_test: bool = False  # scored on the test split too, once a seed
    minutes: float = 1.3  # of one core and seed, as last seen
    # An HRG-SSA's "adapted" text is heard through the shipped PCGNet's tuned encoder.
    kind: str = DEFAULT_KIND
    # Not trained: the weights of this row's runs, asked with the settings of `model`.
    weights: Row | None = None

    def run_name(self, seed: int) -> str:
        """The folder of one run: its name, seed and a digest of everything that decides it."""
        recipe = asdict(kind_named(self.kind).recipe(self.text, self.recipe))
        if self.kind != DEFAULT_KIND:
            recipe["kind"] = self.kind
        settings: list[Any] = [
            self.set_name,
            self.text,
            self.without,
            self.joined,
            recipe,
            self.model,
        ]
        settings.append(self.baseline)
        if self.stay:  # runs of other rows keep their names
            settings.append({"stay": self.stay})
        if self.weights is not None:
            settings.append(self.weights.run_name(seed))
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode())
        return f"{self.name}-{seed}-{digest.hexdigest()[:8]}"


FROZEN: Final = Row(
    "frozen", "PCGNet, frozen MiniLM (mean of four layers), audio, video, persona",
    seeds=SEEDS, on_test=True,
)  # fmt: skip
ADAPTED: Final = Row(
    "adapted", "PCGNet, MiniLM tuned with the graph, audio, video, persona",
    text="adapted", seeds=SEEDS, on_test=True, minutes=11.0,
)  # fmt: skip
TWIN: Final = Row(
    "twin", "the frozen row's bidirectional twin: it hears the future, never served",
    seeds=SEEDS, on_test=True, model={"research": ["bidirectional"]}, minutes=1.5,
)  # fmt: skip
VECTORS: Final = Row(
    "vectors", "as frozen, on the data set's own vectors (MiniLM's last layer)",
    text="vectors", seeds=SEEDS, on_test=True,
)  # fmt: skip
MAIN: Final = (FROZEN, ADAPTED, TWIN, VECTORS)

ABLATIONS: Final = (
    Row("text", "text alone", without=("audio", "video", "persona")),
    Row("text-audio", "text and audio", without=("video", "persona")),
    Row("text-video", "text and video", without=("audio", "persona")),
    Row("audio", "audio alone", without=("text", "video", "persona")),
    Row("video", "video alone", without=("text", "audio", "persona")),
    Row("audio-video", "audio and video", without=("text", "persona")),
    Row("no-persona", "without persona", without=("persona",)),
    Row("no-graph", "without edges between utterances", model={"research": ["no-graph"]}),
    Row("no-cross-task", "without cross-task edges", model={"research": ["no-cross-task"]}),
    Row(
        "no-evidence", "the shift head not told what the utterance alone says",
        model={"research": ["no-evidence"]},
    ),
    Row(
        "no-shift-loss", "without both losses of the shift task",
        recipe={"shift_weight": 0.0, "moved_weight": 0.0},
    ),
    Row("contrast", "with the shift-aware contrastive loss", recipe={"contrast_weight": 0.1}),
    Row("log-sum", "losses balanced by log-sum, as published", recipe={"balance": "log-sum"}),
    Row("uncertainty", "losses balanced by learned variances", recipe={"balance": "uncertainty"}),
)  # fmt: skip

BASELINES: Final = (
    Row("majority", "always neutral", baseline="majority", seeds=1, on_test=True, minutes=0.2),
    Row(
        "logistic", "logistic regression on the frozen row's vectors, no context",
        baseline="logistic", seeds=1, on_test=True, minutes=3.0,
    ),
    Row(
        "markov", "the logistic row, and a Markov chain of each speaker's emotions",
        baseline="markov", seeds=1, on_test=True, minutes=3.0,
    ),
    Row(
        "gru", "causal GRU on the frozen row's vectors",
        baseline="gru", on_test=True, minutes=1.0,
    ),
)  # fmt: skip

OTHER_SETS: Final = (
    Row(
        "emorynlp", "EmoryNLP, frozen MiniLM, text alone",
        set_name="emorynlp", on_test=True, minutes=1.0,
    ),
    Row(
        "emorynlp-adapted", "EmoryNLP, MiniLM tuned with the graph, text alone",
        set_name="emorynlp", text="adapted", seeds=1, on_test=True, minutes=9.0,
    ),
    Row(
        "recut-adapted", "MELD re-cut: conversations of 60 and more, no video, no persona",
        text="adapted", seeds=1, without=("video", "persona"), joined=60, minutes=11.0,
    ),
    Row(
        "emorynlp-logistic", "EmoryNLP, logistic regression on the same vectors, no context",
        set_name="emorynlp", baseline="logistic", seeds=1, on_test=True, minutes=1.5,
    ),
    Row(
        "emorynlp-markov", "EmoryNLP, logistic regression and a Markov chain a speaker",
        set_name="emorynlp", baseline="markov", seeds=1, on_test=True, minutes=1.5,
    ),
    Row(
        "emorynlp-gru", "EmoryNLP, causal GRU on the same vectors",
        set_name="emorynlp", baseline="gru", on_test=True, minutes=0.5,
    ),
    Row(
        "recut-logistic", "MELD re-cut, logistic regression, frozen MiniLM, no context",
        baseline="logistic", seeds=1, without=("video", "persona"), joined=60, minutes=3.0,
    ),
    Row(
        "recut-gru", "MELD re-cut, causal GRU, frozen MiniLM",
        baseline="gru", without=("video", "persona"), joined=60, minutes=1.0,
    ),
    Row(
        "restaged", "MELD restaged: two speakers whose emotions last; frozen MiniLM and audio",
        without=("video", "persona"), stay=0.7,
    ),
    Row(
        "restaged-adapted", "MELD restaged, MiniLM tuned with the graph, audio",
        text="adapted", seeds=1, without=("video", "persona"), stay=0.7, minutes=11.0,
    ),
    Row(
        "restaged-logistic", "MELD restaged, logistic regression, no context",
        baseline="logistic", seeds=1, without=("video", "persona"), stay=0.7, minutes=3.0,
    ),
    Row(
        "restaged-markov", "MELD restaged, logistic regression and a Markov chain a speaker",
        baseline="markov", seeds=1, without=("video", "persona"), stay=0.7, minutes=3.0,
    ),
    Row(
        "restaged-gru", "MELD restaged, causal GRU",
        baseline="gru", without=("video", "persona"), stay=0.7, minutes=1.0,
    ),
)  # fmt: skip

HRG_OWN: Final = Row(
    "hrg-own", "HRG-SSA, told its own answers; frozen MiniLM, audio, video",
    kind="hrg-ssa", seeds=SEEDS, on_test=True, minutes=12.0,
)  # fmt: skip
HRG_HONESTY: Final = (
    Row(
        "hrg-gold", "the same weights, told the true labels of the past: a leak, cannot be served",
        kind="hrg-ssa", seeds=SEEDS, on_test=True, minutes=0.5,
        model={"research": ["gold-history"]}, weights=HRG_OWN,
    ),
    HRG_OWN,
    Row(
        "hrg-none", "the same weights, told no label of the past, whose words they still hear",
        kind="hrg-ssa", seeds=SEEDS, on_test=True, minutes=0.5,
        model={"research": ["no-labels"]}, weights=HRG_OWN,
    ),
    Row(
        "hrg-off-past", "the same weights, their past cut off: no history at all",
        kind="hrg-ssa", seeds=SEEDS, on_test=True, minutes=0.5,
        model={"research": ["no-past"]}, weights=HRG_OWN,
    ),
)  # fmt: skip
HRG_OFF: Final = (
    Row(
        "hrg-off-graph", "its graph switched off", kind="hrg-ssa", seeds=SEEDS, minutes=0.3,
        model={"research": ["no-graph"]}, weights=HRG_OWN,
    ),
    Row(
        "hrg-off-implicit", "its implicit edges taken out", kind="hrg-ssa", seeds=SEEDS,
        minutes=0.3, model={"research": ["no-implicit"]}, weights=HRG_OWN,
    ),
)  # fmt: skip
HRG_PARTS: Final = (
    Row(
        "hrg-no-past", "trained without the past", kind="hrg-ssa", seeds=1, minutes=12.0,
        model={"research": ["no-past"]},
    ),
    Row(
        "hrg-no-graph", "trained without the graph: past nodes are not heard", kind="hrg-ssa",
        seeds=1, minutes=12.0, model={"research": ["no-graph"]},
    ),
    Row(
        "hrg-no-implicit", "trained without implicit edges", kind="hrg-ssa", seeds=1, minutes=12.0,
        model={"research": ["no-implicit"]},
    ),
    Row(
        "hrg-no-psa", "trained without primary sentiment alignment", kind="hrg-ssa", seeds=1,
        minutes=12.0, recipe={"psa_weight": 0.0},
    ),
    Row(
        "hrg-no-msa", "trained without multimodal semantic alignment", kind="hrg-ssa", seeds=1,
        minutes=12.0, recipe={"msa_weight": 0.0},
    ),
    Row(
        "hrg-all-tokens", "each past utterance kept as its first 32 tokens, not as 4 vectors",
        kind="hrg-ssa", seeds=1, minutes=16.0,
        model={"research": ["all-tokens"], "pooled": 34},  # and its two label words
    ),
    Row(
        "hrg-tuned", "words through the shipped PCGNet's tuned encoder; the best on dev: shipped",
        kind="hrg-ssa", text="adapted", seeds=2, minutes=12.0,
    ),
)  # fmt: skip
ROWS: Final[Sequence[Row]] = (
    *MAIN, *BASELINES, *ABLATIONS, *OTHER_SETS, *HRG_HONESTY, *HRG_OFF, *HRG_PARTS,
)  # fmt: skip
