"""The figures of a training run, as a file of its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from model.data.dataset import DataSet
from model.study.figures import figures_json, score_rows
from model.train_run import TrainedRun


def run_figures(data: DataSet, command: str) -> Callable[[TrainedRun], Mapping[str, bytes]]:
    """Return a function to a run's metrics.json: scores on dev, and every epoch's."""

    def files(outcome: TrainedRun) -> Mapping[str, bytes]:
        rows = score_rows(outcome.report, data.name, "dev", outcome.digest)
        history = {"epochs": {"value": [asdict(epoch) for epoch in outcome.trained.history]}}
        return {"metrics.json": figures_json(rows | history, command).encode()}

    return files
