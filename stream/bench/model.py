"""`emotrack bench model`: the model's speed, as ratios or with their reference (goals P1 to P9).

One thread; the model's own tests check its correctness.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final

from model.pcgnet import bench
from model.pcgnet.predictor import PcgnetPredictor
from state.window import Window
from stream.bench.rows import Row, figure

Say = Callable[[str], None]
CLOCK: Final = time.perf_counter
TURN: Final = 50
CONVERSATIONS: Final = 64
BATCH: Final = 256
RUNS: Final = 5
SINGLE_STEPS: Final = 100  # per run of P3
EARLY, LATE, SPAN, BLOCK = 100, 9_000, 1_000, 100  # P9: utterances 101-1100, 9001-10000
CUDA_HIDDEN: Final = 400
CUDA_BATCHES: Final = (1, 1_024, 4_096)
CUDA_WARM, CUDA_STEPS = 12, 20  # steps: before the windows are full; timed in each run
GOALS: Final = {200: (1.2, 0.5), 400: (3.0, 1.3)}  # P3, ms: first, aim


def run_bench_model(*, say: Say) -> dict[str, Row]:
    """Measure P1, P3, P4 and P9 and return their rows; about a minute on an idle core."""
    bench.use_threads(1)
    rows: dict[str, Row] = {}
    for hidden in GOALS:
        say(f"H={hidden}: proving batch sizes, then P3 and P4")
        predictor = bench.random_predictor(hidden)
        rows |= _single(predictor, hidden)
        rows |= _batched(predictor, hidden)
        if hidden == 200:
            say(f"P1: step against full recompute at turn {TURN}, {CONVERSATIONS} conversations")
            rows |= _against_recompute(predictor)
            say("P9: one conversation of 10,000 utterances")
            rows |= _late_against_early(predictor)
    return dict(sorted(rows.items()))


def run_bench_cuda(*, say: Say) -> dict[str, Row]:
    """Measure P5: the model on a GPU, both transfers included. Raises `ModelError` without one."""
    rows: dict[str, Row] = {}
    say(f"H={CUDA_HIDDEN}: proving batch sizes")
    predictor = bench.random_predictor(CUDA_HIDDEN, "cuda")
    for batch in CUDA_BATCHES:
        say(f"P5: batches of {batch}")
        talks = bench.Talks.begin(predictor, batch)
        talks.steps(range(CUDA_WARM), CLOCK)
        turns = talks.turns(CUDA_WARM)
        runs = []
        for _ in range(RUNS):
            taken = [talks.predict(turns, CLOCK) for _ in range(CUDA_STEPS)]
            runs.append(statistics.median(taken))
        proven = ", ".join(map(str, predictor.batch_sizes))
        reference = (
            f"{bench.cuda_name()}, p50 of {CUDA_STEPS} steps, H={CUDA_HIDDEN}; rows are padded to "
            f"{proven}"
        )
        if batch == 1:
            rows["P5_step"] = figure([1e6 * s for s in runs], "us", reference, None, 40)
        else:
            rates = [batch / s for s in runs]
            rows[f"P5_batch_{batch}"] = figure(rates, "1/s", reference, None, 2e6)
    return rows


def _against_recompute(predictor: PcgnetPredictor) -> dict[str, Row]:
    talks = bench.Talks.begin(predictor, CONVERSATIONS)
    talks.steps(range(TURN - 1), CLOCK)
    turns = talks.turns(TURN - 1)
    whole = bench.FullRecompute(predictor, CONVERSATIONS, TURN)
    whole.seconds(CLOCK)
    passes, steps, products = [], [], []
    for _ in range(RUNS):  # interleaved: other load of the machine affects all three alike
        products.append(bench.sgemm_gflops(CLOCK))
        passes.append(whole.seconds(CLOCK))
        steps.append(min(talks.predict(turns, CLOCK) for _ in range(3)))
    runs = [a / b for a, b in zip(passes, steps, strict=True)]
    reached = [whole.gflop / s for s in passes]
    share = [r / p for r, p in zip(reached, products, strict=True)]
    stepped = CONVERSATIONS * bench.step_gflop(predictor) / statistics.median(steps)
    return {
        "P1": figure(
            runs, "x",
            f"full causal recompute, turn {TURN}, {CONVERSATIONS} conversations: "
            f"{statistics.median(reached):.1f} GFLOP/s; step {stepped:.1f} GFLOP/s",
            15, 25,
        ),
        "P1_reference_share": figure(
            share, "of sgemm", f"sgemm 1024^3: {statistics.median(products):.1f} GFLOP/s", 0.4
        ),
    }  # fmt: skip


def _single(predictor: PcgnetPredictor, hidden: int) -> dict[str, Row]:
    talks = bench.Talks.begin(predictor, 1)
    talks.steps(range(20), CLOCK)
    runs = []
    for block in range(RUNS):
        at = 20 + block * SINGLE_STEPS
        taken = talks.steps(range(at, at + SINGLE_STEPS), CLOCK)
        runs.append(1e3 * statistics.median(taken))
    reference = f"p50 of {SINGLE_STEPS} steps, one conversation, one thread, H={hidden}"
    return {f"P3_h{hidden}": figure(runs, "ms", reference, *GOALS[hidden])}


def _batched(predictor: PcgnetPredictor, hidden: int) -> dict[str, Row]:
    talks = bench.Talks.begin(predictor, BATCH)
    talks.steps(range(12), CLOCK)
    turns = talks.turns(12)
    runs, rates = [], []
    for _ in range(RUNS):
        product = bench.sgemm_gflops(CLOCK)
        seconds = min(talks.predict(turns, CLOCK) for _ in range(3))
        rates.append(BATCH / seconds)
        runs.append(BATCH * bench.step_gflop(predictor) / seconds / product)
    reference = (
        f"sgemm of the same FLOP; {statistics.median(rates):,.0f} steps/s, batches of {BATCH}, "
        f"one thread, H={hidden}"
    )
    return {f"P4_h{hidden}": figure(runs, "of sgemm", reference, 0.5, 0.8)}


def _late_against_early(predictor: PcgnetPredictor) -> dict[str, Row]:
    talks = bench.Talks.begin(predictor, 1)
    talks.steps(range(EARLY), time.process_time)
    early = bench.Talks(predictor, list(talks.windows))
    talks.steps(range(EARLY, LATE), time.process_time)
    runs, before, after = [], [], []
    for block in range(0, SPAN, BLOCK):  # interleaved, CPU time
        first = early.steps(range(EARLY + block, EARLY + block + BLOCK), time.process_time)
        then = talks.steps(range(LATE + block, LATE + block + BLOCK), time.process_time)
        before.append(sum(first))
        after.append(sum(then))
        runs.append(sum(then) / sum(first))
    if _state_bytes(early.windows[0]) != _state_bytes(talks.windows[0]):
        raise RuntimeError("the state of a long conversation is larger than that of a short one")
    row = figure(runs, "x", "CPU of utterances 9001-10000 against 101-1100", 1.10, 1.03)
    row["value"] = sum(after) / sum(before)
    return {"P9": row}


def _state_bytes(window: Window) -> int:
    arrays = 0 if window.arrays is None else window.arrays.nbytes
    return window.rows.nbytes + arrays + sum(s.arrays.nbytes for s in window.speakers.values())
