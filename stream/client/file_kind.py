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


def require_lines(path: Path) -> None:
    """Raise `SourceError` with the cure where a file begins as no file of JSON lines does.

    Raises `OSError` where it cannot be read. An empty file passes: it has no lines.
    """
    if not path.is_file():  # a pipe's beginning cannot be read twice
        return
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if (cure := _cure(head, shlex.quote(str(path)))) is not None:
        raise SourceError(f"{path} {cure}")


def _cure(head: bytes, name: str) -> str | None:
    for magic, packer in _PACKED.items():
        if head.startswith(magic):
            return f"is packed with {packer}: {packer} -dc {name} | emotrack publish -"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive, as a workbook (.xlsx) or .npz is: export a table as .csv"
    if head.startswith(b"PAR1"):
        return "is a Parquet file: export it as .csv or as JSON lines"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[1:2] == b"\0" or head[:1] == b"\0":
        return (
            f"is text in UTF-16, or no text: iconv -f UTF-16 -t UTF-8 {name} | emotrack publish -"
        )
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return f"is a JSON array, not JSON lines: jq -c '.[]' {name} | emotrack publish -"
    if re.match(rb"\{\s*\n", text):
        return f"has one JSON object over several lines: jq -c . {name} | emotrack publish -"
    if not text.startswith(b"{") and re.search(rb"(?i)^\W*conversation.?id\W*[,;\t]", text):
        return "is a table, not JSON lines: let its name end in .csv"
    return None
