"""`emotrack bench verify`: how fast a log is verified, each answer alone and side by side.

One worker answers a log of features and one of raw text; then both are verified in turns, alone
(`verify --alone`, one encoder, no text remembered: as before side by side) and as `verify` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from model.interface import Predictor
from stream.bench.load import SHIPPED_WIDTHS, Sender, script
from stream.bench.rows import Row, figure
from stream.bench.servers import Servers, started
from stream.local.demo import demo_sentences
from stream.local.servers import KAFKA_JARS
from stream.serve import load_model
from stream.settings import Settings
from stream.verify.recompute import SIDE_BY_SIDE
from stream.verify.run import verify_topics
from stream.worker.cpus import usable_cpus

PARTITIONS: Final = 2
SENTENCES: Final = 20_000  # remembered, as `emotrack verify` does
ANSWERS_S: Final = 300.0


class NotEqual(Exception):
    """An answer of the worker did not equal the recomputed one."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Utterances to answer and verify; conversations are those of a running system."""

    features: int = 6_000
    texts: int = 300
    conversations: int = 100
    rounds: int = 2


class Speed(NamedTuple):
    """The speed at which a log was verified, and its CPU, which depends less on the load."""

    per_s: float
    cpu_ms: float  # a record


@dataclass(slots=True)
class Log:
    """One answered log, and how fast it was verified, in turns."""

    servers: Servers
    records: int
    alone: list[Speed] = field(default_factory=list)
    together: list[Speed] = field(default_factory=list)

    def verify(self, predictor: Predictor, side_by_side: int) -> Speed:
        """Verify all of it. Raises `NotEqual`."""
        own = self.servers
        settings = Settings(
            bootstrap=own.bootstrap,
            redis_url=own.redis_url,
            topic_prefix=own.prefix,
            group=own.group,
        )
        predictor.warm_up()  # the encoder is loaded, too
        began, cpu = time.monotonic(), time.process_time()
        report = verify_topics(settings, predictor, side_by_side=side_by_side)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        if not report.ok or report.counts["compared"] != self.records:
            raise NotEqual(f"{report.counts['compared']} of {self.records} answers are equal")
        return Speed(self.records / seconds, 1000 * cpu / self.records)


def run_bench_verify(
    amounts: Amounts, *, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Measure features in and raw text in; `say` gets a line at each step."""
    with started(jars, say) as (servers, scratch):
        own = replace(servers, prefix="features."), replace(servers, prefix="text.")
        logs = {
            "features": Log(own[0], amounts.features),
            "text": Log(own[1], amounts.texts),
        }
        for name, log in logs.items():
            sentences = distinct(amounts.texts) if name == "text" else []
            say(f"answering {log.records} utterances: {name}")
            log.servers.create_topics(PARTITIONS)
            count = min(amounts.conversations, log.records // 3)
            messages = script(
                log.servers.prefix, count, log.records, widths=SHIPPED_WIDTHS, sentences=sentences
            )
            with log.servers.worker(scratch / f"{name}.log", log_level="warning"):
                sender = Sender(log.servers.bootstrap, log.servers.topics)
                sender.answered(messages, ANSWERS_S)
        say("verifying in turns")
        encoders = max(1, int(usable_cpus()))
        for _ in range(amounts.rounds):
            for log in logs.values():
                # Loaded anew each time: nothing is remembered from the last round.
                log.alone.append(log.verify(load_model(Settings()), 1))
                predictor = load_model(
                    Settings(), remembered_texts=SENTENCES, texts_at_once=encoders
                )
                log.together.append(log.verify(predictor, SIDE_BY_SIDE))
        return rows(logs, amounts, encoders)


def distinct(count: int) -> list[str]:
    """Return as many different sentences: none is encoded once for all."""
    said = demo_sentences()
    return [f"{said[i % len(said)]} {i}" for i in range(count)]


def rows(logs: dict[str, Log], amounts: Amounts, encoders: int) -> dict[str, Row]:
    """Return records a second and their CPU, alone and side by side."""
    found: dict[str, Row] = {}
    for name, log in logs.items():
        texts = f", no sentence twice, {encoders} encoders" if name == "text" else ""
        note = f"{log.records} records{texts}, shipped PCGNet, one thread"
        for way, speeds, how in (
            ("_alone", log.alone, "each answer alone"),
            ("", log.together, f"{amounts.conversations} conversations side by side"),
        ):
            per_s, cpu_ms = zip(*speeds, strict=True)
            found[f"verify_{name}{way}"] = figure(per_s, "1/s", f"{how}; {note}", digits=1)
            found[f"verify_{name}{way}_cpu"] = figure(
                cpu_ms, "ms", f"CPU a record; {how}", digits=2
            )
    return found
