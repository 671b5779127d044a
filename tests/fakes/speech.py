"""Sounds for tests, spoken by espeak-ng or made by sox; a missing tool skips, or fails under CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def _run(tool: str, *arguments: str) -> None:
    if shutil.which(tool) is None:
        reason = f"{tool} is not installed (Debian: apt-get install {tool})"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have every tool: {reason}")
        pytest.skip(reason)
    subprocess.run([tool, *arguments], check=True, timeout=30, capture_output=True)


def spoken(path: Path, text: str, *, voice: str = "en", words_a_minute: int = 160) -> Path:
    """`text` in a voice of espeak-ng, e.g. en+f3 (a woman's) or en+whisper."""
    _run("espeak-ng", "-v", voice, "-s", str(words_a_minute), "-w", str(path), text)
    return path


def made(path: Path, *effects: str, channels: int = 1, from_: Path | None = None) -> Path:
    """Make a sound with sox: a tone, silence, or `from_` changed by `effects`."""
    source = ("-n", "-r", "16000") if from_ is None else (str(from_),)
    _run("sox", "-R", *source, "-c", str(channels), str(path), *effects)
    return path
