"""The figures of `emotrack bench start`, and the imports that a start avoids."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from stream import main
from stream.bench.start import files_read, measure, rows_of
from stream.cli import serve
from stream.local.servers import ServerFailed, free_ports

NOT_NEEDED = (
    "torch_geometric",
    "sklearn",
    "matplotlib",
    "transformers",
    "yaml",
    "model.pcgnet.train",
)


def test_the_rows_are_medians_with_their_goal() -> None:
    cold = [(9.0, 6.0), (7.0, 6.5), (8.0, 6.1)]
    warm = [(6.0, 5.0), (6.5, 5.5), (11.0, 5.2)]
    rows = rows_of(cold, warm)
    assert {name: row["value"] for name, row in rows.items()} == {
        "start_cold_s": 8.0,
        "start_warm_s": 6.5,
        "start_cpu_s": 5.2,
    }
    assert rows["start_warm_s"]["first"] == 10 and rows["start_warm_s"]["runs"] == [6.0, 6.5, 11.0]


def test_the_files_that_are_dropped_are_the_weights_and_the_large_libraries() -> None:
    names = {file.name for file in files_read()}
    assert {"model.safetensors", "libtorch_cpu.so", "worker.py", "emotrack.lua"} <= names


def test_a_worker_that_cannot_start_is_no_figure(tmp_path: Path) -> None:
    (closed,) = free_ports(1)
    settings = {"bootstrap": f"127.0.0.1:{closed}", "redis_url": "memory://"}
    with pytest.raises(ServerFailed, match=f"127.0.0.1:{closed}"):
        measure(settings, tmp_path / "worker.log")


@pytest.mark.slow
def test_a_worker_imports_nothing_that_only_training_or_text_needs() -> None:
    """Each of these takes from a tenth of a second to two; the encoder imports its own."""
    code = (
        "import sys, stream.serve, model.pcgnet.kind, model.pcgnet.predictor\n"
        f"print([name for name in {NOT_NEEDED} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_garbage_collection_is_on_again_after_a_failed_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (closed,) = free_ports(1)
    seen: list[bool] = []
    monkeypatch.setattr(serve, "stop_on_signals", lambda: seen.append(gc.isenabled()))
    argv = ["emotrack", "serve", "--bootstrap", f"127.0.0.1:{closed}", "--redis-url", "memory://"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        main.main()
    assert seen == [False] and gc.isenabled()
