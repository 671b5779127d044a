"""`emotrack conversations show`: find one conversation's state and print it.

No sentence of the conversation is shown: none is stored. Ids of speakers and utterances, which may
be names or addresses, are shown only when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from state.redis_reader import StoredState
from state.store import StoredOutput
from state.window import KNOWN_BYTES, NO_CLOCK, Conversation, StateKey, StateSpec
from stream.answers.outbox import sent_before
from stream.brokers.topic_reader import TopicReader
from stream.brokers.topics import partition_of
from stream.errors import ConfigError, StateMissing
from stream.events.cloudevents import utc
from stream.settings import Settings
from stream.stores import open_states

WITH_IDS = ("window", "speakers")  # lists of `as_data`
IDS = ("utterance_id", "last_utterance_id", "speaker_id")
KINDS = {"p": "prediction", "a": "shift alert", "d": "dead letter"}


@dataclass(frozen=True, slots=True)
class Found:
    """A conversation's state, and the other partitions that have one."""

    key: StateKey
    state: StoredState
    keyed_to: int  # the partition that murmur2, our clients' partitioner, gives
    noted: tuple[int, ...]  # the partitions that workers noted within 2 x idle_s
    elsewhere: tuple[int, ...]  # partitions with an older state of it


def find(settings: Settings, spec: StateSpec, conversation: str, partition: int | None) -> Found:
    """Find a conversation's state on every partition, or on one.

    Of several states (its producers partition differently, or partitions were added) the one that
    was written last is shown. Raises `StateMissing`, `ConfigError`, and what `TopicReader` and
    `open_states` do.
    """
    if settings.in_memory:
        raise ConfigError(
            "states lie in the memory of a worker (EMOTRACK_REDIS_URL is memory://): nobody else "
            "can read them; name the workers' Redis with --redis-url"
        )
    with TopicReader(settings) as reader:
        partitions = sorted(reader.bounds(settings.topics.utterances))
        topic_id = reader.topic_id(settings.topics.utterances)
    if partition is not None and partition not in partitions:
        raise ConfigError(f"{settings.topics.utterances} has partitions 0 to {partitions[-1]}")
    searched = partitions if partition is None else [partition]
    keys = [StateKey(conversation, topic_id, p) for p in searched]
    with open_states(settings, spec) as states:
        stored = {k.partition: s for k, s in zip(keys, states.read(keys), strict=True) if s}
        noted = tuple(sorted(states.noted(keys[0])))
    if not stored:
        where = "on any partition" if partition is None else f"on partition {partition}"
        raise StateMissing(
            f"no state of conversation {conversation!r} {where} of {settings.topics.utterances}: "
            "check the id and --topic-prefix; one that was silent for twice "
            f"{spec.recurrence.idle_s:g} s has expired"
        )
    keyed_to = partition_of(conversation.encode(), len(partitions))
    # Each write sets the same time to live: the longest left is the latest written.
    chosen = max(stored, key=lambda p: (max(stored[p].ttl_ms, default=0), p == keyed_to))
    elsewhere = tuple(p for p in sorted(stored) if p != chosen)
    key = StateKey(conversation, topic_id, chosen)
    return Found(key, stored[chosen], keyed_to, noted, elsewhere)


def as_data(found: Found, spec: StateSpec) -> dict[str, Any]:
    """Return the state as plain data; without session and window where it cannot be read."""
    state, loaded, limits = found.state, found.state.loaded, spec.recurrence
    problem = loaded.corrupt
    if problem is None and loaded.foreign:
        problem = (
            "written by another model or with other WINDOW, IDLE_S or MAX_SESSION_S: name the "
            "workers' settings"
        )
    data = {
        "conversation_id": found.key.conversation_id,
        "topic_id": found.key.topic_id,
        "partition": found.key.partition,
        "keyed_to": found.keyed_to,
        "noted_on": list(found.noted),
        "also_on": list(found.elsewhere),
        "position": loaded.offset,
        "fence_token": state.token,
        "expires_in_s": round(min(state.ttl_ms, default=0) / 1000, 1),
        "digest": spec.digest,
        "readable": loaded.conversation is not None,
        "problem": problem,
        "rows": state.rows,
        "rows_at_most": limits.window,
        "utterance_ids": state.ids,
        "utterance_ids_at_most": limits.duplicate_horizon,
        "ids_masked": False,
        "outputs": [_output_data(at, o) for at, o in sorted(loaded.outputs.items())],
    }
    return data | (_session_data(loaded.conversation) if loaded.conversation is not None else {})


def _session_data(conversation: Conversation) -> dict[str, Any]:
    """Return the session, its window and its speakers."""
    window, session = conversation.window, conversation.session
    rows = zip(window.row_utterances, window.row_speakers, strict=True)
    first = window.count - len(window.row_utterances)
    return {
        "clock": when(conversation.clock_ms),
        "session": {
            "began": when(session.started_ms),
            "first_position": session.first_offset,
            "utterances": window.count,
            "truncated": session.truncated,
            "ended": session.ended,
            "last_seq": session.last_seq,
            "id_reused": conversation.id_reused,
        },
        "window": [
            {"index": index, "utterance_id": utterance, "speaker_id": speaker}
            for index, (utterance, speaker) in enumerate(rows, first)
        ],
        "speakers": [
            {
                "speaker_id": speaker,
                "last_index": last.last_index,
                "last_utterance_id": last.last_utterance_id,
            }
            for speaker, last in window.speakers.items()
        ],
        "ids_heard": len(conversation.recent) // KNOWN_BYTES,
    }


def _output_data(offset: int, stored: StoredOutput) -> dict[str, Any]:
    """Return a stored output, which is sent again if its record is redelivered, as plain data."""
    try:
        sent = [f"{KINDS[output.kind]} {output.id}" for output in sent_before(stored)]
    except msgspec.DecodeError:
        sent = ["unreadable"]
    return {"position": offset, "outcome": stored.outcome, "sends": sent}


def masked(state: dict[str, Any]) -> dict[str, Any]:
    """Return `as_data` with a number in place of each speaker and utterance id.

    Equal ids get equal numbers, by their first place in the window, then among the speakers. A
    number, not a hash: who can guess an id could find its hash.
    """
    numbers: dict[tuple[str, str], str] = {}

    def number(field: str, value: str) -> str:
        kind = "speaker" if field == "speaker_id" else "utterance"
        seen = sum(1 for known, _ in numbers if known == kind)
        return numbers.setdefault((kind, value), f"{kind} {seen + 1}")

    def mask(row: dict[str, Any]) -> dict[str, Any]:
        return {k: number(k, v) if k in IDS and v is not None else v for k, v in row.items()}

    lists = {name: [mask(row) for row in state[name]] for name in WITH_IDS if name in state}
    return state | lists | {"ids_masked": True}


def when(epoch_ms: int) -> str | None:
    """Return broker time as text; None if there is none."""
    if epoch_ms == NO_CLOCK:
        return None
    return f"{utc(epoch_ms):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def print_state(state: dict[str, Any], console: Console) -> None:
    """Print `as_data` as tables."""
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _facts(state):
        facts.add_row(name, value)
    console.print(facts)
    if state["problem"]:
        console.print(f"not readable: {state['problem']}", markup=False)
    _table(console, "window, oldest first", state.get("window", []))
    _table(console, "speakers, least recently heard first", state.get("speakers", []))
    waiting = [output | {"sends": ", ".join(output["sends"])} for output in state["outputs"]]
    _table(console, "outputs kept until their offset is committed", waiting)
    if state["ids_masked"] and "window" in state:
        console.print("ids of speakers and utterances are numbered; --ids shows them")


def _facts(state: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts that are not lists, as rows of name and value."""
    rows = [
        ("conversation", state["conversation_id"]),
        ("partition", f"{state['partition']} of topic {state['topic_id']}"),
        ("position", str(state["position"])),
        ("fence token", str(state["fence_token"])),
        ("expires in", f"{state['expires_in_s']:g} s without an utterance"),
        ("digest", state["digest"]),
        ("ring", f"{state['rows']} of {state['rows_at_most']} rows"),
        ("horizon", f"{state['utterance_ids']} of {state['utterance_ids_at_most']} utterance ids"),
    ]
    if state["partition"] != state["keyed_to"]:
        rows.append(("note", f"murmur2 would have chosen partition {state['keyed_to']}"))
    if state["also_on"]:
        text = f"it has an older state on {state['also_on']}: its producers partition differently"
        rows.append(("note", text))
    if session := state.get("session"):
        flags = [name for name in ("truncated", "ended", "id_reused") if session[name]]
        rows += [
            ("clock", state["clock"] or "none"),
            ("session", f"{session['utterances']} utterances since {session['began']}"),
            ("", f"from position {session['first_position']}{''.join(f', {f}' for f in flags)}"),
        ]
    return rows


def _table(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
