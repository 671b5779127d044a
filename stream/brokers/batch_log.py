"""Tell the records that were removed from a partition from markers and aborted records.

A reader sees offsets that hold no record of its own in three cases: a transaction's marker, a
transaction that was aborted, and records that were removed (compaction, `DeleteRecords`, retention
at the head). Only the last is a loss, and no client says which it is. The batches do: a marker's
batch is flagged, an aborted batch still counts as many records as it has offsets, and a batch that
was compacted counts fewer, or is gone. Compaction removes aborted batches and old markers too, so
those count as lost there: on the side of saying too much.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import kafka
import kafka.errors
from kafka.protocol.consumer import FetchRequest

from stream.brokers.kafka_admin import client_arguments
from stream.errors import EmotrackError
from stream.ports import LogUnavailable, Stretch
from stream.security import KafkaSecurity

# Of a record batch (magic 2): base offset, length, leader epoch, magic, checksum, attributes, last
# offset delta, two timestamps, producer id and epoch, first sequence number, number of records.
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_FRAME: Final = 12  # bytes of a batch that its length does not count
_MAGIC: Final = 2
_CONTROL: Final = 0x20
_FETCH_BYTES: Final = 8 << 20
_WAIT_MS: Final = 100
_CALL_MS: Final = 10_000


class Batch(NamedTuple):
    """The offsets of one batch, and whether each of them holds a record or a marker."""

    first: int
    end: int
    whole: bool


def batches_of(data: bytes) -> Iterator[Batch]:
    """Yield the batches whose header is in `data`; the last may be cut short."""
    at = 0
    while at + _HEADER.size <= len(data):
        base, length, _, magic, _, attributes, delta, *_, count = _HEADER.unpack_from(data, at)
        if magic != _MAGIC:  # older than transactions
            return
        end = base + delta + 1
        yield Batch(base, end, bool(attributes & _CONTROL) or count == delta + 1)
        at += _FRAME + length


def subtract(holes: Iterable[Stretch], batches: Iterable[Batch]) -> list[Stretch]:
    """Return what is left of `holes` without the offsets of whole batches; both ascending."""
    left: list[Stretch] = []
    whole = deque(batch for batch in batches if batch.whole)
    for first, end in holes:
        while first < end:
            while whole and whole[0].end <= first:
                whole.popleft()
            start, stop = (whole[0].first, whole[0].end) if whole else (end, end)
            if first < start:
                left.append((first, min(start, end)))
            first = max(start, stop)
    return left


class BatchLog:
    """Reads the headers of one topic's batches, on a client of kafka-python; connects on use."""

    def __init__(self, bootstrap: str, topic: str, security: KafkaSecurity) -> None:
        self._bootstrap, self._topic, self._security = bootstrap, topic, security
        self._admin: Any = None
        self._leaders: dict[int, int] = {}

    def lost(self, partition: int, holes: Sequence[Stretch]) -> list[Stretch]:
        """Return the parts of `holes` (ascending) whose records were removed.

        Raises `LogUnavailable`.
        """
        if not holes:
            return []
        try:
            end = holes[-1][1]
            return subtract(holes, self._batches(partition, holes[0][0], end))
        except (kafka.errors.KafkaError, EmotrackError, OSError) as error:
            self.close()  # connect anew, to whoever leads then
            raise LogUnavailable(
                f"the batches of partition {partition} cannot be read: {error}"
            ) from None

    def _batches(self, partition: int, first: int, end: int) -> Iterator[Batch]:
        """Yield the batches that hold offsets from `first` up to `end`."""
        while first < end:
            found = list(batches_of(self._fetch(partition, first)))
            yield from found
            if not found or found[-1].end <= first:
                return  # the log ends here
            first = found[-1].end

    def _fetch(self, partition: int, offset: int) -> bytes:
        wanted = FetchRequest.FetchTopic(
            topic=self._topic,
            partitions=[
                FetchRequest.FetchTopic.FetchPartition(
                    partition=partition,
                    current_leader_epoch=-1,
                    fetch_offset=offset,
                    log_start_offset=-1,
                    partition_max_bytes=_FETCH_BYTES,
                )
            ],
        )
        request = FetchRequest(
            replica_id=-1,
            max_wait_ms=_WAIT_MS,
            min_bytes=1,
            max_bytes=_FETCH_BYTES,
            isolation_level=0,
            session_id=0,
            session_epoch=-1,
            topics=[wanted],
            forgotten_topics_data=[],
            rack_id="",
        )
        manager, leader = self._connected(partition)
        answer = manager.run(manager.send, request, leader)
        (found,) = answer.responses[0].partitions
        kind = kafka.errors.for_code(found.error_code)
        if kind is kafka.errors.OffsetOutOfRangeError:
            return b""  # removed at the head
        if kind is not kafka.errors.NoError:
            raise kind()
        return bytes(found.records or b"")

    def _connected(self, partition: int) -> tuple[Any, int]:
        if self._admin is None:
            self._admin = kafka.KafkaAdminClient(
                bootstrap_timeout_ms=_CALL_MS,
                request_timeout_ms=_CALL_MS,
                **client_arguments(self._bootstrap, self._security),
            )
            (described,) = self._admin.describe_topics([self._topic])
            self._leaders = {p["partition_index"]: p["leader_id"] for p in described["partitions"]}
        if partition not in self._leaders:
            raise kafka.errors.UnknownTopicOrPartitionError
        return self._admin._manager, self._leaders[partition]

    def close(self) -> None:
        """Release the connection; idempotent, never raises."""
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(kafka.errors.KafkaError, OSError):
                admin.close()
