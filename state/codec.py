"""Versioned bytes of everything a store keeps, with checks against torn and damaged states.

Both stores keep the same bytes: a list of rows, one hash, a list of known utterances, and
outputs by offset. Integers are big endian; arrays are the model's own little-endian bytes.

    entry    version u8 (1), crc32 u32 over role and body, body
    row      index u32, len u16 utterance id, len u16 speaker id, both ids, arrays [row_bytes]
    hash     t    fence token, decimal
             o    position (offset) last applied, decimal
             d    digest of the StateSpec, 8 bytes: another digest is never decoded; it covers
                  the number of this layout (state.window.LAYOUT)
             m    entry: offset i64, clock_ms i64, started_ms i64, first_offset i64, last_seq i64,
                  flags u8 (1 truncated, 2 ended, 4 last_seq, 8 id_reused), count u32,
                  speakers u32, crc32 u32 of the known utterances, alert rule state
             c    entry: count u32, arrays [conversation_bytes]; absent before the first utterance
             s<speaker id>   entry: last_index u32, len u16 utterance id, id, arrays [speaker_bytes]
    known    16 bytes: state.window.utterance_hash of the id, digest of the fields (their meaning:
             stream.answers.same_utterance); oldest first
    output   offset u64, entry: packing u8 (0 plain, 1 deflate), outcome, NUL, payload

The redundancy is deliberate: row indices, counts and the checksum of the ids distinguish a torn
state (half of one write, half of another) from a whole one.
"""

from __future__ import annotations

import struct
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import MappingProxyType
from typing import Final

import numpy as np

from state.store import Loaded, Restore, Save, StoredOutput
from state.window import (
    NO_OFFSET,
    Bytes,
    Change,
    Conversation,
    Session,
    Speaker,
    StateKey,
    StateSpec,
    Window,
)

VERSION: Final = 1
TOKEN, OFFSET, DIGEST, META, ARRAYS, SPEAKER = b"t", b"o", b"d", b"m", b"c", b"s"

_ENTRY: Final = struct.Struct(">BI")
_ROW: Final = struct.Struct(">IHH")
_META: Final = struct.Struct(">qqqqqBIII")
_COUNT: Final = struct.Struct(">I")
_SPEAKER: Final = struct.Struct(">IH")
_OFFSET: Final = struct.Struct(">Q")
_TRUNCATED, _ENDED, _HAS_SEQ, _ID_REUSED = 1, 2, 4, 8
_PLAIN, _DEFLATE = 0, 1
_DEFLATE_FROM: Final = 64  # shorter payloads gain nothing
_DEFLATE_LEVEL: Final = 6  # level 1 saves 3 us and costs 18 of 240 bytes


@dataclass(slots=True)
class Entries:
    """All that is stored under one key, as bytes; the memory store's own record."""

    rows: list[bytes] = field(default_factory=list)  # oldest first, at most W
    fields: dict[bytes, bytes] = field(default_factory=dict)
    ids: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)  # by offset


@dataclass(frozen=True, slots=True)
class Append:
    """A `Save` or `Restore` as bytes, ready for either store.

    A state that is created or replaced is written whole, otherwise only what the change touched.
    """

    save: Save
    offset: int
    clock_ms: int
    digest: bytes
    restore: bool  # replace the state at any position, without an output of its own
    clear_state: bool  # delete rows and hash first
    clear_ids: bool
    fields: dict[bytes, bytes]  # set in the hash, in addition to token, offset and digest
    forgotten: tuple[bytes, ...]  # fields to delete from the hash
    rows: tuple[bytes, ...]
    ids: bytes  # known utterances, 16 bytes each
    output: bytes


def aside_key(key: StateKey, digest: bytes) -> StateKey:
    """Return the key under which a state of this digest is set aside (`Store.set_aside`)."""
    return StateKey(key.conversation_id, f"{key.topic_id}/{digest.hex()}", key.partition)


def key_tag(key: StateKey) -> str:
    """Return 20 characters for a key: a 120-bit hash, since ids may contain braces."""
    return _tag(key.conversation_id.encode(), key.topic_id.encode(), b"%d" % key.partition)


def noted_tag(key: StateKey) -> str:
    """Return 20 characters for a conversation of a topic, the same on every partition."""
    return _tag(b"noted", key.conversation_id.encode(), key.topic_id.encode())


def partition_tag(topic_id: str, partition: int) -> str:
    """Return 20 characters for a partition of a topic."""
    return _tag(topic_id.encode(), b"%d" % partition)


def _tag(*parts: bytes) -> str:
    digest = blake2b(digest_size=15)
    for part in parts:
        digest.update(b"%d:" % len(part) + part)  # lengths keep ("ab", "c") from ("a", "bc")
    return urlsafe_b64encode(digest.digest()).decode()


def stored_int(value: bytes | None) -> int | None:
    """Return a decimal field; None where it is missing or unreadable."""
    digits = (value or b"").removeprefix(b"-")
    return int(value or b"") if digits.isdigit() and len(digits) <= 16 else None


class Codec:
    """Encoder and decoder of the states of one `StateSpec`. Pure."""

    def __init__(self, spec: StateSpec, dictionary: bytes = b"") -> None:
        """Prime deflate with `dictionary`: outputs are read with the one they were written with."""
        self.spec, self._dictionary = spec, dictionary
        self.digest = bytes.fromhex(spec.digest)
        self._sizes = (spec.row_bytes, spec.conversation_bytes, spec.speaker_bytes)

    def encode(self, save: Save) -> Append:
        """Encode a save. Raises ValueError where arrays do not have the spec's size."""
        change, after = save.change, save.change.after
        whole = save.replace_foreign or save.expected_offset == NO_OFFSET
        recent = after.recent if whole else change.known or b""
        n_rows = len(after.window.rows) if whole else int(change.row_appended)
        if self.spec.recurrence.duplicate_horizon == 0:
            recent = b""
        return Append(
            save=save,
            offset=after.offset,
            clock_ms=after.clock_ms,
            digest=self.digest,
            restore=False,
            clear_state=whole or change.new_session,
            clear_ids=whole or change.horizon_cleared,
            fields=dict(self._fields(save, whole)),
            forgotten=tuple(SPEAKER + name.encode() for name in change.forgotten),
            rows=tuple(self._rows(after.window, n_rows)),
            ids=recent,
            output=encode_output(after.offset, save.output, self._dictionary),
        )

    def encode_restore(self, restore: Restore) -> Append:
        """Encode a rebuilt state, whole. Raises ValueError as `encode` does."""
        change = Change(restore.conversation, row_appended=bool(restore.conversation.window.count))
        output = StoredOutput("", b"")  # not written
        save = Save(restore.key, restore.token, restore.expected_offset, change, output, 0, True)
        return replace(self.encode(save), restore=True, output=b"")

    def decode(self, key: StateKey, entries: Entries) -> Loaded:
        """Return the stored state; one that is not whole is foreign, and `corrupt` says why.

        Outputs that do not decode are left out and named in `Loaded.corrupt`.
        """
        outputs, broken = {}, ""
        for member in entries.outputs:
            try:
                at, output = decode_output(member, self._dictionary)
            except (ValueError, struct.error, zlib.error) as error:
                broken = broken or str(error)
            else:
                outputs[at] = output
        corrupt = f"outputs of {key_name(key)}: {broken}" if broken else None
        offset = stored_int(entries.fields.get(OFFSET))
        if offset is None:
            if entries.fields:
                corrupt = f"{key_name(key)}: no readable position"
            return Loaded(None, NO_OFFSET, outputs, bool(entries.fields), corrupt)
        if entries.fields.get(DIGEST) != self.digest:
            return Loaded(None, offset, outputs, foreign=True, corrupt=corrupt)
        try:
            return Loaded(self._conversation(entries, offset), offset, outputs, corrupt=corrupt)
        except (ValueError, struct.error) as error:
            return Loaded(None, offset, outputs, foreign=True, corrupt=f"{key_name(key)}: {error}")

    def _rows(self, window: Window, last: int) -> Iterator[bytes]:
        """Yield the window's last `last` rows as entries."""
        n = len(window.rows)
        if last and window.rows.shape[1] != self._sizes[0]:
            raise ValueError(f"a row has {window.rows.shape[1]} bytes, not {self._sizes[0]}")
        for i in range(n - last, n):
            utterance_id = window.row_utterances[i].encode()
            speaker_id = window.row_speakers[i].encode()
            head = _ROW.pack(window.count - n + i, len(utterance_id), len(speaker_id))
            yield _entry(b"r", head + utterance_id + speaker_id + window.rows[i].tobytes())

    def _fields(self, save: Save, whole: bool) -> Iterator[tuple[bytes, bytes]]:
        change, window = save.change, save.change.after.window
        session, seq = change.after.session, change.after.session.last_seq
        flags = _TRUNCATED * session.truncated | _ENDED * session.ended
        flags |= _ID_REUSED * change.after.id_reused
        head = _META.pack(
            change.after.offset,
            change.after.clock_ms,
            session.started_ms,
            session.first_offset,
            seq or 0,
            flags | (0 if seq is None else _HAS_SEQ),
            window.count,
            len(window.speakers),
            zlib.crc32(change.after.recent),
        )
        yield META, _entry(META, head + change.after.alert)
        if window.arrays is not None and (whole or change.row_appended):
            arrays = self._sized(window.arrays, self._sizes[1], "the conversation")
            yield ARRAYS, _entry(ARRAYS, _COUNT.pack(window.count) + arrays)
        changed = tuple(window.speakers) if whole else (change.speaker_id,)
        for speaker_id in changed:
            if speaker_id is not None:
                speaker = window.speakers[speaker_id]
                arrays = self._sized(speaker.arrays, self._sizes[2], "a speaker")
                last = speaker.last_utterance_id.encode()
                body = _SPEAKER.pack(speaker.last_index, len(last)) + last + arrays
                yield SPEAKER + speaker_id.encode(), _entry(SPEAKER, body)

    @staticmethod
    def _sized(arrays: Bytes, nbytes: int, owner: str) -> bytes:
        if arrays.nbytes != nbytes:
            raise ValueError(f"the arrays of {owner} have {arrays.nbytes} bytes, not {nbytes}")
        return arrays.tobytes()

    def _conversation(self, entries: Entries, offset: int) -> Conversation:
        meta = _body(META, entries.fields.get(META, b""))
        at, clock_ms, started_ms, first, seq, flags, count, speakers, crc = _META.unpack_from(meta)
        _require(at == offset, "position and record disagree")
        recent = b"".join(entries.ids)
        _require(zlib.crc32(recent) == crc, "the known utterances were damaged")
        window = self._window(entries, count)
        _require(len(window.speakers) == speakers, "a speaker is missing or left over")
        session = Session(
            started_ms=started_ms,
            first_offset=first,
            truncated=bool(flags & _TRUNCATED),
            ended=bool(flags & _ENDED),
            last_seq=seq if flags & _HAS_SEQ else None,
        )
        alert, id_reused = meta[_META.size :], bool(flags & _ID_REUSED)
        return Conversation(window, session, offset, clock_ms, recent, alert, id_reused)

    def _window(self, entries: Entries, count: int) -> Window:
        n = min(count, self.spec.recurrence.window)
        _require(len(entries.rows) == n, f"{len(entries.rows)} rows instead of {n}")
        size, arrays = self._sizes[0], bytearray()
        indices, speakers, utterances = [], [], []
        for row in entries.rows:
            body = _body(b"r", row)
            index, utterance, speaker = _ROW.unpack_from(body)
            middle = _ROW.size + utterance
            values = body[middle + speaker :]
            _require(len(values) == size, f"a row of {len(values)} bytes instead of {size}")
            indices.append(index)
            utterances.append(body[_ROW.size : middle].decode())
            speakers.append(body[middle : middle + speaker].decode())
            arrays += values
        _require(indices == list(range(count - n, count)), "rows are not those of one session")
        return Window(
            rows=np.frombuffer(arrays, np.uint8).reshape(n, size),
            row_speakers=tuple(speakers),
            row_utterances=tuple(utterances),
            arrays=self._arrays(entries.fields.get(ARRAYS), count),
            speakers=self._speakers(entries.fields, count),
            count=count,
        )

    def _arrays(self, value: bytes | None, count: int) -> Bytes | None:
        _require((value is None) == (count == 0), "conversation arrays missing or left over")
        if value is None:
            return None
        body = _body(ARRAYS, value)
        _require(_COUNT.unpack_from(body) == (count,), "conversation arrays of another utterance")
        return _arrays_of(body[_COUNT.size :], self._sizes[1])

    def _speakers(self, fields: Mapping[bytes, bytes], count: int) -> Mapping[str, Speaker]:
        speakers: list[tuple[str, Speaker]] = []
        for name, value in fields.items():
            if name.startswith(SPEAKER):
                body = _body(SPEAKER, value)
                index, n = _SPEAKER.unpack_from(body)
                start = _SPEAKER.size
                last = body[start : start + n].decode()
                arrays = _arrays_of(body[start + n :], self._sizes[2])
                speakers.append((name[1:].decode(), Speaker(index, last, arrays)))
        speakers.sort(key=lambda entry: entry[1].last_index)  # least recent speaker first
        indices = {speaker.last_index for _, speaker in speakers}
        _require(len(indices) == len(speakers), "two speakers of one utterance")
        _require(not indices or max(indices) == count - 1, "the last speaker is missing")
        return MappingProxyType(dict(speakers))


def key_name(key: StateKey) -> str:
    """Return a key's name for messages."""
    return f"state of conversation {key.conversation_id!r} ({key.topic_id}, {key.partition})"


def encode_output(offset: int, output: StoredOutput, dictionary: bytes) -> bytes:
    """Encode one stored output; its first 8 bytes are the offset, so equal payloads differ."""
    body = output.outcome.encode() + b"\0" + output.payload
    packing = _PLAIN
    if len(body) >= _DEFLATE_FROM:
        packer = zlib.compressobj(
            _DEFLATE_LEVEL, zlib.DEFLATED, -12, 5, zlib.Z_DEFAULT_STRATEGY, dictionary
        )
        packed = packer.compress(body) + packer.flush()
        if len(packed) < len(body):
            body, packing = packed, _DEFLATE
    return _OFFSET.pack(offset) + _entry(b"x" + _OFFSET.pack(offset), bytes((packing,)) + body)


def output_offset(member: bytes) -> int:
    """Return the offset an encoded output belongs to."""
    return int.from_bytes(member[: _OFFSET.size], "big")


def decode_output(member: bytes, dictionary: bytes) -> tuple[int, StoredOutput]:
    """Decode one stored output. Raises ValueError, struct.error or zlib.error when damaged."""
    (offset,) = _OFFSET.unpack_from(member)
    body = _body(b"x" + member[: _OFFSET.size], member[_OFFSET.size :])
    packing, body = body[0], body[1:]
    _require(packing in (_PLAIN, _DEFLATE), f"packing {packing}")
    if packing == _DEFLATE:
        body = zlib.decompressobj(-12, zdict=dictionary).decompress(body)
    outcome, _, payload = body.partition(b"\0")
    return offset, StoredOutput(outcome.decode(), payload)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _entry(role: bytes, body: bytes) -> bytes:
    return _ENTRY.pack(VERSION, zlib.crc32(body, zlib.crc32(role))) + body


def _body(role: bytes, value: bytes) -> bytes:
    """Return an entry's body. Raises ValueError or struct.error."""
    version, crc = _ENTRY.unpack_from(value)
    _require(version == VERSION, f"format version {version}, this build reads {VERSION}")
    body = value[_ENTRY.size :]
    _require(zlib.crc32(body, zlib.crc32(role)) == crc, f"checksum of entry {role[:1]!r} differs")
    return body


def _arrays_of(value: bytes, nbytes: int) -> Bytes:
    _require(len(value) == nbytes, f"arrays of {len(value)} bytes instead of {nbytes}")
    return np.frombuffer(bytearray(value), np.uint8)
