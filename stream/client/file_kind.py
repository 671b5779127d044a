"""Name a file that holds no JSON lines by how it begins, with the command that makes them of it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

from stream.errors import SourceError

HEAD_BYTES: Final = 4096
_PACKED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2",
                  b"\xfd7zXZ": "xz"}  # fmt: skip


def require_lines(path: Path, command: str = "publish") -> None:
    """Raise `SourceError` with the cure where a file begins as no file of JSON lines does.

    `command` of emotrack is the one that the cure ends with.

    Raises `OSError` where it cannot be read. An empty file passes: it has no lines.
    """
    head, name = _head(path), shlex.quote(str(path))
    then = f"| emotrack {command} -"
    cure = _binary(head, name, then) or _other_text(head, name, then)
    if cure is not None:
        raise SourceError(f"{path} {cure}")


def require_table(path: Path) -> None:
    """Raise `SourceError` with the cure where a file begins as no table does; as above."""
    name = shlex.quote(str(path))
    if (cure := _binary(_head(path), name, f"> {name}.utf8.csv")) is not None:
        raise SourceError(f"{path} {cure}")


def _head(path: Path) -> bytes:
    if not path.is_file():  # a pipe's beginning cannot be read twice
        return b""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _binary(head: bytes, name: str, then: str) -> str | None:
    for magic, packer in _PACKED.items():
        if head.startswith(magic):
            return f"is packed with {packer}: {packer} -dc {name} {then}"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive, as a workbook (.xlsx) or .npz is: export a table as .csv"
    if head.startswith(b"PAR1"):
        return "is a Parquet file: export it as .csv or as JSON lines"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[1:2] == b"\0" or head[:1] == b"\0":
        return f"is text in UTF-16, or no text: iconv -f UTF-16 -t UTF-8 {name} {then}"
    return None


def _other_text(head: bytes, name: str, then: str) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return f"is a JSON array, not JSON lines: jq -c '.[]' {name} {then}"
    if re.match(rb"\{\s*\n", text):
        return f"has one JSON object over several lines: jq -c . {name} {then}"
    if not text.startswith(b"{") and re.search(rb"(?i)^\W*conversation.?id\W*[,;\t]", text):
        return "is a table, not JSON lines: let its name end in .csv"
    return None
