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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from model.interface import Device, Predictor, ServingOptions
from model.training.options import Run, TrainingOptions

if TYPE_CHECKING:  # torch comes with them
    from _typeshed import DataclassInstance

    from model.checkpoint_files import LoadedCheckpoint
    from model.data.dataset import DataSet
    from model.scoring.report import Report
    from model.training.loop import Trained
    from model.training.progress import Listener

# Text as the set's vectors; of the sentence encoder as it is; of one tuned on the set.
TextMode = Literal["vectors", "frozen", "adapted"]


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
