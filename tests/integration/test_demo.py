"""`emotrack demo` as a stranger runs it without a terminal: embedded broker, real worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stream.local.demo import conversations, interleaved


@pytest.mark.slow
def test_the_demo_answers_every_utterance_and_sums_up(tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    ran = subprocess.run(
        [sys.executable, "-m", "stream.main", "demo", "--speed", "20", "--picture", picture],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    total = sum(len(c) for c in conversations().values())
    assert f"{total} utterances sent, {total} predictions" in ran.stdout
    assert "call: text (no audio, no video)" in ran.stdout, "it says what was absent"
    assert "kitchen: text+audio+video" in ran.stdout
    assert "end to end" in ran.stdout and "What to try next" in ran.stdout
    assert picture.stat().st_size > 50_000 and f"the timeline is in {picture}" in ran.stdout
    alerted = "SHIFT ALERT" in ran.stdout
    assert alerted != ("no alert in this run" in ran.stdout), "a run without an alert says so"


def test_conversations_have_the_promised_sizes() -> None:
    speakers = {n: len({u.speaker_id for u in c}) for n, c in conversations().items()}
    assert speakers == {"call": 2, "attic": 3, "kitchen": 5}
    assert all(15 <= len(c) <= 30 for c in conversations().values())


@pytest.mark.parametrize("name", ["call", "attic", "kitchen"])
def test_interleaving_keeps_the_order_of_each_conversation(name: str) -> None:
    spoken = conversations()
    mixed = interleaved(spoken.values())
    assert [u for u in mixed if u.conversation_id == f"demo-{name}"] == spoken[name]
    assert len(mixed) == sum(len(c) for c in spoken.values())
