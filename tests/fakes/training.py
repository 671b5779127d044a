"""One training of each model, as its plan does it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.data.dataset import DataSet
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.model import HrgSsa
from model.hrg_ssa.plan import HrgPlan
from model.hrg_ssa.recipe import HrgRecipe
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.model import Pcgnet
from model.pcgnet.plan import PcgnetPlan
from model.pcgnet.recipe import Recipe
from model.training.loop import Trained


def train(
    data: DataSet,
    config: PcgnetConfig,
    recipe: Recipe,
    *,
    seed: int,
    threads: int = 1,
    encoder: Path | None = None,
    **run: Any,
) -> Trained[Pcgnet]:
    """Train a PCGNet; `run` are a file of progress and a listener."""
    return PcgnetPlan(data, config, recipe, seed, "", encoder, threads).train(**run)


def train_hrg_ssa(
    data: DataSet,
    config: HrgSsaConfig,
    recipe: HrgRecipe,
    *,
    encoder: Path,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
    cache: Path | None = None,
    **run: Any,
) -> Trained[HrgSsa]:
    """Train an HRG-SSA; `run` are a file of progress and a listener."""
    plan = HrgPlan(data, config, recipe, seed, "", encoder, 1, None, start or {}, cache=cache)
    return plan.train(**run)
