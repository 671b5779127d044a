"""The example runs as a person runs it, from any folder."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import EncoderMissing
from model.text.sentence_encoder import find_encoder
from tests.conftest import ROOT


@pytest.mark.slow
def test_the_notebook_of_the_example_runs_to_its_end(tmp_path: Path) -> None:
    try:
        find_encoder()
    except EncoderMissing as why:
        pytest.skip(str(why))
    ran = subprocess.run(
        [sys.executable, ROOT / "examples/ask_a_model.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "(language)" in ran.stdout and "ALERT" in ran.stdout
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 7
