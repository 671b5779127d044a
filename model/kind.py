"""A model is one folder; this is what the folder offers.

To add a model, write `model/<folder>/kind.py` with an instance of a `Kind` named `KIND`, and name
the folder in `model.registry.KINDS`. Training, evaluation, serving and the command line
(`emotrack train <name>`, `--model <name>`) reach the model through that object alone. A row in
`model/study/rows.py` compares it with the others.

`KIND` is imported to show help and to serve: its methods import torch, and whatever only training
needs, when they are called. A folder offers

- a checkpoint: a `model.checkpoint_files.LoadedCheckpoint` that answers whole conversations, read
  by `read_checkpoint` and written by `save_model` under the kind's name;
- a predictor: a `model.interface.Predictor`, one utterance at a time with the state between;
- a plan: a `Plan`, all that a training run follows from, which trains and writes the model card;
- a recipe: a frozen dataclass of training settings, which decides what a run is called;
- its options of `emotrack train`: a dataclass, `TrainingOptions` or one derived from it.

A checkpoint that is shipped lies in `model/checkpoints/<name>-meld`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar

from model.interface import Device, Predictor, ServingOptions

if TYPE_CHECKING:  # torch comes with them
    from _typeshed import DataclassInstance

    from model.checkpoint_files import LoadedCheckpoint
    from model.data.dataset import DataSet
    from model.scoring.report import Report
    from model.training.loop import Listener, Trained

# Text as the set's vectors; of the sentence encoder as it is; of one tuned on the set.
TextMode = Literal["vectors", "frozen", "adapted"]


@dataclass(frozen=True, slots=True)
class Option:
    """An option of `emotrack train` as the command line shows it."""

    help: str
    least: int | None = None
    before: str | None = None  # the option it is listed in front of; None: last


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """The options of `emotrack train` that every model has; a model derives its own from it."""

    folds: Annotated[int | None, Option("cross-validate over dialogues instead", least=2)] = None
    recipe: Annotated[
        Path | None, Option("YAML file: sections recipe: and model:, name: value")
    ] = None
    seed: Annotated[int, Option("decides every random number")] = 0
    epochs: Annotated[int | None, Option("default: the recipe's", least=1)] = None
    window: Annotated[int | None, Option("utterances it sees (default: its own)", least=1)] = None
    encoder: Annotated[
        Path | None, Option("sentence encoder folder (default: the installed one)")
    ] = None
    threads: Annotated[int, Option("CPU threads", least=1)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a plan follows from besides the data and the options; changes win over options."""

    command: str  # that gives the run again
    recipe_changes: Mapping[str, Any] = field(default_factory=dict)
    model_changes: Mapping[str, Any] = field(default_factory=dict)
    cache: Path | None = None  # folder for encoded sentences
    listener: Listener | None = None


Options = TypeVar("Options", bound=TrainingOptions)


@dataclass(frozen=True, slots=True)
class Plan(ABC):
    """What to train, from which the whole run follows."""

    kind: ClassVar[str]  # its name in `model.registry.KINDS`
    data: DataSet
    config: Any  # the model's settings
    recipe: Any
    seed: int
    command: str  # that gives the run again
    encoder: Path | None  # folder of the sentence encoder
    threads: int

    @abstractmethod
    def train(self, progress: Path, listener: Listener) -> Trained[Any]:
        """Train on the train split, choose on dev; go on from the file `progress` if it is there.

        The test split is not read. Equal plans give equal bytes on one machine.
        """

    @abstractmethod
    def extractors(self, trained: Trained[Any]) -> Mapping[str, str]:
        """Return by modality the name of the recipe that the model's vectors come from."""

    @abstractmethod
    def card(self, trained: Trained[Any], report: Report) -> str:
        """Return the model card in Markdown; `report` is of the dev split."""


class Kind(ABC, Generic[Options]):
    """A model as the rest of the project uses it; stateless."""

    options: type[Options]

    @abstractmethod
    def load_checkpoint(self, folder: Path) -> LoadedCheckpoint:
        """Read and verify a checkpoint folder. Raises `CheckpointError`."""

    @abstractmethod
    def load_predictor(self, folder: Path, serving: ServingOptions) -> Predictor:
        """Load a checkpoint folder for serving. Raises `CheckpointError`."""

    @abstractmethod
    def plan(self, data: DataSet, options: Options, run: Run) -> Plan:
        """Decide all of a training run; check it before anything is trained.

        Raises `ModelError` or `ValueError` for what cannot be trained.
        """

    @abstractmethod
    def recipe(self, text: TextMode, changes: Mapping[str, Any]) -> DataclassInstance:
        """Return the recipe for how text comes in, with `changes`. Raises `RecipeError`."""

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> Options:
        """Return the options of a row of the accuracy study."""
        return self.options(seed=seed)
