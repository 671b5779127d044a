"""`emotrack demo`: the whole path on this machine alone, live in the terminal.

An embedded broker (librdkafka's mock cluster: the real protocol on a loopback port), redis-server
as a child where it is installed, the same `emotrack serve` that runs in production as another
child, a publisher that sends three conversations, and a view. Nothing about delivery is claimed
from the mock: the tests use Apache Kafka.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from stream.client import AlertSubscriber, PredictionSubscriber, Publisher, Received
from stream.errors import EmotrackError
from stream.events.messages import PredictionEvent, ShiftAlert, Utterance
from stream.local.conversations import CONVERSATIONS, conversations
from stream.local.demo_view import Heard, LiveView, PlainView, View, inputs_note
from stream.local.servers import ServerMissing, redis_server
from stream.local.worker_process import local_worker
from stream.metrics.scrape import Page, scrape

PACE_S: Final = 0.3  # between two utterances at speed 1
ANSWER_S: Final = 15.0  # for the last answers, after everything was sent
TOPICS: Final = ("utterances", "predictions", "shift-alerts", "dead-letters")
STAGES: Final = (
    "fetch_wait",
    "decode",
    "queue_wait",
    "state_load",
    "inference",
    "state_save",
    "produce",
    "end_to_end",
)


class DemoFailed(EmotrackError):
    """The demo could not show what it is for; says what was missing and where to look."""


@dataclass(slots=True)
class Tally:
    """Everything the demo saw; `sent_at` and `utterances` are filled by the publisher."""

    utterances: dict[str, Utterance] = field(default_factory=dict)
    sent_at: dict[str, float] = field(default_factory=dict)
    predictions: list[PredictionEvent] = field(default_factory=list)
    alerts: list[ShiftAlert] = field(default_factory=list)


def interleaved(spoken: Iterable[Sequence[Utterance]]) -> list[Utterance]:
    """All conversations at once, each in its order, spread so that they end together."""
    placed = [
        ((i + 1) / len(utterances), which, utterance)
        for which, utterances in enumerate(spoken)
        for i, utterance in enumerate(utterances)
    ]
    return [utterance for _, _, utterance in sorted(placed, key=lambda p: p[:2])]


@contextlib.contextmanager
def embedded_broker() -> Iterator[str]:
    """Run librdkafka's mock cluster in this process; yields its address."""
    from confluent_kafka import Producer

    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    brokers = owner.list_topics(timeout=10).brokers.values()
    for topic in TOPICS:
        owner.list_topics(f"emotrack.{topic}", timeout=10)  # asking creates it, with 4 partitions
    yield ",".join(f"{b.host}:{b.port}" for b in brokers)
    owner.flush(0)


@contextlib.contextmanager
def embedded_store(directory: Path) -> Iterator[tuple[str, str]]:
    """A redis-server child where there is one, else memory; yields its URL and what to call it."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(redis_server(directory))
        except ServerMissing:
            yield "memory://", "the worker's memory (redis-server is not installed)"
        else:
            yield running.url, f"redis-server on port {running.port}"


def worker_settings(bootstrap: str, redis_url: str, model: Path | None) -> dict[str, object]:
    """Settings of the demo's worker besides the defaults."""
    named = {} if model is None else {"model": model}
    return named | {
        "bootstrap": bootstrap,
        "redis_url": redis_url,
        "mock_broker": "true",
        "allow_create_time": "true",
        "log_format": "json",
    }


def publish(bootstrap: str, script: Sequence[Utterance], tally: Tally, pace_s: float) -> None:
    """Send the script, one utterance every `pace_s`."""
    with Publisher(bootstrap, encoding="json") as publisher:
        began = time.monotonic()
        for number, utterance in enumerate(script):
            due = began + number * pace_s
            time.sleep(max(0.0, due - time.monotonic()))
            tally.utterances[utterance.utterance_id] = utterance
            tally.sent_at[utterance.utterance_id] = time.monotonic()
            publisher.publish(utterance)
            publisher.flush()


Event = Received[PredictionEvent] | Received[ShiftAlert]


@contextlib.contextmanager
def listening(bootstrap: str) -> Iterator[queue.Queue[Event]]:
    """Feed predictions and alerts, each read on its own thread, into one queue."""
    events: queue.Queue[Event] = queue.Queue(maxsize=10_000)
    stop = threading.Event()

    def listen(subscriber: PredictionSubscriber | AlertSubscriber) -> None:
        with subscriber:
            while not stop.is_set():
                for received in subscriber.records():
                    events.put(received)

    threads = [
        threading.Thread(
            target=listen, args=(kind(bootstrap, from_beginning=True, timeout_s=0.2),), daemon=True
        )
        for kind in (PredictionSubscriber, AlertSubscriber)
    ]
    for thread in threads:
        thread.start()
    try:
        yield events
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)


def follow(events: queue.Queue[Event], tally: Tally, view: View, total: int, until: float) -> None:
    """Show answers as they come, until every utterance has one or `until` has passed."""
    while len(tally.predictions) < total and time.monotonic() < until:
        show_next(events, tally, view)
    grace = time.monotonic() + 0.5  # an alert of the last utterance may still be on its way
    while time.monotonic() < grace:
        show_next(events, tally, view)


def show_next(events: queue.Queue[Event], tally: Tally, view: View) -> None:
    """Wait a moment for an event and show it."""
    with contextlib.suppress(queue.Empty):
        show(events.get(timeout=0.1), tally, view)


def show(received: Event, tally: Tally, view: View) -> None:
    """Tally and show one event."""
    event = received.event
    if isinstance(event, ShiftAlert):
        tally.alerts.append(event)
        view.alert(event)
        return
    tally.predictions.append(event)
    utterance = tally.utterances.get(event.utterance_id)
    if utterance is None:  # someone else's, with --keep
        utterance = Utterance(event.conversation_id, event.utterance_id, event.speaker_id)
    sent = tally.sent_at.get(event.utterance_id, time.monotonic())
    view.heard(Heard(utterance, event, (time.monotonic() - sent) * 1000))


def summary(console: Console, tally: Tally, page: Page) -> None:
    """Print what happened, and the worker's own latency per stage."""
    emotions = sorted({p.emotion for p in tally.predictions})
    console.print(
        f"\n{len(tally.sent_at)} utterances sent, {len(tally.predictions)} predictions "
        f"({', '.join(emotions)}), {len(tally.alerts)} shift alerts"
    )
    if not tally.alerts:
        console.print("no alert in this run: no shift was above the rule's threshold, set on dev")
    for name in CONVERSATIONS:
        used = [p.modalities_used for p in tally.predictions if p.conversation_id == f"demo-{name}"]
        if used:
            console.print(f"  {name}: {inputs_note(used[0])}")
    console.print("\nlatency in the worker, from its own /metrics")
    table = Table(box=None, padding=(0, 3, 0, 0))
    for column in ("stage", "p50 ms", "p99 ms", "utterances"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in STAGES:
        h = page.histogram(f"emotrack_{stage}_seconds")
        quantiles = (f"{h.quantile(q) * 1000:.1f}" for q in (0.5, 0.99))
        table.add_row(stage.replace("_", " "), *quantiles, f"{h.count:.0f}")
    console.print(table)


NEXT: Final = """
What to try next
  emotrack demo --keep            keep it running and join in from another terminal
  emotrack demo --speed 5         the same, five times as fast
  README.md                       run it on your own Kafka and Redis, and watch it in Prometheus
"""


def run_demo(
    *,
    speed: float,
    keep: bool,
    plain: bool,
    console: Console,
    model: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Run the demo to its end, on the shipped PCGNet or another `model`, and draw a `picture`.

    Raises `DemoFailed` when an utterance stays without an answer.
    """
    script = interleaved(conversations().values())
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emotrack-demo-")))
        console.print("starting an embedded broker, a store and a worker (it loads the model) …")
        bootstrap = stack.enter_context(embedded_broker())
        redis_url, store = stack.enter_context(embedded_store(scratch))
        worker = stack.enter_context(
            local_worker(worker_settings(bootstrap, redis_url, model), scratch / "worker.log")
        )
        console.print(f"broker {bootstrap} (librdkafka's mock), state in {store}")
        events = stack.enter_context(listening(bootstrap))
        tally = Tally()
        with shown(console, len(script), plain) as view:
            play(events, tally, view, script, PACE_S / speed, bootstrap)
        summary(console, tally, scrape(worker.metrics))
        if len(tally.predictions) < len(script):
            missing = len(script) - len(tally.predictions)
            raise DemoFailed(
                f"{missing} utterances got no answer; the worker's log says:\n{worker.log_tail()}"
            )
        if picture:
            from stream.local.demo_picture import draw

            answers = {p.utterance_id: p for p in tally.predictions}
            draw(picture, conversations(), answers, tally.alerts)
            console.print(f"the timeline is in {picture}", highlight=False, soft_wrap=True)
        console.print(NEXT, highlight=False, soft_wrap=True)
        if keep:
            keep_running(console, bootstrap, worker.metrics, tally, events)


@contextlib.contextmanager
def shown(console: Console, total: int, plain: bool) -> Iterator[View]:
    """Show what happens: a line each, or as a live table that stays when the block ends."""
    if plain:
        yield PlainView(console)
        return
    view = LiveView(console, total)
    with view.live:
        yield view


def play(
    events: queue.Queue[Event],
    tally: Tally,
    view: View,
    script: Sequence[Utterance],
    pace_s: float,
    bootstrap: str,
) -> None:
    """Publish the script on its own thread and follow the answers."""
    view.status(f"three conversations, one utterance every {pace_s * 1000:.0f} ms")
    failure: list[Exception] = []

    def send() -> None:
        try:
            publish(bootstrap, script, tally, pace_s)
        except EmotrackError as error:
            failure.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    until = time.monotonic() + len(script) * pace_s + ANSWER_S
    follow(events, tally, view, len(script), until)
    sender.join(5)
    if failure:
        raise failure[0]
    view.status("all answered" if len(tally.predictions) >= len(script) else "gave up waiting")


def keep_running(
    console: Console,
    bootstrap: str,
    metrics: str,
    tally: Tally,
    events: queue.Queue[Event],
) -> None:
    """Stay up until Ctrl-C, showing what others publish, a line each."""
    view = PlainView(console)
    console.print(
        "still running; from another terminal (Ctrl-C here ends it):\n"
        f"  emotrack watch predictions --bootstrap {bootstrap}\n"
        f'  echo \'{{"conversation_id":"mine","utterance_id":"1","speaker_id":"me",'
        f'"text":"I love this!"}}\' | emotrack publish - --bootstrap {bootstrap}\n'
        f"  curl {metrics}",
        highlight=False,
        soft_wrap=True,
    )
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            show_next(events, tally, view)
