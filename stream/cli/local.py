"""`emotrack local`: run Kafka and Redis on this machine, to try emotrack without Docker."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import KafkaJars
from stream.local.servers import KAFKA_JARS, ServerFailed, answers, kafka_and_redis


def local(
    kafka_port: Annotated[int, typer.Option(min=1, max=65_535)] = 9092,
    redis_port: Annotated[int, typer.Option(min=1, max=65_535)] = 6379,
    jars: KafkaJars = KAFKA_JARS,
) -> None:
    """Run Kafka and Redis on loopback until Ctrl-C; then all that they hold is forgotten.

    To try emotrack, not for production: one broker, no passwords, nothing survives the end.
    """
    from stream.worker.process import stop_on_signals

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
        kafka_and_redis(Path(directory), jars, kafka_port=kafka_port, redis_port=redis_port) as (
            kafka,
            redis,
        ),
    ):
        typer.echo(
            f"Kafka answers on {kafka.bootstrap}, Redis on {redis.url}. Next: "
            "`emotrack topics create`. Ctrl-C ends both"
        )
        while not stop.wait(0.5):
            for server in (kafka.server, redis.server):
                if server.ended():
                    raise ServerFailed(f"{server.name} ended by itself: {server.tail()}")
