"""Options of `emotrack train`, and the other inputs of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any


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
    languages: Annotated[
        str | None,
        Option("ISO 639-1 codes of the set, en,de (default: en with the installed encoder)"),
    ] = None
    threads: Annotated[int, Option("CPU threads", least=1)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Inputs of a plan besides the data and the options; its changes win over options."""

    command: str  # that repeats the run
    recipe_changes: Mapping[str, Any] = field(default_factory=dict)
    model_changes: Mapping[str, Any] = field(default_factory=dict)
    cache: Path | None = None  # folder for encoded sentences
