"""Settings of a training run or a model, changed by name: from a file or from options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from model.errors import RecipeError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from model.training.options import Run, TrainingOptions

Settings = TypeVar("Settings", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Pace:
    """The part of a recipe that every training loop reads; each model's recipe derives from it."""

    epochs: int
    steps_at_least: int = 240  # a small set is passed through more often
    patience: int = 6  # epochs without a better dev score after which training stops
    batch_utterances: int = 300  # whole conversations are added until it is reached
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.1  # share of the steps
    clip_norm: float = 1.0
    average_decay: float = 0.99  # of the exponential average of the weights

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_utterances", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


def changes_of(
    options: TrainingOptions, run: Run, recipe_kind: type, model_kind: type
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changes of a recipe and of a model: a run's win over options, options over a file.

    Raises `RecipeError`.
    """
    recipe, model = (
        _read_file(options.recipe, recipe_kind, model_kind) if options.recipe else ({}, {})
    )
    if options.epochs is not None:
        recipe |= {"epochs": options.epochs, "steps_at_least": 1}
    if options.window is not None:
        model["recurrence"] = {"window": options.window}
    return {**recipe, **run.recipe_changes}, {**model, **run.model_changes}


def _read_file(
    path: Path, recipe_kind: type, model_kind: type
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a YAML file with the sections `recipe` and `model`: the changes of each.

    Raises `RecipeError` naming the file and the setting, with the nearest name that exists.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or not set(content) <= {"recipe", "model"}:
        raise RecipeError(f"{path}: two sections are known, `recipe:` and `model:`")
    recipe, model = content.get("recipe") or {}, content.get("model") or {}
    for section, names, kind in (("recipe", recipe, recipe_kind), ("model", model, model_kind)):
        if not isinstance(names, dict):
            raise RecipeError(f"{path}: `{section}:` holds `name: value` lines")
        _check_names(names, kind, f"{path}, {section}")
    return recipe, model


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
