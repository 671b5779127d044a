"""`emotrack bench state`: the cost of a conversation in Redis (P7), measured on a running server.

Sizes come from the server's own counters (INFO), so protocol overhead and allocator rounding are
in them. Arrays, ids and probabilities are random; predictions, alerts and the rule's state are
written as in service, so that nothing compresses better here than there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

import numpy as np

from model.data.dataset import MELD_LABELS
from model.interface import INPUTS, ModelInfo, Prediction
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.step import state_spec
from state.redis_store import RedisStore
from state.store import Save, SaveResult
from state.window import Applied, Conversation, StateKey, StateSpec
from stream.answers.apply import Model, answer, ask
from stream.answers.outbox import sent_for, stored_output
from stream.answers.output_dictionary import OUTPUT_DICTIONARY
from stream.answers.shift_rule import rule_of
from stream.bench.rows import Row, figure
from stream.events.messages import Utterance
from stream.ports import Record

KIB: Final = 1024
GOALS: Final[Mapping[int, tuple[tuple[float, float], tuple[float, float]]]] = {
    # hidden size: (first, aim) of KiB an utterance, of KiB a conversation
    200: ((8.5, 7.5), (50.0, 45.0)),
    400: ((16.0, 14.5), (85.0, 75.0)),
}
TOPIC_ID: Final = "bench-state"
FIRST_MS: Final = 1_790_000_000_000
NEUTRAL_TO_JOY: Final = tuple(float(cell == 4) for cell in range(len(MELD_LABELS) ** 2))
INFO: Final = ModelInfo(
    name="pcgnet",
    version="0.1.0",
    digest="",
    labels=MELD_LABELS,
    sentiment=dict.fromkeys(MELD_LABELS, "neutral"),
    inputs={},
    extractors={},
    tuned=frozenset(),
    calibration="temperature(emotion=0.68, shift=1.59; fitted on dev), mapped",
    abstain_below=0.0,
    shift_threshold=0.9,
    shift_exit=0.7,
)


def spec_of(hidden: int) -> StateSpec:
    """Return the state of PCGNet at this hidden size."""
    return state_spec(PcgnetConfig(labels=MELD_LABELS, hidden=hidden), f"bench-{hidden}")


def run_bench_state(
    *,
    redis_url: str,
    hidden: Sequence[int] = (200, 400),
    conversations: int = 64,
    utterances: int = 30,
    runs: int = 5,
) -> dict[str, Row]:
    """Write conversations of two speakers and return P7's rows by name.

    The server should have no other client meanwhile: its counters are the measure. Keys expire.
    """
    rows: dict[str, Row] = {}
    note = f"{conversations} conversations x {utterances} utterances, 2 speakers, W=10"
    for size in hidden:
        measured = [measure(redis_url, size, conversations, utterances, i) for i in range(runs)]
        sent, stored, rates = zip(*measured, strict=True)
        goals = GOALS.get(size, ((None, None), (None, None)))
        rows |= {
            f"P7_bytes_h{size}": figure(sent, "KiB/utterance", note, *goals[0], digits=3),
            f"P7_memory_h{size}": figure(stored, "KiB/conversation", note, *goals[1], digits=3),
            f"P7_updates_h{size}": figure(rates, "updates/s", note, digits=3),
        }
    return rows


def open_store(spec: StateSpec, redis_url: str) -> RedisStore:
    """Open a store as a worker does."""
    return RedisStore(spec, redis_url, timeout_s=10.0, dictionary=OUTPUT_DICTIONARY)


def measure(
    redis_url: str, hidden: int, conversations: int, utterances: int, seed: int
) -> tuple[float, float, float]:
    """Write `conversations` in parallel, one utterance of each a batch.

    Return KiB sent an utterance, KiB stored a conversation, and updates a second.
    """
    spec = spec_of(hidden)
    with closing(open_store(spec, redis_url)) as store:
        store.check()
        token = store.claim(TOPIC_ID, 0)
        script = SaveScript(spec, conversations, seed, f"{TOPIC_ID}-{token:x}")  # keys of this run
        received, data = store.usage()
        busy_s = 0.0
        for _ in range(utterances):
            saves = script.next_batch(token)
            started = time.perf_counter()
            answers = store.save_many(saves)
            busy_s += time.perf_counter() - started
            if any(answer.result is not SaveResult.SAVED for answer in answers):
                raise RuntimeError(f"the store answered {answers[0]}: is the server shared?")
        received_after, data_after = store.usage()
    updates = conversations * utterances
    return (
        (received_after - received) / updates / KIB,
        (data_after - data) / conversations / KIB,
        updates / busy_s,
    )


class SaveScript:
    """Saves of conversations that have one utterance each in a batch, speakers taking turns."""

    def __init__(self, spec: StateSpec, conversations: int, seed: int, topic_id: str) -> None:
        self._random = random.Random(seed)
        self._arrays = np.random.default_rng(seed)
        self._topic_id = topic_id
        info = replace(INFO, digest=f"{self._random.getrandbits(256):064x}")
        self._model = Model(info, spec, rule_of(info))
        ids = (f"{self._random.getrandbits(128):032x}" for _ in range(conversations))
        self._conversations: dict[str, Conversation | None] = dict.fromkeys(ids)
        self._offset = 0

    def next_batch(self, token: int) -> list[Save]:
        """Return one save a conversation; all earlier batches count as committed."""
        committed = self._offset
        return [self._save(name, token, committed) for name in self._conversations]

    def _save(self, name: str, token: int, committed: int) -> Save:
        known, offset = self._conversations[name], self._offset
        self._offset += 1
        turn = 0 if known is None else known.window.count
        utterance = Utterance(name, f"{name}-{turn:04d}", ("agent-0417", "customer")[turn % 2])
        record = Record("emotrack.utterances", 0, offset, FIRST_MS + offset, name.encode(), b"")
        question = ask(record, utterance, known, self._model.spec, truncated=False)
        found = answer(question, self._prediction(), self._model)
        self._conversations[name] = found.change.after
        output = stored_output(found.outcome, sent_for(found, "json"))
        key = StateKey(name, self._topic_id, 0)
        stored = -1 if known is None else known.offset
        return Save(key, token, stored, found.change, output, committed)

    def _prediction(self) -> Prediction:
        """Return a prediction with digits and arrays that do not repeat."""
        weights = [self._random.random() for _ in MELD_LABELS]
        spec = self._model.spec
        sizes = (spec.row_bytes, spec.conversation_bytes, spec.speaker_bytes)
        return Prediction(
            probabilities=tuple(w / sum(weights) for w in weights),
            shift=NEUTRAL_TO_JOY,
            shift_probability=self._random.random(),
            modalities_used=INPUTS,
            applied=Applied(*(self._arrays.integers(0, 256, n, np.uint8) for n in sizes)),
        )
