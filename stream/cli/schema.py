"""`emotrack schema`: write JSON Schemas of the events and the AsyncAPI document of the topics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

schema_app = typer.Typer(help="JSON Schemas of the events, AsyncAPI of the topics.")


@schema_app.command("export")
def export_schema(
    target: Annotated[str, typer.Argument(help="folder to write, - for standard output")] = "-",
) -> None:
    """Write the JSON Schema of each event type, and the AsyncAPI document of the topics."""
    import json

    from stream.events.asyncapi import document, document_text
    from stream.events.json_schema import EVENT_TYPES, export, schema_of

    if target == "-":
        every = {event_type: schema_of(event_type) for event_type in EVENT_TYPES}
        every["asyncapi"] = document()
        typer.echo(json.dumps(every, indent=2, ensure_ascii=False))
        return
    for path in export(Path(target), {"asyncapi.json": document_text()}):
        typer.echo(str(path))
