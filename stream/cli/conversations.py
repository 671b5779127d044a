"""`emotrack conversations show`: show the stored state of one conversation."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from stream.cli.options import AsJson, Bootstrap, Model, Prefix, RedisUrl, settings_of

app = typer.Typer()


@app.callback()
def options() -> None:
    """Stored states of conversations."""


@app.command()
def show(
    context: typer.Context,
    conversation: Annotated[str, typer.Argument(help="its id", metavar="ID")],
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    redis_url: RedisUrl = None,
    model: Model = None,
    partition: Annotated[int | None, typer.Option(min=0, help="only there; none: all")] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="show the ids of speakers and utterances")
    ] = False,
    json_out: AsJson = False,
) -> None:
    """Show a conversation's state: session, window, speakers, position, what waits to be sent.

    No text is stored, so none is shown. Ids of speakers and utterances are numbered instead of
    shown, unless --ids is given: producers put names and addresses there. Changes nothing.
    """
    from stream.serve import load_model
    from stream.triage.conversation import as_data, find, masked, print_state

    settings = settings_of(context)
    spec = load_model(settings).spec
    state = as_data(find(settings, spec, conversation, partition), spec)
    if not ids:
        state = masked(state)
    if json_out:
        typer.echo(json.dumps(state, indent=2, ensure_ascii=False))
    else:
        print_state(state, Console(highlight=False))
