"""A file that holds no JSON lines is named for what it is, and the cure in the sentence works."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from stream.client.data_source import DataChoice
from stream.client.sources import open_sources
from stream.errors import SourceError

GOOD: Final[dict[str, Any]] = {
    "conversation_id": "c",
    "utterance_id": "u",
    "speaker_id": "s",
    "text": "Where is my order?",
}
LINES: Final = b"".join(json.dumps(GOOD | {"utterance_id": f"u{i}"}).encode() + b"\n"
                        for i in range(2))  # fmt: skip
OBJECTS: Final = [json.loads(line) for line in LINES.splitlines()]


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("talk.jsonl", LINES)
    return packed.getvalue()


def one_a_line(value: bytes) -> bytes:
    """Return what `jq -c` makes of an array (`.[]`), or of objects (`.`)."""
    found, text = [], value.decode("utf-8-sig").strip()
    while text:
        one, end = json.JSONDecoder().raw_decode(text)
        found += one if isinstance(one, list) else [one]
        text = text[end:].strip()
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


CASES: Final[dict[str, tuple[bytes, str, Callable[[bytes], bytes]]]] = {
    "gzip": (gzip.compress(LINES), "packed with gzip: gzip -dc", gzip.decompress),
    "bzip2": (bz2.compress(LINES), "packed with bzip2: bzip2 -dc", bz2.decompress),
    "xz": (lzma.compress(LINES), "packed with xz: xz -dc", lzma.decompress),
    "zip": (
        zipped(),
        "is a zip archive",
        lambda value: zipfile.ZipFile(io.BytesIO(value)).read("talk.jsonl"),
    ),
    "UTF-16": (
        LINES.decode().encode("utf-16"),
        "iconv -f UTF-16 -t UTF-8",
        lambda value: value.decode("utf-16").encode(),
    ),
    "an array": (json.dumps(OBJECTS).encode(), "JSON array, not JSON lines: jq -c", one_a_line),
    "an array after a mark": (
        b"\xef\xbb\xbf\n" + json.dumps(OBJECTS, indent=1).encode(), "JSON array", one_a_line,
    ),
    "objects over several lines": (
        b"".join(json.dumps(one, indent=2).encode() for one in OBJECTS),
        "over several lines: jq -c .",
        one_a_line,
    ),
    "Parquet": (b"PAR1\x15\x04", "Parquet", lambda _value: LINES),
}  # fmt: skip


def sent(path: Path) -> list[str]:
    opened = open_sources([str(path)], DataChoice())
    return [utterance.utterance_id for utterance in opened.utterances]


@pytest.mark.parametrize("kind", CASES)
def test_a_file_of_another_kind_is_named_and_the_cure_works(kind: str, tmp_path: Path) -> None:
    value, words, cure = CASES[kind]
    path = tmp_path / "a talk.jsonl"
    path.write_bytes(value)
    with pytest.raises(SourceError) as met:
        sent(path)
    assert words in str(met.value)
    assert "a talk.jsonl" in str(met.value)
    path.write_bytes(cure(value))
    assert sent(path) == ["u0", "u1"]


def test_a_table_under_another_name_is_read_under_its_own(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("Conversation_ID,speaker,text\nc,ann,hi\n", "utf-8")
    with pytest.raises(SourceError, match=r"is a table, not JSON lines: let its name end in \.csv"):
        sent(path)
    assert sent(path.rename(tmp_path / "talk.csv")) == ["0"]


def test_a_byte_order_mark_and_blank_lines_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINES + b"\n\n")
    assert sent(path) == ["u0", "u1"]
    path.write_bytes(b"")
    assert sent(path) == []


def test_a_bad_row_in_the_middle_is_met_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(LINES + b'{"conversation_id": 7}\n')
    with pytest.raises(SourceError, match=r"talk\.jsonl, line 3"):
        open_sources([str(path)], DataChoice())
