"""`emotrack demo`: the whole path on this machine alone, live in the terminal.

An embedded broker (librdkafka's mock cluster: the real protocol on a loopback port), redis-server
as a child process if it is installed, the `emotrack serve` of production as another child, a
publisher that sends three conversations, and a view. The mock proves nothing about delivery: the
tests use Apache Kafka.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from operator import itemgetter
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from stream.client import AlertSubscriber, PredictionSubscriber, Publisher
from stream.client.sources import publish_all
from stream.client.watch import Event
from stream.errors import EmotrackError
from stream.events.messages import PredictionEvent, ShiftAlert, Utterance
from stream.local.demo_view import LiveView, PlainView, View, inputs_note
from stream.local.servers import ServerMissing, redis_server
from stream.local.worker_process import local_worker
from stream.metrics.scrape import Page, scrape

PACE_S: Final = 0.3  # between two utterances at speed 1
ANSWER_S: Final = 15.0  # for the last answers, after the last utterance
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
    """The demo did not get every answer; the message has their number and the worker's log."""


@dataclass(slots=True)
class Tally:
    """The script's utterances by id, and all answers."""

    utterances: Mapping[str, Utterance]
    predictions: list[PredictionEvent] = field(default_factory=list)
    alerts: list[ShiftAlert] = field(default_factory=list)


def interleaved(spoken: Iterable[Sequence[Utterance]]) -> list[Utterance]:
    """Return all conversations mixed, each in its order, spread so that they end together."""
    placed = [
        ((i + 1) / len(utterances), utterance)
        for utterances in spoken
        for i, utterance in enumerate(utterances)
    ]
    return [utterance for _, utterance in sorted(placed, key=itemgetter(0))]


@contextlib.contextmanager
def embedded_broker() -> Iterator[str]:
    """Run librdkafka's mock cluster in this process; yield its address."""
    from confluent_kafka import Producer

    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    brokers = owner.list_topics(timeout=10).brokers.values()
    for topic in TOPICS:
        # The mock cluster creates a topic that is looked up, with 4 partitions.
        owner.list_topics(f"emotrack.{topic}", timeout=10)
    yield ",".join(f"{b.host}:{b.port}" for b in brokers)
    owner.flush(0)


@contextlib.contextmanager
def embedded_store(directory: Path) -> Iterator[tuple[str, str]]:
    """Run redis-server if it is installed, else use memory; yield the store's URL and its name."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(redis_server(directory))
        except ServerMissing:
            yield "memory://", "the worker's memory (redis-server is not installed)"
        else:
            yield running.url, f"redis-server on port {running.port}"


@contextlib.contextmanager
def subscribed(bootstrap: str) -> Iterator[queue.Queue[Event]]:
    """Read predictions and alerts, each on its own thread, into one queue."""
    events: queue.Queue[Event] = queue.Queue(maxsize=10_000)
    stop = threading.Event()

    def receive(subscriber: PredictionSubscriber | AlertSubscriber) -> None:
        with subscriber:
            while not stop.is_set():
                for received in subscriber.records():
                    events.put(received)

    subscribers = [
        subscribe(bootstrap, from_beginning=True, timeout_s=0.2)
        for subscribe in (PredictionSubscriber, AlertSubscriber)
    ]
    threads = [threading.Thread(target=receive, args=(s,), daemon=True) for s in subscribers]
    for thread in threads:
        thread.start()
    try:
        yield events
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)


def show_next(events: queue.Queue[Event], tally: Tally, view: View) -> None:
    """Wait up to 0.1 s for an event, count it and show it."""
    try:
        event = events.get(timeout=0.1).event
    except queue.Empty:
        return
    if isinstance(event, ShiftAlert):
        tally.alerts.append(event)
        view.alert(event)
        return
    tally.predictions.append(event)
    utterance = tally.utterances.get(event.utterance_id)
    if utterance is None:  # published by another process, with --keep
        utterance = Utterance(event.conversation_id, event.utterance_id, event.speaker_id)
    view.answer(utterance, event)


def summary(console: Console, tally: Tally, page: Page) -> None:
    """Print counts, the inputs of each conversation, and the worker's latency per stage."""
    emotions = sorted({p.emotion for p in tally.predictions})
    console.print(
        f"\n{len(tally.utterances)} utterances sent, {len(tally.predictions)} predictions "
        f"({', '.join(emotions)}), {len(tally.alerts)} shift alerts"
    )
    if not tally.alerts:
        console.print("no alert in this run: no shift was above the rule's threshold, set on dev")
    for name in CONVERSATIONS:
        predictions = (p for p in tally.predictions if p.conversation_id == f"demo-{name}")
        if first := next(predictions, None):
            console.print(f"  {name}: {inputs_note(first.modalities_used)}")
    console.print("\nlatency in the worker, from its own /metrics")
    table = Table(box=None, padding=(0, 3, 0, 0))
    for column in ("stage", "p50 ms", "p99 ms", "utterances"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in STAGES:
        latency = page.histogram(f"emotrack_{stage}_seconds")
        quantiles = (f"{latency.quantile(q) * 1000:.1f}" for q in (0.5, 0.99))
        table.add_row(stage.replace("_", " "), *quantiles, f"{latency.count:.0f}")
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
        settings: dict[str, object] = {
            "bootstrap": bootstrap,
            "redis_url": redis_url,
            "mock_broker": "true",
            "allow_create_time": "true",
            "log_format": "json",
        } | ({} if model is None else {"model": model})
        worker = stack.enter_context(local_worker(settings, scratch / "worker.log"))
        console.print(f"broker {bootstrap} (librdkafka's mock), state in {store}")
        events = stack.enter_context(subscribed(bootstrap))
        tally = Tally({utterance.utterance_id: utterance for utterance in script})
        view = PlainView(console) if plain else LiveView(console, len(script))
        with view.live if isinstance(view, LiveView) else contextlib.nullcontext():
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
            with Publisher(bootstrap, encoding="json") as publisher:
                publish_all(publisher, script, rate=1 / pace_s)
        except EmotrackError as error:
            failure.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    until = time.monotonic() + len(script) * pace_s + ANSWER_S
    while len(tally.predictions) < len(script) and time.monotonic() < until:
        show_next(events, tally, view)
    grace = time.monotonic() + 0.5  # an alert of the last utterance may still be on its way
    while time.monotonic() < grace:
        show_next(events, tally, view)
    sender.join(5)
    if failure:
        raise failure[0]
    view.status("all answered" if len(tally.predictions) >= len(script) else "gave up waiting")


def keep_running(
    console: Console, bootstrap: str, metrics: str, tally: Tally, events: queue.Queue[Event]
) -> None:
    """Run until Ctrl-C and show the utterances of other publishers, a line each."""
    console.print(
        "still running; from another terminal (Ctrl-C here ends it):\n"
        f"  emotrack watch predictions --bootstrap {bootstrap}\n"
        f'  echo \'{{"conversation_id":"mine","utterance_id":"1","speaker_id":"me",'
        f'"text":"I love this!"}}\' | emotrack publish - --bootstrap {bootstrap}\n'
        f"  curl {metrics}",
        highlight=False,
        soft_wrap=True,
    )
    view = PlainView(console)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            show_next(events, tally, view)


CONVERSATIONS: Final = ("call", "attic", "kitchen")


def conversations() -> dict[str, list[Utterance]]:
    """Return the demo's conversations by name, in spoken order."""
    decoder = msgspec.json.Decoder(Utterance)
    folder = files("stream.local") / "demo_conversations"
    return {
        name: [decoder.decode(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in CONVERSATIONS
    }


def demo_sentences() -> list[str]:
    """Return all sentences of the demo's conversations."""
    return [u.text for spoken in conversations().values() for u in spoken if u.text]
