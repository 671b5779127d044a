"""Finished runs: what each was made of, so that none is replaced by another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from model.checkpoint_files import DIGEST_FILE
from model.errors import ModelError
from model.training.progress import PROGRESS

RUN_FILE: Final = "run.json"


def run_file(identity: Mapping[str, str], command: str) -> bytes:
    """Return the file that says what a run was made of: its digests, and the command."""
    return (json.dumps({**identity, "command": command}, indent=1) + "\n").encode()


def finished_run(folder: Path, identity: Mapping[str, str]) -> str | None:
    """Return the digest of the checkpoint in `folder` if an equal run has made it; None: no run.

    Raises `ModelError` where the checkpoint is of a run with other data or settings.
    """
    digest = folder / DIGEST_FILE
    if not digest.exists() or (folder / PROGRESS).exists():
        return None
    try:
        made = json.loads((folder / RUN_FILE).read_text("utf-8"))
        differs = [part for part, value in identity.items() if made[part] != value]
        command = made["command"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} holds a checkpoint already, and no {RUN_FILE} that says of what run: give "
            "this run another --name, or move that folder away"
        ) from error
    if differs:
        raise ModelError(
            f"{folder} holds a finished run with other {' and '.join(differs)} ({command}): give "
            "this run another --name, or move that folder away"
        )
    return digest.read_text("utf-8").strip()
