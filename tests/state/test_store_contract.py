"""One suite for both stores: what a store must answer, and that both keep the same bytes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from state.codec import OFFSET, Entries, aside_key
from state.memory_store import Memory, MemoryStore
from state.redis_store import RedisStore, state_keys
from state.store import (
    SPLITS_AT_MOST,
    Loaded,
    Noted,
    Restore,
    Save,
    Saved,
    SaveResult,
    Splits,
    StoreChanged,
    StoredOutput,
)
from state.window import (
    HASH_BYTES,
    NO_OFFSET,
    Change,
    Conversation,
    StateKey,
    StateSpec,
    apply_nothing,
    apply_reused,
)
from tests.servers import other_redis_servers

Make = Callable[..., StateSpec]
Say = Callable[..., Change]
Plain = Callable[[Conversation | None], Any]
DATABASE = 9


def test_what_tells_utterances_of_one_id_apart_survives_the_store(
    backend: Backend, make_spec: Make, say: Say, plain: Plain
) -> None:
    """Digests of fields, and the mark of a reused id: saved step by step, and restored whole."""
    spec, key = make_spec(duplicate_horizon=3), StateKey("c", "topic", 0)
    store = backend.open(spec)
    token, output = store.claim("topic", 0), StoredOutput("predicted", b"x")
    stored: Conversation | None = None
    for offset in range(5):
        change = say(spec, stored, offset, fields=b"fields %d" % offset)
        expected = NO_OFFSET if stored is None else stored.offset
        store.save_many([Save(key, token, expected, change, output, 0)])
        stored = change.after
    assert stored is not None
    change = apply_reused(stored, offset=9)
    dropped = StoredOutput("duplicate", b"")
    assert store.save_many([Save(key, token, 4, change, dropped, 0)])[0].result is SaveResult.SAVED
    loaded = store.load_many([key])[0]
    assert plain(loaded.conversation) == plain(change.after)
    assert loaded.outputs[9] == dropped
    assert loaded.conversation is not None and loaded.conversation.id_reused
    found = [loaded.conversation.fields_of(f"u{i}") for i in range(5)]
    assert found == [None, None, b"fields 2", b"fields 3", b"fields 4"]
    store.restore_many([Restore(key, token, 9, change.after)])
    assert plain(store.load_many([key])[0].conversation) == plain(change.after)
    assert not say(spec, change.after, 10).after.id_reused


def test_a_state_of_the_layout_before_is_foreign_and_never_corrupt(
    backend: Backend,
    make_spec: Make,
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers of two layouts share a Redis during an upgrade, forwards and back."""
    spec, key = make_spec(), StateKey("c", "topic", 0)
    output = StoredOutput("predicted", b"x" * 100)
    new = backend.open(spec)
    token = new.claim("topic", 0)
    first = say(spec, None, 0).after
    new.save_many([Save(key, token, NO_OFFSET, Change(first, row_appended=True), output, 0)])
    monkeypatch.setattr("state.window.LAYOUT", 1)
    old = backend.open(spec)
    monkeypatch.undo()
    found = old.load_many([key])[0]
    assert (found.foreign, found.corrupt, found.offset) == (True, None, 0)
    assert found.outputs == {0: output}, "replayed whichever version wrote it"
    assert new.load_many([key])[0].conversation is not None
    # As the version before left it: eight bytes of each id.
    restored = old.restore_many([Restore(key, token, 0, first)])
    assert restored[0].result is SaveResult.SAVED
    entries = new.entries(key)
    backend.write(key, replace(entries, ids=[known[:HASH_BYTES] for known in entries.ids]))
    found = new.load_many([key])[0]
    assert (found.foreign, found.corrupt, found.offset) == (True, None, 0)
    assert found.outputs == {0: output}


def on(*partitions: int, new: bool, before: bool = False) -> Noted:
    return Noted(frozenset(partitions), new, before)


class MemoryBackend:
    """Memory stores on one `Memory`, and the hand that moves their clock."""

    def __init__(self) -> None:
        self.memory, self.now = Memory(), 1_790_000_000.0

    def open(self, spec: StateSpec) -> MemoryStore:
        return MemoryStore(spec, now=lambda: self.now, memory=self.memory)

    def age(self, seconds: float) -> None:
        self.now += seconds

    def write(self, key: StateKey, entries: Entries) -> None:
        self.memory.states[key] = (self.now + 60, entries)

    def empty(self) -> None:
        self.memory.states.clear()
        self.memory.fences.clear()
        self.memory.identity = Memory().identity

    def close(self) -> None:
        self.empty()


class RedisBackend:
    """Redis stores on one database of the test server, emptied first."""

    cluster = False

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = self._connect()
        self.empty()
        self._opened: list[RedisStore] = []

    def _connect(self) -> Any:
        return redis.Redis.from_url(self.url)

    def open(self, spec: StateSpec) -> RedisStore:
        store = RedisStore(spec, self.url, cluster=self.cluster)
        store.check()
        self._opened.append(store)
        return store

    def age(self, seconds: float) -> None:
        """Shorten every key's life, as if `seconds` had passed."""
        for key in self._keys():
            left = self.client.pttl(key) - int(seconds * 1000)
            self.client.pexpire(key, left)  # a life of nothing deletes

    def _keys(self) -> list[bytes]:
        keys: list[bytes] = self.client.keys("*")
        return keys

    def write(self, key: StateKey, entries: Entries) -> None:
        rows, fields, ids, outputs = state_keys(key)
        self.client.delete(rows, fields, ids, outputs)
        for row in entries.rows:
            self.client.rpush(rows, row)
        for name, value in entries.fields.items():
            self.client.hset(fields, name, value)
        for known in entries.ids:
            self.client.rpush(ids, known)
        for output in entries.outputs:
            self.client.zadd(outputs, {output: int.from_bytes(output[:8], "big")})

    def empty(self) -> None:
        self.client.flushdb()

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self.client.close()


class ClusterBackend(RedisBackend):
    """Redis stores on a cluster of three."""

    cluster = True

    def _connect(self) -> Any:
        return redis.RedisCluster.from_url(self.url)

    def _keys(self) -> list[bytes]:
        keys: list[bytes] = self.client.keys("*", target_nodes=redis.RedisCluster.PRIMARIES)
        return keys

    def empty(self) -> None:
        self.client.flushdb(target_nodes=redis.RedisCluster.PRIMARIES)


Backend = MemoryBackend | RedisBackend
Opened = MemoryStore | RedisStore
BACKENDS = [
    "memory",
    *(
        pytest.param(name, marks=pytest.mark.integration)
        for name in ("redis", "cluster", *other_redis_servers())
    ),
]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Memory, Redis, a cluster, and each other server of Redis' protocol on this machine."""
    backend: Backend
    if request.param == "memory":
        backend = MemoryBackend()
    elif request.param == "cluster":
        backend = ClusterBackend(request.getfixturevalue("cluster_url"))
    else:
        if request.param == "redis":
            port = request.getfixturevalue("redis_server").port
        else:
            port = request.getfixturevalue("other_redis")(request.param).port
        backend = RedisBackend(f"redis://127.0.0.1:{port}/{DATABASE}")
    yield backend
    backend.close()


@dataclass
class Writer:
    """A conversation and the store it is written to, as a worker would."""

    store: MemoryStore | RedisStore
    spec: StateSpec
    say: Say
    key: StateKey
    token: int = 1
    current: Conversation | None = None
    committed: int = 0

    def save(self, change: Change, **changed: Any) -> Save:
        at = change.after.offset
        save = Save(
            key=self.key,
            token=self.token,
            expected_offset=NO_OFFSET if self.current is None else self.current.offset,
            change=change,
            output=StoredOutput("predicted", f"output {at} ".encode() * 9),
            committed_offset=self.committed,
        )
        return structs.replace(save, **changed)

    def speak(self, offset: int, **more: Any) -> Save:
        """Say one utterance, see it saved, and go on from there."""
        change = self.say(self.spec, self.current, offset, **more)
        save = self.save(change)
        (saved,) = self.store.save_many([save])
        assert saved == Saved(SaveResult.SAVED, self.token, offset)
        self.current = change.after
        return save

    def load(self) -> Loaded:
        (loaded,) = self.store.load_many([self.key])
        return loaded


@pytest.fixture
def write(backend: Backend, make_spec: Make, say: Say) -> Callable[..., Writer]:
    """Start writing a conversation of its own; settings of the recurrence as arguments."""

    def start(name: str | None = None, **recurrence: Any) -> Writer:
        spec = make_spec(**recurrence)
        key = StateKey(name or uuid.uuid4().hex, "topic", 0)
        return Writer(backend.open(spec), spec, say, key)

    return start


Write = Callable[..., Writer]


def test_a_key_never_written_holds_nothing(write: Write) -> None:
    assert write().load() == Loaded(None, NO_OFFSET, {})


def test_no_keys_and_no_saves_need_no_answer(write: Write) -> None:
    store = write().store
    assert store.load_many([]) == []
    assert store.save_many([]) == []


def test_a_saved_state_is_loaded_at_every_step(write: Write, plain: Plain) -> None:
    w = write(window=3, max_speakers=2, duplicate_horizon=4)
    for offset in range(12):
        w.speak(offset, speaker_id=f"s{offset * 2 % 5}", seq=offset, alert=b"%d" % offset)
        loaded = w.load()
        assert plain(loaded.conversation) == plain(w.current)
        assert (loaded.offset, loaded.foreign, loaded.corrupt) == (offset, False, None)
        assert len(w.store.entries(w.key).rows) == min(offset + 1, 3)
        assert len(w.store.entries(w.key).ids) == min(offset + 1, 4)


def test_the_33rd_speaker_leaves_no_trace_of_the_first(write: Write, plain: Plain) -> None:
    w = write()
    for offset in range(33):
        w.speak(offset, speaker_id=f"s{offset}")
    fields = w.store.entries(w.key).fields
    assert sum(name.startswith(b"s") for name in fields) == 32
    assert b"ss0" not in fields
    assert plain(w.load().conversation) == plain(w.current)


def test_a_position_already_applied_is_answered_replay_and_changes_nothing(write: Write) -> None:
    w = write()
    saves = [w.speak(offset) for offset in (3, 5)]
    entries = w.store.entries(w.key)
    noted = (list(entries.rows), dict(entries.fields), list(entries.ids), list(entries.outputs))
    for save in saves:
        assert w.store.save_many([save]) == [Saved(SaveResult.REPLAY, 1, 5)]
    entries = w.store.entries(w.key)
    assert (entries.rows, entries.fields, entries.ids, entries.outputs) == noted


def test_an_older_token_is_fenced_even_where_it_would_replay(write: Write, plain: Plain) -> None:
    w = write()
    w.token = 7
    old = w.speak(0)
    following = w.save(w.say(w.spec, w.current, 1), token=6)
    replayed = structs.replace(old, token=6)
    assert w.store.save_many([following, replayed]) == [Saved(SaveResult.FENCED, 7, 0)] * 2
    assert plain(w.load().conversation) == plain(w.current)


def test_a_newer_token_takes_over_and_fences_the_one_before(write: Write) -> None:
    w = write()
    w.speak(0)
    zombie = w.save(w.say(w.spec, w.current, 2))
    w.token = 2
    w.speak(1)
    assert w.store.save_many([zombie]) == [Saved(SaveResult.FENCED, 2, 1)]


def test_a_save_on_a_state_that_is_not_stored_is_lost_and_writes_nothing(
    write: Write, backend: Backend, plain: Plain
) -> None:
    w = write()
    w.speak(4)
    ahead = w.say(w.spec, w.current, 5).after
    for expected in (3, 5, NO_OFFSET):
        save = w.save(w.say(w.spec, ahead, 9), expected_offset=expected)
        assert w.store.save_many([save]) == [Saved(SaveResult.LOST, 1, 4)]
    assert plain(w.load().conversation) == plain(w.current)
    backend.empty()
    save = w.save(w.say(w.spec, w.current, 6))
    assert w.store.save_many([save]) == [Saved(SaveResult.LOST, 0, NO_OFFSET)]
    assert w.load() == Loaded(None, NO_OFFSET, {})


def test_saves_of_a_batch_are_applied_each_on_its_own_and_in_order(write: Write) -> None:
    w, other = write(), write()
    first = w.say(w.spec, None, 0)
    second = w.say(w.spec, first.after, 1)
    lost = other.save(other.say(other.spec, first.after, 1), expected_offset=0)
    saves = [w.save(first), lost, w.save(second, expected_offset=0)]
    results = [saved.result for saved in w.store.save_many(saves)]
    assert results == [SaveResult.SAVED, SaveResult.LOST, SaveResult.SAVED]
    assert w.load().offset == 1


def test_a_store_that_lost_nothing_keeps_its_identity(write: Write, backend: Backend) -> None:
    w = write()
    known = w.store.identify()
    w.speak(0)
    w.store.verify()
    assert backend.open(w.spec).identify() == w.store.identify() == known


def test_an_emptied_store_calls_nothing_missing_and_says_that_it_changed(
    write: Write, backend: Backend
) -> None:
    w = write()
    known = w.store.identify()
    w.speak(0)
    backend.empty()
    with pytest.raises(StoreChanged):
        w.load()
    with pytest.raises(StoreChanged):
        w.store.verify()
    assert w.store.identify() != known
    w.store.verify()
    assert w.load() == Loaded(None, NO_OFFSET, {})


def test_a_restored_state_takes_the_place_of_an_older_one(write: Write, plain: Plain) -> None:
    w = write(window=3)
    w.speak(0)
    older = w.current
    assert older is not None
    ahead = w.say(w.spec, w.say(w.spec, older, 1, speaker_id="bob").after, 4).after
    restore = Restore(w.key, 1, 0, ahead)
    assert w.store.restore_many([restore]) == [Saved(SaveResult.SAVED, 1, 4)]
    assert plain(w.load().conversation) == plain(ahead)
    w.current = ahead
    w.speak(6)
    assert plain(w.load().conversation) == plain(w.current)


def test_a_restored_state_has_no_output_of_its_own_and_keeps_those_below(write: Write) -> None:
    w = write()
    w.speak(0)
    w.speak(1)
    assert w.current is not None
    sent = dict(w.load().outputs)
    w.store.restore_many([Restore(w.key, 1, 1, w.current)])
    assert dict(w.load().outputs) == sent
    assert w.load().corrupt is None
    gone = structs.replace(w.current, offset=0)
    w.store.restore_many([Restore(w.key, 1, 1, gone)])
    assert set(w.load().outputs) == {0}, "what is above is not applied any more"


def test_a_state_of_another_model_is_restored_at_its_own_position(
    write: Write, backend: Backend, make_spec: Make, say: Say, plain: Plain
) -> None:
    w = write()
    w.speak(3)
    other = make_spec(model="another")
    restored = say(other, None, 3).after
    store = backend.open(other)
    (loaded,) = store.load_many([w.key])
    assert loaded.foreign
    assert store.restore_many([Restore(w.key, 1, 3, restored)]) == [Saved(SaveResult.SAVED, 1, 3)]
    (loaded,) = store.load_many([w.key])
    assert plain(loaded.conversation) == plain(restored)
    assert set(loaded.outputs) == {3}, "replayed whichever model wrote it"


def test_a_restore_is_refused_where_another_worker_has_written(write: Write) -> None:
    w = write()
    w.speak(0)
    w.token = 2
    w.speak(1)
    assert w.current is not None
    late, ahead = Restore(w.key, 1, 1, w.current), Restore(w.key, 2, 0, w.current)
    assert w.store.restore_many([late, ahead]) == [
        Saved(SaveResult.FENCED, 2, 1),
        Saved(SaveResult.LOST, 2, 1),
    ]


def test_outputs_stay_until_their_offset_is_committed(write: Write) -> None:
    w = write(window=1)
    sent = {}
    for offset in range(0, 20, 2):
        w.committed = max(0, offset - 6)
        sent[offset] = w.speak(offset).output
        remaining = {o: output for o, output in sent.items() if o >= w.committed}
        assert w.load().outputs == remaining


def test_equal_outputs_of_two_positions_are_both_stored(write: Write) -> None:
    w = write()
    output = StoredOutput("dead_lettered", b"")
    for offset in (0, 1):
        change = w.say(w.spec, w.current, offset)
        w.store.save_many([w.save(change, output=output)])
        w.current = change.after
    assert w.load().outputs == {0: output, 1: output}


@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000, 100_000])
def test_an_output_comes_back_byte_for_byte(write: Write, size: int) -> None:
    w = write()
    output = StoredOutput("abstained", bytes(i * i % 251 for i in range(size)))
    w.store.save_many([w.save(w.say(w.spec, None, 0), output=output)])
    assert w.load().outputs == {0: output}


def test_a_session_end_clears_rows_and_speakers_but_neither_outputs_nor_ids(
    write: Write, plain: Plain
) -> None:
    w = write()
    for offset, name in enumerate(["ada", "bob", "cy"]):
        w.speak(offset, speaker_id=name, end_of_conversation=name == "cy")
    w.speak(3, speaker_id="dan")
    entries = w.store.entries(w.key)
    assert len(entries.rows) == 1
    assert [f for f in entries.fields if f.startswith(b"s")] == [b"sdan"]
    assert len(entries.ids) == 4
    loaded = w.load()
    assert sorted(loaded.outputs) == [0, 1, 2, 3]
    assert plain(loaded.conversation) == plain(w.current)
    assert loaded.conversation is not None
    assert loaded.conversation.fields_of("u0") is not None


def test_an_idle_gap_clears_the_ids_too_but_not_the_outputs(write: Write, plain: Plain) -> None:
    w = write(idle_s=10)
    w.speak(0, timestamp_ms=0)
    w.speak(1, timestamp_ms=10_001)
    assert len(w.store.entries(w.key).ids) == 1
    loaded = w.load()
    assert sorted(loaded.outputs) == [0, 1]
    assert plain(loaded.conversation) == plain(w.current)


def test_a_horizon_of_none_keeps_no_ids(write: Write, plain: Plain) -> None:
    w = write(duplicate_horizon=0)
    w.speak(0)
    w.speak(1)
    assert w.store.entries(w.key).ids == []
    assert plain(w.load().conversation) == plain(w.current)


def test_a_late_dead_letter_is_stored_as_an_output_and_moves_only_the_position(
    write: Write, plain: Plain
) -> None:
    w = write()
    for offset in (0, 2):  # on a conversation never seen, then on one that was
        change = apply_nothing(w.current, spec=w.spec, offset=offset)
        output = StoredOutput("dead_lettered", b"why")
        (saved,) = w.store.save_many([w.save(change, output=output)])
        assert saved.result is SaveResult.SAVED
        w.current = change.after
        loaded = w.load()
        assert plain(loaded.conversation) == plain(w.current)
        assert loaded.outputs[offset] == output
        w.speak(offset + 1)
        assert plain(w.load().conversation) == plain(w.current)


def test_a_state_of_another_digest_is_never_read_but_replayed_and_replaced_whole(
    write: Write, backend: Backend, plain: Plain, make_spec: Make
) -> None:
    old = write()
    for offset in range(3):
        old.speak(offset, speaker_id=f"s{offset}")
    spec = make_spec(model="m2")
    new = Writer(backend.open(spec), spec, old.say, old.key)
    loaded = new.load()
    assert (loaded.conversation, loaded.foreign, loaded.offset) == (None, True, 2)
    assert sorted(loaded.outputs) == [0, 1, 2]
    change = new.say(spec, None, 3, truncated=True)
    refused = new.save(change, expected_offset=2)
    assert new.store.save_many([refused]) == [Saved(SaveResult.LOST, 1, 2)]
    assert plain(old.load().conversation) == plain(old.current)
    replaced = structs.replace(refused, replace_foreign=True)
    assert new.store.save_many([replaced]) == [Saved(SaveResult.SAVED, 1, 3)]
    assert plain(new.load().conversation) == plain(change.after)
    assert sorted(new.load().outputs) == [0, 1, 2, 3]
    assert old.load().foreign
    assert new.store.save_many([replaced]) == [Saved(SaveResult.REPLAY, 1, 3)]


def test_a_replacement_writes_the_window_whole(write: Write, plain: Plain) -> None:
    """A state rebuilt from the log has many rows, speakers and ids: all of them are written."""
    w = write(window=4)
    w.speak(0)
    rebuilt: Conversation | None = None
    for offset in range(1, 8):
        change = w.say(w.spec, rebuilt, offset, speaker_id=f"s{offset % 3}")
        rebuilt = change.after
    save = w.save(change, replace_foreign=True)
    assert w.store.save_many([save]) == [Saved(SaveResult.SAVED, 1, 7)]
    assert plain(w.load().conversation) == plain(rebuilt)


def flipped(value: bytes, at: int) -> bytes:
    return value[:at] + bytes((value[at] ^ 0x10,)) + value[at + 1 :]


def places(entries: Entries) -> Iterator[Entries]:
    """The same entries with one byte of one value changed, one dropped, or one cut short."""
    for name, value in entries.fields.items():
        if name != b"t":
            for at in {0, 4, 5, len(value) // 2, len(value) - 1}:
                if at < len(value):
                    changed = entries.fields | {name: flipped(value, at)}
                    yield replace(entries, fields=changed)
            yield replace(entries, fields=entries.fields | {name: value[:-1]})
            yield replace(entries, fields={n: v for n, v in entries.fields.items() if n != name})
    for i, row in enumerate(entries.rows):
        others = entries.rows[:i], entries.rows[i + 1 :]
        yield replace(entries, rows=[*others[0], flipped(row, len(row) - 1), *others[1]])
        yield replace(entries, rows=[*others[0], row[:3], *others[1]])
        yield replace(entries, rows=[*others[0], *others[1]])
    yield replace(entries, rows=entries.rows[::-1])
    yield replace(entries, ids=[flipped(entries.ids[0], 3), *entries.ids[1:]])
    yield replace(entries, ids=entries.ids[1:])


def test_damage_anywhere_is_seen_named_and_cured_by_a_replacement(
    write: Write, backend: Backend, plain: Plain
) -> None:
    w, healthy = write("caf\u00e9 {1}", window=3), write(window=3)
    for offset, name in enumerate(["ada", "bob", "ada", "cy"]):
        w.speak(offset, speaker_id=name)
    healthy.speak(0)
    whole = w.store.entries(w.key)
    whole = Entries(list(whole.rows), dict(whole.fields), list(whole.ids), list(whole.outputs))
    seen = 0
    for damaged in places(whole):
        backend.write(w.key, Entries(*map(type_of, parts(damaged))))
        loaded, other = w.store.load_many([w.key, healthy.key])
        assert loaded.conversation is None, damaged
        assert loaded.foreign
        if damaged.fields.get(b"d") == whole.fields[b"d"] or loaded.offset == NO_OFFSET:
            assert loaded.corrupt is not None
            assert "caf\u00e9 {1}" in loaded.corrupt
        assert plain(other.conversation) == plain(healthy.current)
        at = max(loaded.offset, 4) + 1
        change = w.say(w.spec, None, at, truncated=True)
        save = w.save(change, expected_offset=loaded.offset, replace_foreign=True)
        assert w.store.save_many([save]) == [Saved(SaveResult.SAVED, 1, at)]
        assert plain(w.load().conversation) == plain(change.after)
        seen += 1
    assert seen > 40


def parts(entries: Entries) -> tuple[Any, ...]:
    return entries.rows, entries.fields, entries.ids, entries.outputs


def type_of(part: Any) -> Any:
    return part.copy()


def test_a_damaged_output_leaves_the_conversation_and_the_other_outputs(
    write: Write, backend: Backend, plain: Plain
) -> None:
    w = write()
    saves = [w.speak(offset) for offset in range(3)]
    entries = w.store.entries(w.key)
    outputs = [entries.outputs[0], flipped(entries.outputs[1], 12), entries.outputs[2]]
    backend.write(w.key, replace(entries, outputs=outputs))
    loaded = w.load()
    assert plain(loaded.conversation) == plain(w.current)
    assert loaded.outputs == {0: saves[0].output, 2: saves[2].output}
    assert loaded.corrupt is not None
    assert w.key.conversation_id in loaded.corrupt


def test_an_unreadable_position_counts_as_missing_for_readers_and_writers_alike(
    write: Write, backend: Backend
) -> None:
    w = write()
    w.speak(0)
    entries = w.store.entries(w.key)
    for text in (b"", b"1.5", b"0x10", b"1e3", b"-", b"99999999999999999", b" 1"):
        backend.write(w.key, replace(entries, fields=entries.fields | {OFFSET: text}))
        assert w.load().offset == NO_OFFSET
        onward = w.save(w.say(w.spec, w.current, 9))
        (saved,) = w.store.save_many([onward])
        assert (saved.result, saved.offset) == (SaveResult.LOST, NO_OFFSET)


def test_positions_done_again_after_damage_leave_no_output_of_the_first_time(
    write: Write, backend: Backend, plain: Plain
) -> None:
    """One offset has one output: the one that belongs to what is stored now."""
    w = write()
    saves = [w.speak(offset) for offset in range(5)]
    entries = w.store.entries(w.key)
    backend.write(w.key, replace(entries, fields=entries.fields | {OFFSET: b"?"}))
    change = w.say(w.spec, None, 2, utterance_id="again", truncated=True)
    again = w.save(change, expected_offset=NO_OFFSET, output=StoredOutput("predicted", b"again"))
    assert w.store.save_many([again]) == [Saved(SaveResult.SAVED, 1, 2)]
    loaded = w.load()
    assert plain(loaded.conversation) == plain(change.after)
    assert loaded.outputs == {0: saves[0].output, 1: saves[1].output, 2: again.output}


def test_a_state_is_gone_twice_idle_after_its_last_utterance_and_not_before(
    write: Write, backend: Backend, plain: Plain
) -> None:
    w = write(idle_s=100)
    w.speak(0)
    backend.age(150)
    w.speak(1)
    backend.age(195)
    assert plain(w.load().conversation) == plain(w.current)
    backend.age(10)
    assert w.load() == Loaded(None, NO_OFFSET, {})


def test_tokens_only_grow_also_when_the_store_was_emptied(write: Write, backend: Backend) -> None:
    store = write().store
    claimed = [store.claim("t", 0) for _ in range(5)]
    assert claimed == sorted(set(claimed))
    assert claimed[0] > 1_700_000_000_000_000, "microseconds since the epoch"
    met = claimed[-1] + 10**9
    assert store.claim("t", 0, met + 1) == met + 1
    assert store.claim("t", 0, met) == met + 2
    assert store.claim("t", 1) < met, "partitions have tokens of their own"
    assert store.claim("t2", 0) < met
    before = store.claim("t", 5)
    backend.empty()
    backend.age(1)
    assert store.claim("t", 5) > before


AWKWARD = [
    "a",
    "{a}",
    "}{",
    "{}",
    "\u0645\u0631\u062d\u0628\u0627 \U0001f642",
    "x" * 256,
    "\u00e9" * 128,
    "\r\n\0*",
]


def test_ids_may_hold_anything_and_never_meet(write: Write, plain: Plain) -> None:
    writers = []
    for name in AWKWARD:
        w = write(name)
        w.speak(0, speaker_id=name, utterance_id=name)
        writers.append(w)
    for w in writers:
        loaded = w.load().conversation
        assert plain(loaded) == plain(w.current)
        assert loaded is not None
        assert loaded.window.row_speakers == (w.key.conversation_id,)


def test_a_state_belongs_to_one_partition_of_one_topic(write: Write) -> None:
    w = write("ab")
    w.speak(0)
    others = [("ab", "topic", 1), ("ab", "topic2", 0), ("a", "btopic", 0), ("abtopic", "", 0)]
    for loaded in w.store.load_many([StateKey(*other) for other in others]):
        assert loaded == Loaded(None, NO_OFFSET, {})


def size_of(entries: Entries) -> int:
    """Bytes of all but the outputs, which deflate to lengths of their own."""
    values = [*entries.rows, *entries.ids]
    return sum(map(len, values)) + sum(len(k) + len(v) for k, v in entries.fields.items())


def test_the_state_of_10_000_utterances_is_no_larger_than_that_of_1_000(write: Write) -> None:
    w = write()
    after_1_000 = 0
    for offset in range(100_000, 110_000):
        w.committed = offset - 20
        w.speak(offset, speaker_id=f"s{offset % 50:02d}")
        if offset == 101_000:
            after_1_000 = size_of(w.store.entries(w.key))
    entries = w.store.entries(w.key)
    assert size_of(entries) == after_1_000
    counts = (len(entries.rows), len(entries.ids), len(entries.outputs))
    assert counts == (10, 256, 21)
    assert sum(name.startswith(b"s") for name in entries.fields) == 32


MOVES = ["say", "end", "idle", "no_time", "late", "replay", "zombie", "lost", "commit", "model"]


@pytest.mark.integration
@given(moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 4)), max_size=30))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_memory_and_redis_answer_the_same_and_keep_the_same_bytes(
    redis_server: Any, make_spec: Make, say: Say, moves: list[tuple[str, int]]
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/{DATABASE}"
    specs = [
        make_spec(model=m, window=3, max_speakers=2, idle_s=60, duplicate_horizon=4)
        for m in ("m1", "m2")
    ]
    memory = Memory()
    pairs = [(MemoryStore(spec, memory=memory), RedisStore(spec, url)) for spec in specs]
    key = StateKey(uuid.uuid4().hex, "topic", 0)
    try:
        run_moves(moves, key, specs, pairs, say)
    finally:
        for _, opened in pairs:
            opened.close()


def run_moves(
    moves: list[tuple[str, int]],
    key: StateKey,
    specs: list[StateSpec],
    pairs: list[tuple[MemoryStore, RedisStore]],
    say: Say,
) -> None:
    """Do to both stores what workers might do, and compare after every move."""
    model, offset, now_ms, token, committed = 0, -1, 1_000, 5, 0
    before: Conversation | None = None
    for move, number in moves:
        memory, in_redis = pairs[model]
        if move == "model":
            model = 1 - model
            memory, in_redis = pairs[model]
        loaded = memory.load_many([key])[0]
        before, expected = loaded.conversation, loaded.offset
        offset = max(offset, expected) + 1 + number % 2
        now_ms += 61_000 if move == "idle" else 1
        committed = offset - number if move == "commit" else committed
        if move == "late":
            change = apply_nothing(before, spec=specs[model], offset=offset)
        else:
            change = say(
                specs[model],
                before,
                max(0, expected) if move == "replay" else offset,
                speaker_id=f"s{number}",
                timestamp_ms=-1 if move == "no_time" else now_ms,
                end_of_conversation=move == "end",
            )
        save = Save(
            key=key,
            token=token - 1 if move == "zombie" else token,
            expected_offset=expected + 7 if move == "lost" else expected,
            change=change,
            output=StoredOutput("predicted", b"payload %d " % offset * (1 + 8 * number)),
            committed_offset=committed,
            replace_foreign=loaded.foreign,
        )
        assert memory.save_many([save]) == in_redis.save_many([save])
        assert memory.entries(key) == in_redis.entries(key)


def test_a_conversation_is_noted_on_each_partition_it_is_met_on(
    backend: Backend, make_spec: Make
) -> None:
    """Producers that partition differently, or added partitions: marked, never merged."""
    spec = make_spec()
    store = backend.open(spec)
    here, there = StateKey("c{1}", "topic", 0), StateKey("c{1}", "topic", 3)
    other = StateKey("c{1}", "another topic", 5)
    assert store.note_many([here, other]) == [on(0, new=True), on(5, new=True)]
    assert store.note_many([here, there]) == [on(0, new=False), on(0, 3, new=True)]
    assert store.note_many([there]) == [on(0, 3, new=False)]
    assert store.note_many([]) == []
    backend.age(1.5 * spec.recurrence.idle_s)
    lives_on = on(0, 3, new=False, before=True)
    assert store.note_many([here]) == [lives_on], "it lives on"
    assert store.note_many([here]) == [on(0, 3, new=False)], "noted just now"
    backend.age(1.5 * spec.recurrence.idle_s)
    third = StateKey("c{1}", "topic", 4)
    assert store.note_many([there, third]) == [lives_on, on(0, 3, 4, new=True)], "with every note"
    backend.age(3 * spec.recurrence.idle_s)
    assert store.note_many([here]) == [on(0, new=True)], "the note has expired with the state"


def test_the_owner_of_the_first_partition_learns_of_a_split(
    backend: Backend, make_spec: Make
) -> None:
    first, second = backend.open(make_spec()), backend.open(make_spec())
    first.note_many([StateKey("c", "topic", 0), StateKey("d", "topic", 0)])
    assert first.splits("topic", {0: ""}) == {0: Splits((), "")}
    marks = {0: first.splits("topic", {0: ""})[0].mark}
    second.note_many([StateKey("c", "topic", 1), StateKey("e", "topic", 1)])
    found = first.splits("topic", marks | {1: ""})
    assert found[0].conversation_ids == ("c",)
    assert found[1].conversation_ids == (), "it noted them itself: the note said so"
    marks = {partition: splits.mark for partition, splits in found.items()}
    assert first.splits("topic", marks)[0].conversation_ids == ()
    second.note_many([StateKey("d", "topic", 2)])
    later = first.splits("topic", marks | {2: ""})
    assert [later[p].conversation_ids for p in (0, 1, 2)] == [("d",), (), ()]
    first.note_many([StateKey("c", "topic", 0)])
    assert first.splits("topic", {1: ""})[1].conversation_ids == ("c",), "and the other way"
    assert first.splits("topic", {}) == {}


def test_the_splits_of_a_partition_are_bounded_and_the_latest_stay(
    backend: Backend, make_spec: Make
) -> None:
    store, n = backend.open(make_spec()), SPLITS_AT_MOST + 50
    store.note_many([StateKey(f"c{i}", "topic", 0) for i in range(n)])
    store.note_many([StateKey(f"c{i}", "topic", 1) for i in range(n)])
    found = store.splits("topic", {0: ""})[0]
    assert found.conversation_ids == tuple(f"c{i}" for i in range(50, n))
    assert store.splits("topic", {0: found.mark})[0].conversation_ids == ()


def test_a_replaced_state_is_found_again_by_its_digest(
    backend: Backend, make_spec: Make, say: Say, plain: Plain
) -> None:
    """As it was, with all its rows and ids; the other digest's goes to its own place."""
    specs = make_spec(window=5, duplicate_horizon=8), make_spec(window=3, duplicate_horizon=4)
    one, other = (backend.open(spec) for spec in specs)
    key, token, output = StateKey("c", "topic", 0), one.claim("topic", 0), StoredOutput("p", b"x")
    stored: Conversation | None = None
    for offset in range(9):
        change = say(specs[0], stored, offset, speaker_id=f"s{offset % 3}", seq=offset)
        expected = NO_OFFSET if stored is None else stored.offset
        one.save_many([Save(key, token, expected, change, output, 0)])
        stored = change.after
    assert one.load_aside([key]) == other.load_aside([key]) == [None]
    later: Conversation | None = None
    for store, spec in ((other, specs[1]), (one, specs[0]), (other, specs[1])):
        at = store.load_many([key])[0].offset
        store.set_aside([key, StateKey("never", "topic", 0)], token)
        theirs = other if store is one else one
        (aside,) = theirs.load_aside([key])
        assert aside is not None and aside.offset == at
        assert plain(aside) == plain(later or stored)
        later = say(spec, None, at + 1).after
        (saved,) = store.restore_many([Restore(key, token, at, later)])
        assert saved.result is SaveResult.SAVED
        assert plain(theirs.load_aside([key])[0]) == plain(aside), "it stays"
        assert store.load_many([key])[0].outputs.keys() == set(range(9)), "so do the answers"
    assert one.load_aside([StateKey("never", "topic", 0)]) == [None]


def test_a_state_of_the_store_s_own_digest_is_not_set_aside(write: Write) -> None:
    w = write()
    w.speak(0)
    w.store.set_aside([w.key], w.token)
    assert w.store.load_aside([w.key]) == [None]


def one_aside(backend: Backend, make_spec: Make, say: Say) -> tuple[Opened, StateSpec, StateKey]:
    """Return a store, its spec, and the key of a state of it that another one set aside."""
    spec = make_spec(window=5)
    one, other = backend.open(spec), backend.open(make_spec(window=3))
    key, token = StateKey("c", "topic", 0), one.claim("topic", 0)
    change = say(spec, None, 0)
    one.save_many([Save(key, token, NO_OFFSET, change, StoredOutput("p", b"x"), 0)])
    other.set_aside([key], token)
    return one, spec, key


def test_what_was_set_aside_expires(backend: Backend, make_spec: Make, say: Say) -> None:
    one, spec, key = one_aside(backend, make_spec, say)
    backend.age(2 * spec.recurrence.idle_s - 1)
    assert one.load_aside([key])[0] is not None
    backend.age(2)
    assert one.load_aside([key]) == [None]


def test_a_damaged_copy_is_as_good_as_none(backend: Backend, make_spec: Make, say: Say) -> None:
    one, spec, key = one_aside(backend, make_spec, say)
    at = aside_key(key, bytes.fromhex(spec.digest))
    entries = one.entries(at)
    backend.write(at, replace(entries, rows=[b"\0" * len(entries.rows[0])]))
    assert one.load_aside([key]) == [None]
