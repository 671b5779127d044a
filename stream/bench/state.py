"""`emotrack bench state`: what a conversation costs in Redis (P7), measured on a running server.

Sizes come from the server's own counters (INFO), so protocol overhead and allocator rounding are
in them. Arrays, ids and probabilities are random; predictions, alerts and the rule's state are
written as in service: nothing is compressible here that is not there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from model.interface import INPUTS, ModelInfo, Prediction
from state.redis_store import RedisStore
from state.store import Save, SaveResult
from state.window import Applied, ArraySpec, Conversation, Recurrence, StateKey, StateSpec
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
LABELS: Final = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
TOPIC_ID: Final = "bench-state"
FIRST_MS: Final = 1_790_000_000_000
NEUTRAL_TO_JOY: Final = tuple(float(cell == 4) for cell in range(len(LABELS) ** 2))
INFO: Final = ModelInfo(
    name="pcgnet",
    version="0.1.0",
    digest="",
    labels=LABELS,
    sentiment=dict.fromkeys(LABELS, "neutral"),
    inputs={},
    extractors={},
    tuned=frozenset(),
    calibration="temperature(emotion=0.68, shift=1.59; fitted on dev), mapped",
    abstain_below=0.0,
    shift_threshold=0.9,
    shift_exit=0.7,
)


@dataclass(frozen=True, slots=True)
class Run:
    """The cost of one run over all conversations."""

    kib_per_utterance: float
    kib_per_conversation: float
    updates_per_s: float


def spec_of(hidden: int, window: int = 10) -> StateSpec:
    """The state of PCGNet at this hidden size, in float16 (models.md A8)."""
    return StateSpec(
        utterance=(ArraySpec("f", (3, hidden)), ArraySpec("z", (3, hidden)), ArraySpec("p", (5,))),
        conversation=(ArraySpec("ctx_h", (2, hidden)),),
        speaker=(
            ArraySpec("party_h", (3, 2, hidden)),
            ArraySpec("shift_prev", (3, hidden)),
            ArraySpec("emotion_prev", (len(LABELS),)),
        ),
        recurrence=Recurrence(window=window),
        model_digest=f"bench-{hidden}",
    )


def run_bench_state(
    *,
    redis_url: str,
    hidden: Sequence[int] = (200, 400),
    conversations: int = 64,
    utterances: int = 30,
    runs: int = 5,
    seed: int = 0,
) -> dict[str, Row]:
    """Write conversations of two speakers and return P7's rows by name.

    The server should serve nobody else meanwhile: its counters are the measure. Keys expire.
    """
    rows: dict[str, Row] = {}
    for size in hidden:
        measured = [
            measure(redis_url, size, conversations, utterances, seed + i) for i in range(runs)
        ]
        per_utterance, per_conversation = GOALS.get(size, ((None, None), (None, None)))
        note = f"{conversations} conversations x {utterances} utterances, 2 speakers, W=10"
        for name, unit, goals, values in (
            ("bytes", "KiB/utterance", per_utterance, [m.kib_per_utterance for m in measured]),
            (
                "memory",
                "KiB/conversation",
                per_conversation,
                [m.kib_per_conversation for m in measured],
            ),
            ("updates", "updates/s", (None, None), [m.updates_per_s for m in measured]),
        ):
            rows[f"P7_{name}_h{size}"] = figure(values, unit, note, *goals, digits=3)
    return rows


def open_store(spec: StateSpec, redis_url: str) -> RedisStore:
    """Open a store as a worker does."""
    return RedisStore(spec, redis_url, timeout_s=10.0, dictionary=OUTPUT_DICTIONARY)


def measure(redis_url: str, hidden: int, conversations: int, utterances: int, seed: int) -> Run:
    """Write `conversations` side by side, one batch a turn, and read the server's counters."""
    spec = spec_of(hidden)
    with closing(open_store(spec, redis_url)) as store:
        store.check()
        token = store.claim(TOPIC_ID, 0)
        talk = Talk(spec, conversations, seed, f"{TOPIC_ID}-{token:x}")  # meets no earlier run's
        received, data = store.usage()
        busy_s = 0.0
        for _ in range(utterances):
            saves = talk.next_batch(token)
            started = time.perf_counter()
            answers = store.save_many(saves)
            busy_s += time.perf_counter() - started
            if any(answer.result is not SaveResult.SAVED for answer in answers):
                raise RuntimeError(f"the store answered {answers[0]}: is the server shared?")
        received_after, data_after = store.usage()
    updates = conversations * utterances
    return Run(
        (received_after - received) / updates / KIB,
        (data_after - data) / conversations / KIB,
        updates / busy_s,
    )


class Talk:
    """Conversations that each say one utterance a batch, speakers taking turns."""

    def __init__(self, spec: StateSpec, conversations: int, seed: int, topic_id: str) -> None:
        self._random = random.Random(seed)
        self._arrays = np.random.default_rng(seed)
        self.topic_id = topic_id
        info = replace(INFO, digest=f"{self._random.getrandbits(256):064x}")
        self._model = Model(info, spec, rule_of(info))
        ids = (f"{self._random.getrandbits(128):032x}" for _ in range(conversations))
        self._held: dict[str, Conversation | None] = dict.fromkeys(ids)
        self._offset = 0

    def next_batch(self, token: int) -> list[Save]:
        """One save a conversation; all batches before are committed."""
        committed = self._offset
        return [self._say(name, token, committed) for name in self._held]

    def _say(self, name: str, token: int, committed: int) -> Save:
        held, offset = self._held[name], self._offset
        self._offset += 1
        turn = 0 if held is None else held.window.count
        utterance = Utterance(name, f"{name}-{turn:04d}", ("agent-0417", "customer")[turn % 2])
        record = Record("emotrack.utterances", 0, offset, FIRST_MS + offset, name.encode(), b"")
        question = ask(record, utterance, held, self._model.spec, truncated=False)
        found = answer(question, self._prediction(), self._model)
        self._held[name] = found.change.after
        output = stored_output(found.outcome, sent_for(found, "json"))
        key = StateKey(name, self.topic_id, 0)
        stored = -1 if held is None else held.offset
        return Save(key, token, stored, found.change, output, committed)

    def _prediction(self) -> Prediction:
        """A prediction with digits and arrays that do not repeat."""
        weights = [self._random.random() for _ in LABELS]
        return Prediction(
            probabilities=tuple(w / sum(weights) for w in weights),
            shift=NEUTRAL_TO_JOY,
            shift_probability=self._random.random(),
            modalities_used=INPUTS,
            applied=self._applied(),
        )

    def _applied(self) -> Applied:
        spec = self._model.spec
        sizes = (spec.row_bytes, spec.conversation_bytes, spec.speaker_bytes)
        row_, arrays, speaker = (self._arrays.integers(0, 256, n, np.uint8) for n in sizes)
        return Applied(row_, arrays, speaker)
