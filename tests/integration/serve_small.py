"""`emotrack serve` with the small model: everything is real but what it thinks.

Run as a process of its own, so that it can be killed; a batch takes as long as a slow model's, or
as `EMOTRACK_SMALL_BATCH_MS` says.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from model.interface import ServingOptions
from state.window import Recurrence
from stream import main, serve
from tests.fakes.predictor import SmallPredictor

BATCH_MS = "30"


def small_model(
    idle_s: float | None = None, window: int | None = None, **more: Any
) -> SmallPredictor:
    """The model as these settings make it."""
    usual = Recurrence(window=3)
    mine = replace(usual, idle_s=idle_s or usual.idle_s, window=window or usual.window)
    return SmallPredictor(recurrence=mine, **more)


def serve_small() -> None:
    """Serve with a small model that takes its time, and fails as `EMOTRACK_SMALL_…` say."""
    told = {
        name: os.environ.pop(f"EMOTRACK_SMALL_{name.upper()}", None)
        for name in ("batch_ms", "largest_batch", "lost_after", "digest")
    }
    more: dict[str, Any] = {"batch_s": float(told.pop("batch_ms") or BATCH_MS) / 1000}
    if digest := told.pop("digest"):
        more["digest"] = digest
    more |= {name: int(value) for name, value in told.items() if value}

    def load_small(_path: object, serving: ServingOptions) -> SmallPredictor:
        return small_model(serving.idle_s, serving.window, **more)

    setattr(serve, "load_predictor", load_small)  # noqa: B010 -- a checker would refuse it
    main.main()


if __name__ == "__main__":
    serve_small()
