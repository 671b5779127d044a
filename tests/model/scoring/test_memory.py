"""Memory of scoring: it grows with the answers, not with the fourth power of the labels.

`pytest tests/model/scoring/test_memory.py -s` prints the peaks, torch and all else included.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

SCORED = """
import re, sys
from pathlib import Path
import numpy as np
import torch
from model.scoring.answers import Answers
from model.scoring.calibrate import calibrate
from model.scoring.report import score

classes, dialogues, utterances, pairs = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
labels, shifts = rng.integers(0, classes, utterances), rng.integers(0, classes**2, pairs)
emotion, shift = rng.normal(size=(utterances, classes)), rng.normal(size=(pairs, classes**2))
owner, pair_owner = (np.sort(rng.integers(0, dialogues, n)) for n in (utterances, pairs))
found = Answers(emotion, labels, owner, shift, shifts, pair_owner, dialogues)
fitted, points = calibrate(emotion, labels, shift, shifts, classes)
report = score(found, fitted, points, [f"label {i}" for i in range(classes)])
assert report.confusion.sum() == utterances
# Not ru_maxrss, which a new program inherits from the process that forked it.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads a process' peak from /proc")
@pytest.mark.parametrize(
    ("classes", "dialogues", "utterances", "pairs"),
    [(200, 6, 90, 60), (32, 2_760, 12_000, 6_500)],
)
def test_many_labels_are_scored_within_a_gibibyte(
    classes: int, dialogues: int, utterances: int, pairs: int
) -> None:
    """They took 71 and 22 GiB: confusions of pairs have C to the fourth cells a dialogue."""
    sizes = map(str, (classes, dialogues, utterances, pairs))
    done = subprocess.run(
        [sys.executable, "-c", SCORED, *sizes],
        capture_output=True, text=True, timeout=250, check=True,
    )  # fmt: skip
    kibibytes = int(done.stdout)
    print(f"{classes} labels, {dialogues} dialogues: {kibibytes / 1024:.0f} MiB")
    assert kibibytes < 1024 * 1024
