"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write every file under a temporary name, then rename them all; makes the folder.

    Raises OSError, and then leaves no temporary file and no folder that was not there before.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f".{name}.new": folder / name for name in contents}
    try:
        for part, content in zip(parts, contents.values(), strict=True):
            part.write_bytes(content)
        for part, path in parts.items():
            part.replace(path)
    except OSError:
        for part in parts:
            part.unlink(missing_ok=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise
