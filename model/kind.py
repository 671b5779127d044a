"""The interface between a model's folder and the rest of the project; how to add a model.

1. Write `model/<folder>/kind.py` with `KIND`, an instance of a class derived from `Kind`.
2. Add the model's name and its folder to `model.registry.KINDS`.
3. Add a row to a group of `model/study/rows.py`, which compares it with the others.

Training, evaluation, serving and the command line (`emotrack train <name>`, `--model <name>`) then
find it by its name; a checkpoint in `model/checkpoints/<name>-meld` is shipped.
`tests/fakes/third_model` is a small, whole model. The parts that a `Kind` gives out:

    options     `model.training.options.TrainingOptions`, or a dataclass derived from it: the
                options of `emotrack train <name>`; each field is `Annotated[type, Option(help)]`
    plan        `Plan`: the data, settings and recipe of a training run; trains and returns the
                card's text (`model.train_run.carry_out` saves the checkpoint and the card)
    recipe      a frozen dataclass derived from `model.training.settings.Pace` (for `--epochs`);
                its values name a run of the study
    checkpoint  `model.checkpoint_files.LoadedCheckpoint`: answers whole conversations; read by
                `read_checkpoint`, written by `save_model`. Its `config` is a dataclass with
                `labels` and `recurrence`; weights are float16 once saved: evaluate what was saved
    predictor   `model.interface.Predictor`: answers one utterance at a time, with the state
                between; states probabilities by `model.serving.calibration`, follows overridden
                `window` and `idle_s`, calls `reach` of `model.fault_points` at F3 and F4

What helps: `model.training.loop.TrainingLoop`, `model.scoring.calibrate`, `model.scoring.card`,
`model.scoring.answers.answers_to`, `model.serving.device`.

Help and serving import `kind.py` too: import torch and what only training needs inside its methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from model.interface import Device, Predictor, ServingOptions
from model.training.options import Run, TrainingOptions
from model.training.progress import Listener

if TYPE_CHECKING:  # they import torch
    from _typeshed import DataclassInstance

    from model.checkpoint_files import LoadedCheckpoint
    from model.data.dataset import DataSet
    from model.scoring.report import Report
    from model.training.loop import Trained

# Text as the set's vectors, or from the sentence encoder unchanged or tuned on the set.
TextMode = Literal["vectors", "frozen", "adapted"]
Options = TypeVar("Options", bound=TrainingOptions)


@dataclass(frozen=True, slots=True)
class Plan(ABC):
    """All that a training run follows from."""

    kind: ClassVar[str]  # the model's name in `model.registry.KINDS`
    data: DataSet
    config: Any  # the model's settings
    recipe: Any
    seed: int
    command: str  # that repeats the run
    encoder: Path | None  # folder of the sentence encoder
    threads: int

    @abstractmethod
    def train(self, progress: Path, listener: Listener) -> Trained[Any]:
        """Train on the train split and choose on dev; resume from the file `progress` if it exists.

        Does not read the test split. Equal plans give equal bytes on one machine.
        """

    @abstractmethod
    def extractors(self, trained: Trained[Any]) -> Mapping[str, str]:
        """Return by modality the name of the recipe that the model's vectors come from."""

    @abstractmethod
    def card(self, trained: Trained[Any], report: Report) -> str:
        """Return the model card in Markdown; `report` is of the dev split."""


class Kind(ABC, Generic[Options]):
    """A model as the rest of the project uses it, without state; its docstring is shown as help."""

    options: type[Options]

    @abstractmethod
    def load_checkpoint(self, folder: Path) -> LoadedCheckpoint:
        """Read and verify a checkpoint folder. Raises `CheckpointError`."""

    @abstractmethod
    def load_predictor(self, folder: Path, serving: ServingOptions) -> Predictor:
        """Load a checkpoint folder for serving. Raises `CheckpointError`."""

    @abstractmethod
    def plan(self, data: DataSet, options: Options, run: Run) -> Plan:
        """Plan a training run and check it before anything is trained.

        Raises `ModelError` or `ValueError` for what cannot be trained.
        """

    @abstractmethod
    def recipe(self, text: TextMode, changes: Mapping[str, Any]) -> DataclassInstance:
        """Return the recipe for a text mode, with `changes`. Raises `RecipeError`."""

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> Options:
        """Return the options of a run of the accuracy study."""
        return self.options(seed=seed)
