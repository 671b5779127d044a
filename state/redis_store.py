"""Conversations in Redis >= 7, written by one Redis Function per state and batch.

Keys of one state, under one hash tag (a 120-bit hash of conversation id, topic id and partition),
so that a cluster keeps them in one slot; the bytes are those of `state.codec`:

    et:{<20 characters>}:r   list    rows, exactly the last W of the session
    et:{<20 characters>}:h   hash    fence token, position, spec digest, record, arrays, speakers
    et:{<20 characters>}:i   list    last utterances since the last idle gap: hashes of ids, fields
    et:{<20 characters>}:o   zset    outputs by offset, from the committed offset on
    et:on:{<20 characters>}     set     partitions a conversation of a topic was noted on
    et:split:{<20 characters>}  stream  conversations of a partition that are on others too
    et:fence:{<20 characters>}  string  fence token last claimed for a partition of a topic; no TTL
    et:epoch:{<n>}              string  lost with the data or before it
                                        (`state.redis_link.Identity`); TTL idle_s

A state that another model replaced is set aside under a tag that its digest enters: the first three
keys once more. Every write sets a TTL of 2 x idle_s on all others. A fence token must outlive every
state that was written with it, however the server's clock jumps. Writing is one pipeline of FCALLs,
reading one pipeline of four plain commands a key: a window is never returned from Lua (3-7x
slower).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any, Final, TypeVar

import redis
from msgspec.structs import replace
from redis.exceptions import RedisClusterException

from state.codec import (
    DIGEST,
    OFFSET,
    TOKEN,
    Append,
    Codec,
    Entries,
    aside_key,
    key_name,
    key_tag,
    noted_tag,
    partition_tag,
    stored_int,
)
from state.redis_address import read_address
from state.redis_faults import Fault, fault_of, hangs_up
from state.redis_link import (
    ANYONE,
    Client,
    Identity,
    RedisAccess,
    Server,
    close_client,
    info_of,
    last_words,
    open_client,
    read_epochs,
    read_identity,
    reconnected,
    require_library,
    require_primary,
    servers_of,
)
from state.store import (
    NOTED_BEFORE_S,
    SPLITS_AT_MOST,
    Loaded,
    Noted,
    Restore,
    Save,
    Saved,
    SaveResult,
    Splits,
    StoreChanged,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from state.window import NO_OFFSET, Conversation, StateKey, StateSpec, life_ms

LIBRARY: Final = "emotrack_v4"  # a changed function gets a new name: workers of both run at once
SAVE: Final = "emotrack_v4_save"
CLAIM: Final = "emotrack_v4_claim"
NOTE: Final = "emotrack_v4_note"
MIN_REDIS: Final = (7, 0)

_SCALARS: Final = struct.Struct(">dddddIIIIIB")
_CLEAR_STATE, _CLEAR_IDS, _REPLACE, _RESTORE = 1, 2, 4, 8
_ALL: Final = 2**32 - 1  # no limit to rows or ids: the largest number that is sent
_RESULTS: Final = (SaveResult.SAVED, SaveResult.REPLAY, SaveResult.FENCED, SaveResult.LOST)
PROBES: Final = 64  # keys that show whether a server has all slots

T = TypeVar("T")


def library_source() -> str:
    """Return the source of the Redis Function library."""
    return (files("state") / "functions" / "emotrack.lua").read_text(encoding="utf-8")


def state_keys(key: StateKey) -> tuple[str, str, str, str]:
    """Return the Redis keys of a state: rows, hash, ids, outputs."""
    stem = f"et:{{{key_tag(key)}}}:"
    return stem + "r", stem + "h", stem + "i", stem + "o"


def fence_key(topic_id: str, partition: int) -> str:
    """Return the Redis key of a partition's fence token."""
    return f"et:fence:{{{partition_tag(topic_id, partition)}}}"


def noted_key(key: StateKey) -> str:
    """Return the Redis key of the partitions that a conversation was noted on."""
    return f"et:on:{{{noted_tag(key)}}}"


def splits_key(topic_id: str, partition: int) -> str:
    """Return the Redis key of a partition's conversations that are on others too."""
    return f"et:split:{{{partition_tag(topic_id, partition)}}}"


class RedisStore:
    """A `Store` in Redis. Connects on first use; a call blocks at most 3 x `timeout_s`.

    Raises `StoreRefused` for a malformed address.
    """

    def __init__(
        self,
        spec: StateSpec,
        url: str,
        *,
        cluster: bool = False,
        timeout_s: float = 2.0,
        access: RedisAccess = ANYONE,
        dictionary: bytes = b"",
    ) -> None:
        self._codec = Codec(spec, dictionary)
        self._idle_s = spec.recurrence.idle_s
        self._ttl_ms = int(2 * self._idle_s * 1000)
        self._url, self._cluster, self._timeout_s, self._access = url, cluster, timeout_s, access
        self._client: Client | None = None
        self._identified: Identity | None = None
        self._served = False  # identified once: what fails from then on may pass
        self._new_connection = False  # another server than before may answer on a new one
        try:
            address = read_address(url)
        except ValueError as error:
            raise StoreRefused(f"the Redis address {error}") from None
        self._here = f"Redis at {address.shown}{' (cluster)' if cluster else ''}"
        self._tls = address.tls

    @property
    def _redis(self) -> Client:
        """The client, connected on first use."""
        if self._client is None:
            try:
                self._client = open_client(
                    self._url,
                    cluster=self._cluster,
                    timeout_s=self._timeout_s,
                    access=self._access,
                    connected=partial(setattr, self, "_new_connection", True),
                )
            except ValueError as error:
                raise StoreRefused(f"the Redis address {error}") from error
        return self._client

    def identify(self) -> str:
        self._identified = None
        self._identified = self._call(lambda: read_identity(self._redis, self._idle_s))
        self._served = True
        return self._identified.digest

    def verify(self) -> None:
        identity = self._call(lambda: read_identity(self._redis, self._idle_s), verified=True)
        self._new_connection = False
        if self._identified not in (None, identity):
            raise StoreChanged(
                f"{self._here} is not what it was: restarted, emptied, failed over, evicting or "
                "set to another time; acknowledged state may be gone"
            )

    def check(self) -> None:
        """Refuse a Redis that is too old or may evict; load our function where it is missing."""
        for server in self.servers():
            if as_version(server.redis_version) < MIN_REDIS:
                raise StoreRefused(
                    f"{self._here} is {server}; emotrack needs Redis >= 7 or Valkey (it runs a "
                    "Redis Function): upgrade the server, or point at another one"
                )
            if server.policy != "noeviction":
                raise StoreRefused(
                    f"{self._here} may evict state (maxmemory-policy {server.policy}): run "
                    "`redis-cli CONFIG SET maxmemory-policy noeviction` and set it in its "
                    "configuration file"
                )
            self._call(partial(require_primary, server.primary))
            if server.in_cluster and not self._cluster:
                self._call(self._find_slots)
        self._call(lambda: require_library(self._redis, LIBRARY, library_source()))
        self._call(self._try_rights)

    def servers(self) -> list[Server]:
        """Return name, version and role of the server, or of each primary of a cluster."""
        return self._call(lambda: servers_of(self._redis))

    def _find_slots(self) -> None:
        """Read keys of many slots: of a cluster of several nodes, some are on another one."""
        for number in range(PROBES):
            self._redis.get(noted_key(StateKey(f"check-{number}", "check", -1)))

    def _try_rights(self) -> None:
        """Run every command of an answer on keys of no conversation: an ACL may forbid one."""
        unused = StateKey("", "check", -1)
        self._pipeline([(CLAIM, 1, fence_key("check", -1), 0)])
        self._read([unused], atomic=True)
        self._note([unused, StateKey("", "check", -2)])
        self._splits("check", {-1: ""})
        splits = (splits_key("check", -1), splits_key("check", -2))
        for key in (fence_key("check", -1), noted_key(unused), *splits):  # slots of a cluster
            self._redis.delete(key)

    def claim(self, topic_id: str, partition: int, at_least: int = 0) -> int:
        arguments = (CLAIM, 1, fence_key(topic_id, partition), at_least)
        return int(self._call(lambda: self._pipeline([arguments]))[0])

    def load_many(self, keys: Sequence[StateKey]) -> list[Loaded]:
        answers = self._call(lambda: self._read(keys, atomic=False)) if keys else []
        states = [self._decode(key, four) for key, four in zip(keys, answers, strict=True)]
        missing = any(state.conversation is None and not state.foreign for state in states)
        if missing and self._identified is not None:
            epochs = self._call(lambda: read_epochs(self._redis))
            if epochs != self._identified.epochs:
                self.verify()
                raise StoreChanged(f"{self._here} was emptied, or keys of open sessions expired")
        return states

    def note_many(self, keys: Sequence[StateKey]) -> list[Noted]:
        return self._call(lambda: self._note(keys)) if keys else []

    def _note(self, keys: Sequence[StateKey]) -> list[Noted]:
        """Note in one round trip, and in another tell the other partitions where there are some."""
        life, age = self._ttl_ms, note_age_ms(self._ttl_ms)
        calls = [(NOTE, 1, noted_key(key), key.partition, life, age) for key in keys]
        noted = [
            Noted(frozenset(map(int, partitions)), bool(new), bool(old) and not new)
            for new, old, partitions in self._pipeline(calls)
        ]
        pipeline, told = self._redis.pipeline(transaction=False), False
        for key, found in zip(keys, noted, strict=True):
            for other in sorted(found.partitions - {key.partition}):
                name, told = splits_key(key.topic_id, other), True
                entry: dict[Any, Any] = {"c": key.conversation_id}
                pipeline.xadd(name, entry, maxlen=SPLITS_AT_MOST, approximate=False)
                pipeline.pexpire(name, self._ttl_ms)
        if told:
            _readable(pipeline.execute(raise_on_error=False), None)
        return noted

    def splits(self, topic_id: str, marks: Mapping[int, str]) -> dict[int, Splits]:
        return self._call(lambda: self._splits(topic_id, marks)) if marks else {}

    def _splits(self, topic_id: str, marks: Mapping[int, str]) -> dict[int, Splits]:
        pipeline = self._redis.pipeline(transaction=False)
        for partition, mark in marks.items():
            pipeline.xrange(splits_key(topic_id, partition), min=f"({mark}" if mark else "-")
        found: dict[int, Splits] = {}
        answers = _readable(pipeline.execute(raise_on_error=False), ())
        for (partition, mark), entries in zip(marks.items(), answers, strict=True):
            names = tuple(fields[b"c"].decode() for _, fields in entries)
            found[partition] = Splits(names, entries[-1][0].decode() if entries else mark)
        return found

    def save_many(self, saves: Sequence[Save]) -> list[Saved]:
        return self.send([self.encoded(save) for save in saves])

    def restore_many(self, restores: Sequence[Restore]) -> list[Saved]:
        return self.send([self._command(self._codec.encode_restore(r)) for r in restores])

    def set_aside(self, keys: Sequence[StateKey], token: int) -> None:
        if keys:
            self._call(lambda: self._set_aside(keys, token))

    def _set_aside(self, keys: Sequence[StateKey], token: int) -> None:
        """Copy by the function that restores, which needs no right of its own."""
        own, held = self._codec.digest, self._read_stable(keys)
        copies = [
            (aside_key(key, digest), entries)
            for key, entries in zip(keys, held, strict=True)
            if (digest := entries.fields.get(DIGEST)) is not None and digest != own
        ]
        pipeline = self._redis.pipeline(transaction=False)
        for key, _ in copies:
            pipeline.hmget(state_keys(key)[1], [OFFSET])
        before = _readable(pipeline.execute(raise_on_error=False), (None,))
        calls = [
            self._copy(key, token, stored_int(at), entries)
            for (key, entries), (at,) in zip(copies, before, strict=True)
        ]
        self._pipeline(calls)  # FENCED or LOST: another owner writes it, and this is only a help

    def _read_stable(self, keys: Sequence[StateKey]) -> list[Entries]:
        """Return states of any digest, without outputs; empty where one was just written."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            rows, hash_, ids, _ = state_keys(key)
            pipeline.hmget(hash_, [TOKEN, OFFSET, DIGEST])
            pipeline.lrange(rows, 0, -1)
            pipeline.lrange(ids, 0, -1)
            pipeline.hgetall(hash_)
        answers = _readable(pipeline.execute(raise_on_error=False), ())
        found: list[Entries] = []
        for began, rows, ids, told in zip(*(answers[i::4] for i in range(4)), strict=True):
            fields = _hash_of(told)
            ended = [fields.get(name) for name in (TOKEN, OFFSET, DIGEST)] if fields else []
            found.append(Entries(rows, fields, ids) if list(began) == ended else Entries())
        return found

    def _copy(
        self, key: StateKey, token: int, expected: int | None, entries: Entries
    ) -> tuple[Any, ...]:
        """Return the FCALL that writes a state as it is, rows and ids in their own number."""
        fixed = (TOKEN, OFFSET, DIGEST)
        own = {name: value for name, value in entries.fields.items() if name not in fixed}
        return _save_call(
            key,
            (entries.fields[DIGEST], b"", b"".join(entries.ids)),
            entries.rows,
            own,
            token=token,
            expected=NO_OFFSET if expected is None else expected,
            offset=stored_int(entries.fields.get(OFFSET)) or 0,
            committed=0,
            life=self._ttl_ms,
            window=_ALL,
            horizon=_ALL,
            flags=_CLEAR_STATE | _CLEAR_IDS | _REPLACE | _RESTORE,
        )

    def load_aside(self, keys: Sequence[StateKey]) -> list[Conversation | None]:
        found = self.load_many([aside_key(key, self._codec.digest) for key in keys])
        return [loaded.conversation for loaded in found]

    def send(self, calls: Sequence[tuple[Any, ...]]) -> list[Saved]:
        """Apply `encoded` saves in one round trip."""
        answers = self._call(lambda: self._pipeline(calls)) if calls else []
        return [
            Saved(_RESULTS[result], int(token), int(offset)) for result, token, offset in answers
        ]

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            close_client(client)

    def usage(self) -> tuple[int, int]:
        """Return bytes received since the server's start, and in use without clients' buffers.

        Both count everything in the server, not our keys alone.
        """
        infos = self._call(lambda: info_of(self._redis))
        data = sum(int(i["used_memory"]) - int(i.get("mem_clients_normal", 0)) for i in infos)
        return sum(int(i["total_net_input_bytes"]) for i in infos), data

    def entries(self, key: StateKey) -> Entries:
        """Return the stored bytes of a key, empty where there are none."""
        return Entries(*self._call(lambda: self._read([key], atomic=True))[0])

    def _decode(self, key: StateKey, four: list[Any]) -> Loaded:
        loaded = self._decode_once(key, four)
        if loaded.corrupt is None:
            return loaded
        # Another worker may have written between the four reads: read again, atomically.
        return self._decode_once(key, self._call(lambda: self._read([key], atomic=True))[0])

    def _decode_once(self, key: StateKey, four: list[Any]) -> Loaded:
        wrong = [answer for answer in four if isinstance(answer, redis.ResponseError)]
        if not wrong:
            return self._codec.decode(key, Entries(*four))
        readable = [[] if isinstance(a, redis.ResponseError) else a for a in four]
        readable[1] = readable[1] or {}
        loaded = self._codec.decode(key, Entries(*readable))
        reason = f"{key_name(key)}: one of its keys {state_keys(key)} holds another type"
        return replace(loaded, conversation=None, foreign=True, corrupt=reason)

    def _read(self, keys: Sequence[StateKey], *, atomic: bool) -> list[list[Any]]:
        """Return the four answers of each key; for one of another type, the error."""
        pipeline = self._redis.pipeline(transaction=atomic)
        for key in keys:
            rows, hash_, ids, outputs = state_keys(key)
            pipeline.lrange(rows, 0, -1)
            pipeline.hgetall(hash_)
            pipeline.lrange(ids, 0, -1)
            pipeline.zrange(outputs, 0, -1)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, redis.RedisError) and not str(answer).startswith("WRONGTYPE"):
                raise answer
        for i in range(1, len(answers), 4):
            answers[i] = _hash_of(answers[i])
        return [answers[i : i + 4] for i in range(0, len(answers), 4)]

    def encoded(self, save: Save) -> tuple[Any, ...]:
        """Return the FCALL of a save: its function, keys and arguments."""
        return self._command(self._codec.encode(save))

    def _command(self, append: Append) -> tuple[Any, ...]:
        save, r = append.save, self._codec.spec.recurrence
        flags = _CLEAR_STATE * append.clear_state | _CLEAR_IDS * append.clear_ids
        return _save_call(
            save.key,
            (append.digest, append.output, append.ids),
            append.rows,
            append.fields,
            append.forgotten,
            token=save.token,
            expected=save.expected_offset,
            offset=append.offset,
            committed=save.committed_offset,
            life=life_ms(append.clock_ms, int(time.time() * 1000), r),
            window=min(r.window, _ALL),
            horizon=min(r.duplicate_horizon, _ALL),
            flags=flags | _REPLACE * save.replace_foreign | _RESTORE * append.restore,
        )

    def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send FCALLs in one round trip; load the library and resend those that missed it."""
        answers = self._send(commands)
        missed = [
            i
            for i, answer in enumerate(answers)
            if isinstance(answer, redis.ResponseError) and "Function not found" in str(answer)
        ]
        if missed:
            require_library(self._redis, LIBRARY, library_source())
            again = self._send([commands[i] for i in missed])
            for i, answer in zip(missed, again, strict=True):
                answers[i] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.fcall(*command)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers

    def _call(self, action: Callable[[], T], *, verified: bool = False) -> T:
        """Run `action`, with errors of Redis turned into ours.

        An answer over a new connection is only returned when the store is still the one identified.
        """
        try:
            answer = action()
        except (redis.RedisError, RedisClusterException) as error:
            fault = self._fault(error)
            if isinstance(fault, StoreUnavailable) and self._client is not None:
                # another server may be the right one now
                self._client = reconnected(self._client, self._url)
            raise fault from error
        if self._new_connection and self._identified is not None and not verified:
            self.verify()
        return answer

    def _fault(self, error: Fault) -> StoreError:
        if hangs_up(error) and not self._served and not self._cluster:
            error = last_words(self._url, self._timeout_s) or error
        return fault_of(error, self._here, running=self._served, tls=self._tls)


def note_age_ms(life_ms: int) -> int:
    """Return from which age on a note is one of before."""
    return min(int(NOTED_BEFORE_S * 1000), life_ms // 2)


def _save_call(
    key: StateKey,
    fixed: tuple[bytes, bytes, bytes],
    rows: Sequence[bytes],
    fields: Mapping[bytes, bytes],
    forgotten: Sequence[bytes] = (),
    *,
    token: int,
    expected: int,
    offset: int,
    committed: int,
    life: int,
    window: int,
    horizon: int,
    flags: int,
) -> tuple[Any, ...]:
    """Return the FCALL that writes a state; `fixed` are digest, output and known ids."""
    counts = len(rows), len(fields), len(forgotten)
    scalars = _SCALARS.pack(
        token, expected, offset, committed, life, window, horizon, *counts, flags
    )
    pairs = [part for pair in fields.items() for part in pair]
    return (SAVE, 4, *state_keys(key), scalars, *fixed, *rows, *pairs, *forgotten)


def _hash_of(answer: Any) -> Any:
    """Return the answer to HGETALL as a mapping: a cluster's pipeline returns it unparsed."""
    return dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else answer


def _readable(answers: Sequence[Any], otherwise: Any) -> list[Any]:
    """Return answers, `otherwise` for a key that another program uses. Raises other errors.

    What is read so is only a hint: a worker must not stand still over it.
    """
    readable = []
    for answer in answers:
        if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
            raise answer
        readable.append(otherwise if isinstance(answer, Exception) else answer)
    return readable


def as_version(text: str) -> tuple[int, ...]:
    """Return the major and minor number."""
    return tuple(int(n) for n in text.split(".")[:2] if n.isdigit())
