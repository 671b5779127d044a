"""`emotrack bench hrg-ssa`: an answer from words, at once and batched, against re-encoding."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from model.checkpoint_files import find_checkpoint
from model.hrg_ssa.bench import Conversations, Reencoding
from stream.bench.rows import Row, figure
from stream.local.demo import demo_sentences

WARM: Final = 10  # utterances before any is timed: the window is full
BATCH: Final = 16


def run_bench_hrg_ssa(
    model: Path, *, utterances: int, say: Callable[[str], None]
) -> dict[str, Row]:
    """Measure on one thread, the two forms in turns; sentences are the demo's."""
    sentences = demo_sentences()
    sentences = (sentences * (1 + (WARM + utterances) // len(sentences)))[: WARM + utterances]
    say("loading the model: batch sizes are proven")
    alone, many = (Conversations.begin(find_checkpoint(model), count) for count in (1, BATCH))
    reencoding, spec = Reencoding(alone.predictor), alone.predictor.spec
    window = spec.recurrence.window
    clock, step, ratio, batched = time.perf_counter, [], [], []
    for at, sentence in enumerate(sentences):
        one_s, many_s = alone.step(sentence, clock), many.step(sentence, clock)
        if at >= WARM:
            step.append(1e3 * one_s)
            ratio.append(reencoding.seconds(sentences[at - window : at + 1], clock) / one_s)
            batched.append(1e3 * many_s / BATCH)
    rows = window * spec.row_bytes
    speakers = spec.recurrence.max_speakers * spec.speaker_bytes
    note = f"one conversation, {utterances} sentences of the demo, one thread, words to answer"
    return {
        "hrg_step_p50_ms": figure(step, "ms", note, 30.0),
        "hrg_reencode_ratio": figure(
            ratio, "x", f"encoding all {window + 1} utterances of the window / step, in turns", 4.0
        ),
        "hrg_batched_ms": figure(batched, "ms", f"an utterance, {BATCH} conversations at once"),
        "hrg_state_kib": figure(
            [(rows + speakers) / 1024], "KiB",
            f"arrays of a full window and {spec.recurrence.max_speakers} speakers", 64.0,
        ),
    }  # fmt: skip
