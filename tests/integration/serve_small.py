"""`emotrack serve` with the small model: everything is real but what it thinks.

Run as a process of its own, so that it can be killed; a batch takes as long as a slow model's, or
as `EMOTRACK_SMALL_BATCH_MS` says.
"""

from __future__ import annotations

import os

from stream import main, serving
from tests.stream.small_model import SmallPredictor

BATCH_MS = "30"


def serve_small() -> None:
    """Serve with a small model that takes its time."""
    batch_s = float(os.environ.pop("EMOTRACK_SMALL_BATCH_MS", BATCH_MS)) / 1000

    def load_small(*_args: object, **_settings: object) -> SmallPredictor:
        return SmallPredictor(batch_s=batch_s)

    setattr(serving, "load_predictor", load_small)  # noqa: B010 -- a checker would refuse it
    main.main()


if __name__ == "__main__":
    serve_small()
