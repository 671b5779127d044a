"""The interface between a model's folder and the rest of the project; how to add a model.

1. Write `model/<folder>/kind.py` with `KIND`, an instance of a class derived from `Kind`.
2. Add the model's name and its folder to `model.registry.KINDS`.
3. Add a row to a group of `model/study/rows.py`, which compares it with the others.

Training, evaluation, serving and the command line (`emotrack train <name>`, `--model <name>`) then
find it by its name; a checkpoint in `model/checkpoints/<name>-meld` is shipped.
`tests/fakes/third_model` is a small, whole model. The parts that a `Kind` gives out, each by a
function of the file of that name in the model's folder (`checkpoint.load_checkpoint`,
`predictor.load_predictor`, `plan.plan`, `plan.settings`, `recipe.recipe_for`) unless the class
overrides it:

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
                between; states probabilities by `model.serving.calibration` and doubts by
                `LoadedCheckpoint.judge`, follows overridden
                `window` and `idle_s`, calls `reach` of `model.fault_points` at F3 and F4

What helps: `model.training.loop.TrainingLoop`, `model.scoring.calibrate`, `Plan.filled_card`,
`model.scoring.answers.answers_to`, `model.serving.predictor`.

Help and serving import `kind.py` too: it imports neither torch nor what only training needs.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
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
    from model.text.languages import Languages
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
    languages: Languages | None = field(default=None, kw_only=True)  # that the checkpoint states
    ledger: str = field(default="", kw_only=True)  # file of the looks at test, for the card

    @abstractmethod
    def train(self, progress: Path | None = None, listener: Listener = Listener()) -> Trained[Any]:
        """Train on the train split and choose on dev; both have labels, test is not read.

        Each epoch is saved in the file `progress`, and a killed run resumes after the last one, to
        the same bytes. Equal plans give equal bytes on one machine (on a GPU but for the order in
        which it adds up). torch's global generator and threads are restored.
        """

    def extractors(self, trained: Trained[Any]) -> Mapping[str, str]:
        """Return by input the recipe that its values come from: the set's, or a text encoder's."""
        own = {} if trained.text is None else {"text": trained.text.extractor}
        recipes, widths = {**self.data.extractors, **own}, trained.model.config.widths
        return {name: recipes[name] for name in widths if name in recipes}

    def identity(self, languages: str | None = None) -> dict[str, str]:
        """Return digests of the data and of the settings: equal ones give an equal checkpoint.

        `languages` are those of the option.
        """
        from model.data.content import content_digest
        from model.text.sentence_encoder import encoder_digest

        encoder = "" if self.encoder is None else encoder_digest(self.encoder)
        settings = self.kind, self.config, self.recipe, self.seed, self.threads, languages, encoder
        described = repr((*settings, *self.further_settings()))
        return {
            "data": content_digest(self.data),
            "settings": hashlib.sha256(described.encode()).hexdigest(),
        }

    def further_settings(self) -> tuple[str, ...]:
        """Return whatever else decides a model's bytes."""
        return ()

    @abstractmethod
    def card(self, trained: Trained[Any], report: Report) -> str:
        """Return the model card in Markdown; `report` is of the dev split."""

    def filled_card(
        self,
        template: Path,
        trained: Trained[Any],
        report: Report,
        *,
        widths: Mapping[str, object],
        settings: Mapping[str, object],
        **own: object,
    ) -> str:
        """Fill a template in with what every card states, and with a model's `own` values."""
        from model.scoring.card import filled_card

        config, extractors = trained.model.config, self.extractors(trained)
        inputs = [f"| {name} | {widths[name]} | {extractors[name]} |" for name in extractors]
        return filled_card(
            template,
            report,
            trained.thresholds,
            data=self.data.name,
            labels=", ".join(config.labels),
            weights=f"{sum(p.numel() for p in trained.model.parameters()):,}",
            window=config.recurrence.window,
            clip=f"{config.input_clip:g}",
            inputs="\n".join(inputs),
            languages=self._languages(),
            known=() if self.languages is None else self.languages.known,
            command=self.command,
            epoch=trained.chosen.number,
            seed=self.seed,
            settings=", ".join(f"{name}={value}" for name, value in settings.items()),
            looks=self._looks(),
            **own,
        )

    def _looks(self) -> str:
        """Return the card's sentence on scores of the test split."""
        if not self.data.dialogues["test"]:
            return "the set has no test split, and how good the model is elsewhere is not known."
        where = self.ledger or f"{self.data.name}_test-ledger.csv"
        return f"test scores, and each look at the test split, are recorded in\n`{where}`."

    def _languages(self) -> str:
        """Return the card's section on languages."""
        if self.languages is None:
            return "None is stated: an utterance in any language is answered like any other."
        from model.scoring.card import languages_section

        return languages_section(self.languages.known, self.languages.scripts)


class Kind(Generic[Options]):
    """A model as the rest of the project uses it, without state; its docstring is shown as help."""

    options: type[Options]

    def load_checkpoint(self, folder: Path) -> LoadedCheckpoint:
        """Read and verify a checkpoint folder. Raises `CheckpointError`."""
        loaded: LoadedCheckpoint = self._file("checkpoint").load_checkpoint(folder)
        return loaded

    def load_predictor(self, folder: Path, serving: ServingOptions) -> Predictor:
        """Load a checkpoint folder for serving. Raises `CheckpointError`."""
        predictor: Predictor = self._file("predictor").load_predictor(folder, serving)
        return predictor

    def plan(self, data: DataSet, options: Options, run: Run) -> Plan:
        """Plan a training run and check it before anything is trained.

        Raises `ModelError` or `ValueError` for what cannot be trained.
        """
        plan: Plan = self._file("plan").plan(data, options, run)
        return plan

    def recipe(self, text: TextMode, changes: Mapping[str, Any]) -> DataclassInstance:
        """Return the recipe for a text mode, with `changes`. Raises `RecipeError`."""
        recipe: DataclassInstance = self._file("recipe").recipe_for(text, changes)
        return recipe

    def settings(self, options: Options) -> tuple[DataclassInstance, DataclassInstance]:
        """Return recipe and model settings of these options, before a data set decides widths.

        Raises `RecipeError`.
        """
        found: tuple[DataclassInstance, DataclassInstance] = self._file("plan").settings(options)
        return found

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> Options:
        """Return the options of a run of the accuracy study."""
        return self.options(seed=seed)

    def _file(self, name: str) -> Any:
        """Import a file of the model's folder: torch comes with most of them."""
        return import_module(f"{type(self).__module__.rpartition('.')[0]}.{name}")
