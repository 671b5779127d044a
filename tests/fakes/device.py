"""The device of the model's laws: EMOTRACK_TEST_DEVICE, as `make gpu` sets it; else the CPU."""

from __future__ import annotations

import os
from typing import Final, Literal, cast

DEVICE: Final = cast(Literal["cpu", "cuda"], os.environ.get("EMOTRACK_TEST_DEVICE", "cpu"))
