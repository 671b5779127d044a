"""Print the sizes of the image's layers, in MB, of the packages of each lock as installed here.

    .venv/bin/python deploy/dev/image_size.py

Bytecode counts, as the image compiles it. The base image is not counted: it is not here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYERS = ("torch", "encoder", "worker")
OURS = ("stream", "model", "state")


def main() -> None:
    """Print a line a layer, the largest packages, and the sum."""
    total = 0
    for layer in LAYERS:
        sizes = {name: sum(map(size, files_of(name))) for name in locked(layer)}
        total += sum(sizes.values())
        largest = sorted(sizes, key=lambda name: -sizes[name])[:4]
        named = ", ".join(f"{name} {sizes[name] / 1e6:,.0f}" for name in largest)
        print(f"{layer}.lock {sum(sizes.values()) / 1e6:8,.0f} MB  {named}")
    ours = sum(f.stat().st_size for name in OURS for f in (ROOT / name).rglob("*") if f.is_file())
    print(f"our wheel  {ours / 1e6:8,.0f} MB")
    print(f"together   {(total + ours) / 1e6:8,.0f} MB, and the base image")


def locked(layer: str) -> set[str]:
    """The packages of a lock."""
    text = (ROOT / f"requirements/{layer}.lock").read_text()
    return set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))


def files_of(name: str) -> Iterator[Path]:
    """A package's files with their bytecode; none where it is not for this machine."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return
    for file in files:
        path = Path(str(file.locate()))
        yield path
        if path.suffix == ".py":
            yield path.parent / f"__pycache__/{path.stem}.{sys.implementation.cache_tag}.pyc"


def size(path: Path) -> int:
    """Its bytes; 0 where it is not there."""
    return path.stat().st_size if path.is_file() else 0


if __name__ == "__main__":
    main()
