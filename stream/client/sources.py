"""Sources of published utterances, and their pace.

A source is JSON lines (a file or standard input), one utterance event a line; a CSV file, one a
row; or a data-set folder (`model.data.dataset` has the format). The clock is a parameter.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, tee
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from model.data.feature_file import FeatureRows
from model.data.feature_match import RowKey
from model.data.reader import read_data_set
from model.data.table import CSV_SUFFIXES
from model.errors import DataError
from stream.client.data_source import DataChoice, Source, from_data_set
from stream.client.file_kind import require_lines
from stream.client.repeats import Placed, Repeats
from stream.client.table_source import (
    attached,
    csv_utterances,
    in_their_order,
    keys_of,
    keys_of_lines,
    require_sendable,
)
from stream.errors import ConfigError, InvalidUtterance, SourceError
from stream.events.decode import parse
from stream.events.messages import Utterance, flags_of
from stream.events.poison import MAX_VALUE_BYTES, Rejected


@dataclass(frozen=True, slots=True)
class PublishSummary:
    """Counts and duration of one `publish_all`."""

    utterances: int
    conversations: int
    seconds: float
    flags: Counter[str] = field(default_factory=Counter)  # what did not fit, by flag

    @property
    def per_second(self) -> float:
        return self.utterances / self.seconds if self.seconds > 0 else 0.0


class Publishes(Protocol):
    """The part of a `Publisher` that `publish_all` uses."""

    def publish(self, utterance: Utterance) -> None: ...

    def flush(self) -> None: ...


def publish_all(
    publisher: Publishes,
    utterances: Iterable[Utterance],
    *,
    rate: float | None = None,
    sent: Callable[[int], None] = lambda _count: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> PublishSummary:
    """Publish everything and wait until the broker has it.

    With a `rate` (utterances a second) it is an open loop: the n-th is due n/rate seconds after the
    start, even if those before are late. Raises what the publisher and the source raise; an
    `InvalidUtterance` names the place of the utterance.
    """
    start = clock()
    conversations: set[str] = set()
    flags: Counter[str] = Counter()
    count = 0
    for utterance in utterances:
        if rate is not None and (ahead := start + count / rate - clock()) > 0:
            sleep(ahead)
        try:
            publisher.publish(utterance)
        except InvalidUtterance as error:
            raise InvalidUtterance(
                error.code, f"utterance {count + 1} ({utterance.utterance_id!r}): {error}"
            ) from None
        count += 1
        conversations.add(utterance.conversation_id)
        flags.update(flags_of(utterance))
        sent(count)
    publisher.flush()
    return PublishSummary(count, len(conversations), clock() - start, flags)


def open_sources(
    sources: Sequence[str],
    choice: DataChoice,
    stdin: BinaryIO | None = None,
    features: FeatureRows | None = None,
    *,
    id_prefix: str = "",
    command: str = "publish",
) -> Source:
    """Open standard input (`-`), data-set folders, tables (.csv, .tsv) and files of JSON lines.

    They are published one after the other, with `id_prefix` before each conversation id. A file is
    read once before, so that a misfit or a repeated id is known before anything is sent; standard
    input is read, and refused, as it is published. The rows of `features` are attached to the lines
    of the only file by their names, else in order (`model.data.feature_match`); where they have
    names, standard input is read to its end before. `command` is the one that reads them, for the
    cures in its errors. Raises `SourceError`.
    """
    if features is not None and len(sources) > 1:
        raise ConfigError("--features belongs to one file: publish the files one by one")
    repeats = Repeats()
    open_one = partial(_open_source, choice=choice, stdin=stdin, features=features,
                       repeats=repeats, id_prefix=id_prefix, command=command)  # fmt: skip
    opened = [open_one(name) for name in sources]
    totals = [source.total for source in opened]
    return Source(
        ", ".join(source.name for source in opened),
        chain.from_iterable(source.utterances for source in opened),
        total=None if None in totals else sum(filter(None, totals)),
        repeats=repeats,
        warnings=tuple(chain.from_iterable(source.warnings for source in opened)),
    )


def _open_source(
    source: str,
    choice: DataChoice,
    stdin: BinaryIO | None,
    features: FeatureRows | None,
    repeats: Repeats,
    id_prefix: str,
    command: str,
) -> Source:
    path = Path(source)
    if path.is_dir():
        if features is not None:
            raise ConfigError("a data set has vectors of its own: leave out --features")
        if not any(path.glob("*_meta.json")):
            raise SourceError(
                f"{path} is a folder without a data set (no <set>_meta.json): name a file of JSON "
                "lines, a .csv, or a folder that `emotrack data convert` made"
            )
        try:
            opened = from_data_set(read_data_set(path, choice.set_name), choice)
        except DataError as error:
            raise SourceError(str(error)) from error
        return replace(opened, utterances=_renamed(opened.utterances, id_prefix))
    limit = choice.limit_conversations
    lines: Iterable[bytes] = stdin or sys.stdin.buffer
    warnings: list[str] = []
    if features is not None and features.names:
        lines = list(lines) if source == "-" else ()
        features, warnings = in_their_order(features, _keys(path, lines))
    if source == "-":
        name, placed = "standard input", read_lines(lines, "standard input")
    else:
        name, placed = path.name, _file_utterances(path, command)
    again = source != "-" and not path.is_fifo() and not path.is_char_device()
    rows = _read_first(path, id_prefix, limit, repeats, command) if again else None
    placed = _prefixed(placed, id_prefix)
    if features is not None:
        require_sendable(features, rows, name)
        placed = _placed_rows(placed, features, name)
    placed = _first_conversations(placed, limit)
    placed = placed if again else repeats.counted(placed)
    utterances = (utterance for _place, utterance in placed)
    return Source(name, utterances, warnings=tuple(warnings))


def _keys(path: Path, lines: Iterable[bytes]) -> list[RowKey]:
    """Return what names the utterances of a file, or of the lines of standard input."""
    if path.suffix.lower() in CSV_SUFFIXES:
        return keys_of(path)
    if str(path) == "-":
        return keys_of_lines(lines)
    try:
        with path.open("rb") as file:
            return keys_of_lines(file)
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_first(path: Path, prefix: str, limit: int | None, repeats: Repeats, command: str) -> int:
    """Read a file before it is published: count its repeats, and return its utterances."""
    rows = 0

    def counted() -> Iterator[Placed]:
        nonlocal rows
        for one in _prefixed(_file_utterances(path, command), prefix):
            rows += 1
            yield one

    for _ in repeats.counted(_first_conversations(counted(), limit)):
        pass
    return rows


def _placed_rows(placed: Iterable[Placed], features: FeatureRows, name: str) -> Iterator[Placed]:
    """Yield the same places, with the rows of `features` attached."""
    places, utterances = tee(placed)
    # `attached` first: it must see the end, to say that rows are left.
    rows = zip(attached((u for _, u in utterances), features, name), places, strict=False)
    return ((place, utterance) for utterance, (place, _) in rows)


def _prefixed(placed: Iterable[Placed], prefix: str) -> Iterator[Placed]:
    for place, utterance in placed:
        yield place, _with_prefix(utterance, prefix)


def _renamed(utterances: Iterable[Utterance], prefix: str) -> Iterator[Utterance]:
    return (_with_prefix(utterance, prefix) for utterance in utterances)


def _with_prefix(utterance: Utterance, prefix: str) -> Utterance:
    if not prefix:
        return utterance
    return msgspec.structs.replace(utterance, conversation_id=prefix + utterance.conversation_id)


def _file_utterances(path: Path, command: str) -> Iterator[Placed]:
    if path.suffix.lower() in CSV_SUFFIXES:
        yield from csv_utterances(path)
        return
    try:
        require_lines(path, command)
        with path.open("rb") as file:
            yield from read_lines(file, path.name)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"cannot read {path}: {error.strerror}. Give a file of JSON lines, - for standard input, a "
        ".csv, or a data-set folder"
    )


def read_lines(lines: Iterable[bytes], name: str) -> Iterator[Placed]:
    """Parse JSON lines and skip blank lines. Raises `SourceError` naming the line."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(line) > MAX_VALUE_BYTES:
            raise SourceError(f"{name}, line {number}: {len(line)} bytes, more than 1 MiB")
        try:
            yield f"{name}, line {number}", parse(line, "json")
        except Rejected as error:
            raise SourceError(f"{name}, line {number}: {error.poison.sentence}") from None


def _first_conversations(utterances: Iterator[Placed], limit: int | None) -> Iterator[Placed]:
    """Yield only the utterances of the first `limit` conversations."""
    if limit is None:
        yield from utterances
        return
    first: set[str] = set()
    for place, utterance in utterances:
        if utterance.conversation_id in first or len(first) < limit:
            first.add(utterance.conversation_id)
            yield place, utterance
