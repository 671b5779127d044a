"""Settings of a training run or a model, changed by name: from a file or from options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import yaml

from model.errors import RecipeError
from model.training.setting import Setting, checked_value, described

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from model.training.options import Run, TrainingOptions

Settings = TypeVar("Settings", bound="DataclassInstance")

# Of both models' recipes. Their fields stay apart: their order is in a run's fingerprint.
SMOOTHING: Final = Setting("label smoothing of the emotions", "share of the target", 0, 1)
CLASS_WEIGHT_POWER: Final = Setting("weight of a class = (1 / its share) ** power", "exponent", 0)
PAIR_WEIGHT: Final = Setting("weight of the loss of the (from, to) pair", "times emotion's", 0)
MOVED_WEIGHT: Final = Setting("weight of the loss of shifted or not", "times emotion's", 0)
DROP_TEXT: Final = Setting("chance that an utterance loses its text while training", "share", 0, 1)
TEXT_ONLY: Final = Setting("chance that a whole conversation has text alone", "share", 0, 1)
MIXED_LAYERS: Final = Setting("last layers of the sentence encoder that are averaged", "layers", 1)


@dataclass(frozen=True, slots=True)
class Pace:
    """The part of a recipe that every training loop reads; each model's recipe derives from it."""

    epochs: Annotated[
        int,
        Setting(
            "passes over the train split, at most; steps_at_least may ask for more",
            "epochs",
            least=1,
        ),
    ]
    steps_at_least: Annotated[
        int,
        Setting(
            "a small set is passed through more often, up to 100 times, until this many steps; "
            "1 where `epochs` is stated, by --epochs or a file, and this is not",
            "steps",
            least=1,
        ),
    ] = 240
    patience: Annotated[
        int,
        Setting("without a better dev score, after which training stops", "epochs", least=1),
    ] = 6
    batch_utterances: Annotated[
        int,
        Setting("whole conversations join a batch until it has this many", "utterances", least=1),
    ] = 300
    learning_rate: Annotated[
        float,
        Setting("highest rate of AdamW, after the warm-up; it falls by a half cosine", least=0),
    ] = 3e-3
    weight_decay: Annotated[float, Setting("AdamW's, of matrices alone", least=0)] = 1e-2
    warm_up: Annotated[
        float, Setting("in which the rate grows to its highest", "share of the steps", 0, 1)
    ] = 0.1
    clip_norm: Annotated[float, Setting("longest gradient; a longer one is scaled", least=0)] = 1.0
    average_decay: Annotated[
        float,
        Setting(
            "weight of the past in the average of the weights, which is what is kept",
            "share a step",
            0,
            1,
        ),
    ] = 0.99

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_utterances", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


def changes_of(
    options: TrainingOptions, run: Run, recipe_kind: type, model_kind: type
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changes of a recipe and of a model: a run's win over options, options over a file.

    Stated epochs are meant, also by a file: no least number of steps adds to them unless it is
    stated too. Raises `RecipeError`.
    """
    recipe, model = (
        _read_file(options.recipe, recipe_kind, model_kind) if options.recipe else ({}, {})
    )
    if options.epochs is not None:
        recipe |= {"epochs": options.epochs, "steps_at_least": 1}
    elif "epochs" in recipe:
        recipe = {"steps_at_least": 1, **recipe}
    if options.window is not None:
        model["recurrence"] = {"window": options.window}
    return {**recipe, **run.recipe_changes}, {**model, **run.model_changes}


def _read_file(
    path: Path, recipe_kind: type, model_kind: type
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a YAML file with the sections `recipe` and `model`: the changes of each.

    Raises `RecipeError` naming the file and the setting, with the nearest name that exists, or
    with the value that its type would take.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or not set(content) <= {"recipe", "model"}:
        raise RecipeError(f"{path}: two sections are known, `recipe:` and `model:`")
    recipe, model = content.get("recipe") or {}, content.get("model") or {}
    for section, names, kind in (("recipe", recipe, recipe_kind), ("model", model, model_kind)):
        if not isinstance(names, dict):
            raise RecipeError(f"{path}: `{section}:` holds `name: value` lines")
        _check_names(names, kind, f"{path}, {section}")
    return (
        _checked_values(recipe, recipe_kind, f"{path}, recipe"),
        _checked_values(model, model_kind, f"{path}, model"),
    )


def _checked_values(stated: Mapping[str, Any], kind: type, where: str) -> dict[str, Any]:
    known = described(kind)
    checked = {}
    for name, value in stated.items():
        try:
            checked[name] = checked_value(value, *known[name])
        except ValueError as error:
            raise RecipeError(f"{where}: `{name}` {error}") from error
    return checked


def changed(before: Settings, changes: Mapping[str, Any], where: str) -> Settings:
    """Return `before` with `changes`; those of a `recurrence` may be a mapping of their own.

    Raises `RecipeError` naming the nearest setting that exists.
    """
    _check_names(changes, type(before), where)
    recurrence = changes.get("recurrence")
    if isinstance(recurrence, Mapping):
        own: Any = getattr(before, "recurrence", None)
        changes = {**changes, "recurrence": changed(own, recurrence, "recurrence")}
    try:
        return replace(before, **changes)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from error


def _check_names(changes: Mapping[str, Any], kind: Any, where: str) -> None:
    known = [field.name for field in fields(kind)]
    for name in changes:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f": did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            raise RecipeError(f"{where}: no setting `{name}`{hint}")
