"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path


def write_whole(folder: Path, files: Mapping[str, bytes], remove: Collection[str] = ()) -> None:
    """Write `files` (name -> bytes) into `folder`, in their order, and remove those of `remove`.

    Nothing of `folder` changes until every byte is on the disk, and a folder that had to be made is
    gone again if that fails. Raises `OSError`.
    """
    made = not folder.exists()
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
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise
    for name in remove:
        (folder / name).unlink(missing_ok=True)
