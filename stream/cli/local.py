"""`emotrack local`: a Kafka and a Redis on this machine, to try emotrack without Docker."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from stream.local.servers import KAFKA_JARS, ChildServer, ServerFailed, answers, kafka_and_redis


def local(
    kafka_port: Annotated[int, typer.Option(min=1, max=65_535)] = 9092,
    redis_port: Annotated[int, typer.Option(min=1, max=65_535)] = 6379,
    jars: Annotated[
        Path, typer.Option(help="Kafka's jars, as `make kafka` gets them")
    ] = KAFKA_JARS,
) -> None:
    """Run Kafka and Redis on loopback until Ctrl-C; then all that they hold is forgotten.

    To try emotrack, not for production: one broker, no passwords, nothing survives the end.
    """
    from stream.worker.signals import stop_on_signals

    for name, port in (("kafka", kafka_port), ("redis", redis_port)):
        if answers(port):
            raise ServerFailed(
                f"something listens on 127.0.0.1:{port} already: use it, or choose another "
                f"--{name}-port"
            )
    stop = stop_on_signals()
    typer.echo("starting Kafka and Redis …")
    with (
        tempfile.TemporaryDirectory(prefix="emotrack-local-") as directory,
        kafka_and_redis(
            Path(directory), jars, kafka_port=kafka_port, redis_port=redis_port
        ) as both,
    ):
        typer.echo(
            f"Kafka answers on {both.kafka.bootstrap}, Redis on {both.redis.url}. Next: "
            "`emotrack topics create`. Ctrl-C ends both"
        )
        wait_for_stop(stop, [both.kafka.server, both.redis.server])


def wait_for_stop(stop: Event, servers: Sequence[ChildServer]) -> None:
    """Wait for `stop`. Raises `ServerFailed` with the log of a server that ends before."""
    while not stop.wait(0.5):
        for server in servers:
            if server.ended():
                raise ServerFailed(f"{server.name} ended by itself: {server.tail()}")
