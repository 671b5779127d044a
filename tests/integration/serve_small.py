"""`emotrack serve` with the small model: everything is real but what it thinks.

Run as a process of its own, so that it can be killed; a batch takes as long as a slow model's.
"""

from __future__ import annotations

from stream import main, serving
from tests.stream.small_model import SmallPredictor

BATCH_S = 0.03


def load_small(*_args: object, **_settings: object) -> SmallPredictor:
    """A small model that takes its time."""
    return SmallPredictor(batch_s=BATCH_S)


if __name__ == "__main__":
    setattr(serving, "load_predictor", load_small)  # noqa: B010 -- a checker would refuse it
    main.main()
