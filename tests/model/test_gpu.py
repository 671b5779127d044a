"""Laws of an accelerator: its memory runs out, it is lost, a model is trained on it.

The laws run there too: `make gpu`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.errors import DeviceExhausted
from model.evaluate import evaluate
from model.hrg_ssa.kind import HrgOptions
from model.hrg_ssa.plan import plan as plan_hrg_ssa
from model.pcgnet import bench
from model.registry import load_any
from model.train_run import carry_out
from model.training.options import Run
from tests.fakes.conversations import generated_conversations
from tests.fakes.encoder import write_tiny_encoder
from tests.fakes.hrg_ssa import SIZES

pytestmark = pytest.mark.gpu

LOST = """
import torch
from model.serving.device import device_errors
from model.interface import DeviceLost

try:
    with device_errors():
        torch.zeros(3, device="cuda")[torch.tensor([5], device="cuda")]
        torch.cuda.synchronize()
except DeviceLost as error:
    print("lost:", type(error.__cause__).__name__)
"""


def test_a_full_device_is_reported_and_the_next_batch_is_answered() -> None:
    by = bench.random_predictor(200, "cuda")
    talks = bench.Talks.begin(by, max(by.batch_sizes))
    turns = talks.turns(0)
    before = by.predict(turns[:1])
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**20) / total)
    try:
        with pytest.raises(DeviceExhausted, match="out of memory"):
            by.predict(turns)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert by.predict(turns[:1])[0].probabilities == before[0].probabilities


def test_a_device_that_failed_is_lost() -> None:
    """In a process of its own: after such an error no call to the device succeeds."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("lost:"), done.stderr


def test_what_is_trained_there_is_served_anywhere(tmp_path: Path) -> None:
    data = generated_conversations(24, seed=1)
    small = {name: value for name, value in SIZES.items() if name != "text"}
    plan = plan_hrg_ssa(
        data,
        HrgOptions(encoder=write_tiny_encoder(tmp_path / "encoder"), device="cuda"),
        Run(
            command="emotrack train",
            recipe_changes={
                "epochs": 8, "patience": 8, "steps_at_least": 1, "mixed_layers": 2,
                "batch_utterances": 60, "learning_rate": 1e-2,
            },
            model_changes={**small, "text": 16},
        ),
    )  # fmt: skip
    outcome = carry_out(plan, tmp_path / "run")
    assert outcome.trained.chosen.dev_weighted_f1 > 0.5
    on_cpu = evaluate(load_any(tmp_path / "run"), data, "dev", encoder=tmp_path / "encoder")
    assert on_cpu.weighted_f1.value == pytest.approx(
        outcome.trained.chosen.dev_weighted_f1, abs=0.02
    )
