"""`emotrack conversations show`: what is kept of one conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stream.settings import load_settings

app = typer.Typer(help="What is kept of a conversation.")


@app.callback()
def options() -> None:
    """What is kept of a conversation."""


@app.command()
def show(
    conversation: Annotated[str, typer.Argument(help="its id", metavar="ID")],
    bootstrap: Annotated[str | None, typer.Option(help="brokers [EMOTRACK_BOOTSTRAP]")] = None,
    topic_prefix: Annotated[
        str | None, typer.Option(help="prefix of the four topics [EMOTRACK_TOPIC_PREFIX]")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="where states lie [EMOTRACK_REDIS_URL]")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="the workers' checkpoint [EMOTRACK_MODEL, shipped]")
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="only there; none: all")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show a conversation's state: session, window, speakers, position, what waits to be sent.

    No text is stored, so none is shown. Changes nothing.
    """
    from stream.serve import load_model
    from stream.triage.conversation import as_data, find
    from stream.triage.conversation import show as show_state

    settings = load_settings(
        {
            "bootstrap": bootstrap,
            "topic_prefix": topic_prefix,
            "redis_url": redis_url,
            "model": model,
        }
    )
    spec = load_model(settings).spec
    told = as_data(find(settings, spec, conversation, partition), spec)
    if json_out:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        show_state(told, Console(highlight=False))
