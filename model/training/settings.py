"""Settings of a training or a model, changed by name: from a file or from flags."""

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
    """The part of a recipe that any training loop reads; a model's own recipe adds to it."""

    epochs: int
    steps_at_least: int = 240  # a small set is gone through more often
    patience: int = 6  # epochs without a better dev score after which training stops
    batch_utterances: int = 300  # whole conversations are added up to it
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.1  # share of the steps
    clip_norm: float = 1.0
    average_decay: float = 0.99  # of the exponential average of the weights

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_utterances", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


def read_settings(
    path: Path | None, recipe_kind: type, model_kind: type
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a YAML file with the sections `recipe` and `model`: what to change of each.

    Nothing where `path` is None. Raises `RecipeError` naming the file and the setting, with the
    nearest name that exists.
    """
    if path is None:
        return {}, {}
    try:
        found = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict) or not set(found) <= {"recipe", "model"}:
        raise RecipeError(f"{path}: two sections are known, `recipe:` and `model:`")
    recipe, model = found.get("recipe") or {}, found.get("model") or {}
    for section, names, kind in (("recipe", recipe, recipe_kind), ("model", model, model_kind)):
        if not isinstance(names, dict):
            raise RecipeError(f"{path}: `{section}:` holds `name: value` lines")
        _check_names(names, kind, f"{path}, {section}")
    return recipe, model


def changes_of(
    options: TrainingOptions, run: Run, recipe_kind: type, model_kind: type
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what to change of a recipe and of a model: a run's win over flags, those over a file.

    Raises `RecipeError`.
    """
    recipe, model = read_settings(options.recipe, recipe_kind, model_kind)
    if options.epochs is not None:
        recipe |= {"epochs": options.epochs, "steps_at_least": 1}
    if options.window is not None:
        model["recurrence"] = {"window": options.window}
    return {**recipe, **run.recipe_changes}, {**model, **run.model_changes}


def changed(before: Settings, changes: Mapping[str, Any], where: str) -> Settings:
    """`before` with `changes`; `recurrence` takes a mapping of its own. Raises `RecipeError`."""
    changes = dict(changes)
    recurrence = getattr(before, "recurrence", None)
    if recurrence is not None and isinstance(changes.get("recurrence"), Mapping):
        changes["recurrence"] = replaced(recurrence, changes["recurrence"], "recurrence")
    return replaced(before, changes, where)


def replaced(before: Settings, changes: Mapping[str, Any], where: str) -> Settings:
    """`before` with `changes`. Raises `RecipeError` naming the nearest setting that exists."""
    _check_names(changes, type(before), where)
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
