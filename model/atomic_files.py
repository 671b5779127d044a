"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path


def write_whole(folder: Path, files: Mapping[str, bytes], remove: Collection[str] = ()) -> None:
    """Write `files` (name -> bytes) into `folder`, in their order, then remove those of `remove`.

    The folder stays unchanged until every byte is on the disk; if that fails, a folder created here
    is removed again. Raises `OSError`.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as scratch:
            for name, content in files.items():
                with (Path(scratch) / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for name in files:
                os.replace(Path(scratch) / name, folder / name)
    except OSError:
        if created and not any(folder.iterdir()):
            folder.rmdir()
        raise
    for name in remove:
        (folder / name).unlink(missing_ok=True)
