"""The accuracy study: which models are trained to be compared, and what each is called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
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
    description: str  # for display
    set_name: str = "meld"
    text: TextMode = "frozen"
    seeds: int = ABLATION_SEEDS
    without: tuple[str, ...] = ()  # modalities taken out of the set
    stay: float = 0.0  # utterances restaged so that an emotion stays with this chance
    joined: int = 0  # dialogues joined to conversations of at least N utterances
    recipe: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    baseline: BaselineName | None = None  # a simple model on the same vectors instead of PCGNet
    on_test: bool = False  # scored on the test split too, once a seed
    minutes: float = 1.3  # of one core and seed, as last seen
    kind: str = DEFAULT_KIND  # "adapted" text of an HRG-SSA: the shipped PCGNet's tuned encoder
    weights: Row | None = None  # not trained: this row's weights, run with the settings of `model`

    def run_name(self, seed: int) -> str:
        """Return the folder of a run: name, seed and a digest of everything that decides it."""
        recipe = asdict(kind_named(self.kind).recipe(self.text, self.recipe))
        if self.kind != DEFAULT_KIND:
            recipe["kind"] = self.kind
        settings: list[Any] = [
            self.set_name, self.text, self.without, self.joined, recipe, self.model, self.baseline,
        ]  # fmt: skip
        if self.stay:  # runs of other rows keep their names
            settings.append({"stay": self.stay})
        if self.weights is not None:
            settings.append(self.weights.run_name(seed))
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode())
        return f"{self.name}-{seed}-{digest.hexdigest()[:8]}"


def _research(part: str) -> Mapping[str, Any]:
    """Return the settings of a model with a part of `model.study.ablations`."""
    return {"research": (part,)}


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
    seeds=SEEDS, on_test=True, model=_research("bidirectional"), minutes=1.5,
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
    Row("no-graph", "without edges between utterances", model=_research("no-graph")),
    Row("no-cross-task", "without cross-task edges", model=_research("no-cross-task")),
    Row(
        "no-evidence", "the shift head not told what the utterance alone says",
        model=_research("no-evidence"),
    ),
    Row(
        "no-shift-loss", "without both losses of the shift task",
        recipe={"shift_weight": 0.0, "moved_weight": 0.0},
    ),
    Row("contrast", "with the shift-aware contrastive loss", recipe={"contrast_weight": 0.1}),
    Row("log-sum", "losses balanced by log-sum, as published", recipe={"balance": "log-sum"}),
    Row("uncertainty", "losses balanced by learned variances", recipe={"balance": "uncertainty"}),
)  # fmt: skip

_linear = partial(Row, seeds=1, minutes=3.0)  # fitted without drawing
BASELINES: Final = (
    Row("majority", "always neutral", baseline="majority", seeds=1, on_test=True, minutes=0.2),
    _linear(
        "logistic", "logistic regression on the frozen row's vectors, no context",
        baseline="logistic", on_test=True,
    ),
    _linear(
        "markov", "the logistic row, and a Markov chain of each speaker's emotions",
        baseline="markov", on_test=True,
    ),
    Row("gru", "causal GRU on the frozen row's vectors", baseline="gru", on_test=True, minutes=1.0),
)  # fmt: skip

_emorynlp = partial(Row, set_name="emorynlp", on_test=True)
_recut = partial(Row, without=("video", "persona"), joined=60)
_restaged = partial(Row, without=("video", "persona"), stay=0.7)
OTHER_SETS: Final = (
    _emorynlp("emorynlp", "EmoryNLP, frozen MiniLM, text alone", minutes=1.0),
    _emorynlp(
        "emorynlp-adapted", "EmoryNLP, MiniLM tuned with the graph, text alone",
        text="adapted", seeds=1, minutes=9.0,
    ),
    _recut(
        "recut-adapted", "MELD re-cut: conversations of 60 and more, no video, no persona",
        text="adapted", seeds=1, minutes=11.0,
    ),
    _emorynlp(
        "emorynlp-logistic", "EmoryNLP, logistic regression on the same vectors, no context",
        baseline="logistic", seeds=1, minutes=1.5,
    ),
    _emorynlp(
        "emorynlp-markov", "EmoryNLP, logistic regression and a Markov chain a speaker",
        baseline="markov", seeds=1, minutes=1.5,
    ),
    _emorynlp(
        "emorynlp-gru", "EmoryNLP, causal GRU on the same vectors", baseline="gru", minutes=0.5,
    ),
    _recut(
        "recut-logistic", "MELD re-cut, logistic regression, frozen MiniLM, no context",
        baseline="logistic", seeds=1, minutes=3.0,
    ),
    _recut("recut-gru", "MELD re-cut, causal GRU, frozen MiniLM", baseline="gru", minutes=1.0),
    _restaged(
        "restaged", "MELD restaged: two speakers whose emotions last; frozen MiniLM and audio",
    ),
    _restaged(
        "restaged-adapted", "MELD restaged, MiniLM tuned with the graph, audio",
        text="adapted", seeds=1, minutes=11.0,
    ),
    _restaged(
        "restaged-logistic", "MELD restaged, logistic regression, no context",
        baseline="logistic", seeds=1, minutes=3.0,
    ),
    _restaged(
        "restaged-markov", "MELD restaged, logistic regression and a Markov chain a speaker",
        baseline="markov", seeds=1, minutes=3.0,
    ),
    _restaged("restaged-gru", "MELD restaged, causal GRU", baseline="gru", minutes=1.0),
)  # fmt: skip

HRG_OWN: Final = Row(
    "hrg-own", "HRG-SSA, told its own answers; frozen MiniLM, audio, video",
    kind="hrg-ssa", seeds=SEEDS, on_test=True, minutes=12.0,
)  # fmt: skip
_same = partial(Row, kind="hrg-ssa", seeds=SEEDS, weights=HRG_OWN)
HRG_HONESTY: Final = (
    _same(
        "hrg-gold", "the same weights, told the true labels of the past: a leak, cannot be served",
        on_test=True, minutes=0.5, model=_research("gold-history"),
    ),
    HRG_OWN,
    _same(
        "hrg-none", "the same weights, told no label of the past, whose words they still hear",
        on_test=True, minutes=0.5, model=_research("no-labels"),
    ),
    _same(
        "hrg-off-past", "the same weights, their past cut off: no history at all",
        on_test=True, minutes=0.5, model=_research("no-past"),
    ),
)  # fmt: skip
HRG_OFF: Final = (
    _same("hrg-off-graph", "its graph switched off", minutes=0.3, model=_research("no-graph")),
    _same(
        "hrg-off-implicit", "its implicit edges taken out",
        minutes=0.3, model=_research("no-implicit"),
    ),
)  # fmt: skip
_part = partial(Row, kind="hrg-ssa", seeds=1, minutes=12.0)
HRG_PARTS: Final = (
    _part("hrg-no-past", "trained without the past", model=_research("no-past")),
    _part(
        "hrg-no-graph", "trained without the graph: past nodes are not heard",
        model=_research("no-graph"),
    ),
    _part("hrg-no-implicit", "trained without implicit edges", model=_research("no-implicit")),
    _part(
        "hrg-no-psa", "trained without primary sentiment alignment", recipe={"psa_weight": 0.0}
    ),
    _part(
        "hrg-no-msa", "trained without multimodal semantic alignment", recipe={"msa_weight": 0.0}
    ),
    _part(
        "hrg-all-tokens", "each past utterance kept as its first 32 tokens, not as 4 vectors",
        minutes=16.0, model={**_research("all-tokens"), "pooled": 34},  # and its two label words
    ),
    _part(
        "hrg-tuned", "words through the shipped PCGNet's tuned encoder; the best on dev: shipped",
        text="adapted", seeds=2,
    ),
)  # fmt: skip
ROWS: Final[Sequence[Row]] = (
    *MAIN, *BASELINES, *ABLATIONS, *OTHER_SETS, *HRG_HONESTY, *HRG_OFF, *HRG_PARTS,
)  # fmt: skip
