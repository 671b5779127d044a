"""The models by name; checkpoints and predictors of any model.

A model's folder is imported when a checkpoint of its kind is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model.interface import DEFAULT_KIND, Predictor, ServingOptions
from model.kind import Kind

if TYPE_CHECKING:  # torch comes with it
    from model.checkpoint_files import LoadedCheckpoint

# A model's name and its folder, whose `kind.py` offers what `model.kind` describes.
KINDS: Final[Mapping[str, str]] = {"pcgnet": "model.pcgnet", "hrg-ssa": "model.hrg_ssa"}


def kind_named(name: str) -> Kind[Any]:
    """Import a model's folder and return its kind. Raises KeyError for an unknown name."""
    kind: Kind[Any] = import_module(f"{KINDS[name]}.kind").KIND
    return kind


def load_any(folder: Path) -> LoadedCheckpoint:
    """Read and verify a checkpoint of any model. Raises `CheckpointError`."""
    return _kind_of(folder).load_checkpoint(folder)


def load_predictor(
    path: Path | None = None, serving: ServingOptions = ServingOptions()
) -> Predictor:
    """Load a checkpoint folder (the shipped one when `path` is None) for serving.

    `path` may be the name of a model whose checkpoint is shipped. Raises `CheckpointError` naming
    file, reason and cure.
    """
    from model.checkpoint_files import find_checkpoint

    folder = find_checkpoint(path)
    return _kind_of(folder).load_predictor(folder, serving)


def _kind_of(folder: Path) -> Kind[Any]:
    """Return the kind a checkpoint names; an unknown name is read as the default kind."""
    from model.checkpoint_files import kind_of

    name = kind_of(folder)
    return kind_named(name if name in KINDS else DEFAULT_KIND)
