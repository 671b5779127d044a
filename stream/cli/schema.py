"""`emotrack schema`: JSON Schemas of the events, AsyncAPI of the topics."""

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
    from stream.events.schemas import as_text, documents

    if target == "-":
        typer.echo(as_text(documents()), nl=False)
        return
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        path = folder / f"{name}.json"
        path.write_text(as_text(document), encoding="utf-8")
        typer.echo(str(path))
