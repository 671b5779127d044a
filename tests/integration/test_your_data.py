"""docs/your-data.md, run as a person would: from a table to a served model and its answers."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from model.errors import EncoderMissing
from model.text.sentence_encoder import find_encoder
from stream.local.servers import RunningKafka, RunningRedis, free_ports
from tests.conftest import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]
SAID = {
    "annoyed": ("This is outrageous.", "I am really angry now.", "Stop it, I hate this."),
    "calm": ("Let me look.", "It is on its way.", "The office opens at nine."),
    "happy": ("Oh, how lovely!", "Thank you so much!", "That is great news."),
    "worried": ("I am afraid it is lost.", "What if it never comes?", "I am so nervous."),
}
READY_S = 600.0
ENDS_S = 900.0


def write_calls(file: Path) -> int:
    """Write 30 calls of four emotions and return the number of their utterances."""
    draw = np.random.default_rng(0)
    rows = []
    for call in range(30):
        emotion = str(draw.choice(list(SAID)))
        for turn in range(int(draw.integers(4, 9))):
            emotion = emotion if draw.random() < 0.5 else str(draw.choice(list(SAID)))
            label = "" if draw.random() < 0.05 else emotion
            rows.append([f"call-{call}", turn, "ann" if turn % 2 else "ben",
                         str(draw.choice(SAID[emotion])), label])  # fmt: skip
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["call_id", "turn", "speaker", "transcript", "emotion"], *rows])
    return len(rows)


def blocks() -> list[tuple[str, str]]:
    """Return the language and text of each block of the page, in order."""
    page = (ROOT / "docs/your-data.md").read_text("utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```$", page, re.M | re.S)


@contextmanager
def worker(line: str, environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Run the page's `emotrack serve` until the block ends; return when it is ready."""
    port = free_ports(1)[0]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=folder,
            env=environment | {"EMOTRACK_METRICS_PORT": str(port)},
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + READY_S
        while not ready(port):
            assert process.poll() is None, (folder / "worker.log").read_text()
            assert time.monotonic() < until, "the worker did not start"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def read(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as rows:
        return {(r["conversation_id"], r["utterance_id"]): r for r in csv.DictReader(rows)}


def test_the_journey_of_the_page(
    kafka: RunningKafka, redis_server: RunningRedis, tmp_path: Path
) -> None:
    try:
        find_encoder()
    except EncoderMissing as why:
        pytest.skip(str(why))
    count = write_calls(tmp_path / "calls.csv")
    prefix = f"t{uuid.uuid4().hex[:8]}."
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EMOTRACK_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "EMOTRACK_BOOTSTRAP": kafka.bootstrap,
        "EMOTRACK_REDIS_URL": redis_server.url,
        "EMOTRACK_TOPIC_PREFIX": prefix,
        "EMOTRACK_GROUP": f"{prefix}workers",
    }

    def run(*command: str) -> str:
        here = [
            word.replace("emotrack.predictions", f"{prefix}predictions")
            .replace('PredictionSubscriber("127.0.0.1:9092"', "PredictionSubscriber("
                     f'"{kafka.bootstrap}", topic="{prefix}predictions"')
            for word in command
        ]  # fmt: skip
        ran = subprocess.run(
            here, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=ENDS_S,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    said: list[str] = []
    found = blocks()
    assert [language for language, _ in found] == [
        "bash", "bash", "bash", "bash", "python", "bash", "python",
    ]  # fmt: skip
    *before, (_, served), (_, program) = found
    for language, text in before:
        if language == "python":
            said.append(run(sys.executable, "-c", text))
        else:
            said += [run("bash", "-euo", "pipefail", "-c", line) for line in text.splitlines()]
    create, serve, *rest = served.splitlines()
    run("bash", "-c", create)
    with worker(serve, environment, tmp_path):
        said += [run("bash", "-euo", "pipefail", "-c", line) for line in rest]
        printed = run(sys.executable, "-c", program)
    assert len(printed.splitlines()) == count

    answers, live = read(tmp_path / "answers.csv"), read(tmp_path / "live.csv")
    scored, joined = read(tmp_path / "scored.csv"), read(tmp_path / "joined.csv")
    assert len(answers) == len(live) == count
    assert any(f"answered {count} of {count}" in text for text in said)
    stated = [n for n in next(iter(answers.values())) if n not in ("alert", "modalities_used")]
    assert {"p_annoyed", "p_calm", "p_happy", "p_worried", "shift_probability"} <= set(stated)
    for at, answer in answers.items():
        assert {n: answer[n] for n in stated} == {n: live[at][n] for n in stated}
    assert scored.keys() == joined.keys() and scored.keys() < answers.keys()
    for at, row in joined.items():
        assert row["emotion"] == answers[at]["emotion"] and row["label"] == scored[at]["label"]
    with (tmp_path / "calls/calls_test-ledger.csv").open(encoding="utf-8", newline="") as looks:
        assert [look["set"] for look in csv.DictReader(looks)] == ["calls"]
