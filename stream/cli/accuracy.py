"""`emotrack accuracy`: train the models of docs/accuracy.md and write its tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from model.study.figures import hush_torch_geometric
from model.study.ledger import LEDGER, check_ledger, looks_at
from stream.cli.options import (
    Data,
    TrainingDevice,
    conversations_folder,
    model_errors,
    progress_bar,
)
from stream.errors import ConfigError

PAGE: Final = Path("docs/accuracy.md")


@model_errors()
def accuracy(
    data: Data = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="only these rows (repeat it): print their tables, write no page"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="models trained at once, a core each")] = 2,
    device: TrainingDevice = "cpu",
    runs: Annotated[Path, typer.Option(help="where runs are kept")] = Path("runs/accuracy"),
    page: Annotated[Path, typer.Option(help="where the tables go")] = PAGE,
    ledger: Annotated[Path, typer.Option(help="where looks at test are recorded")] = LEDGER,
) -> None:
    """Train every model of the accuracy study that is not trained yet and write its tables.

    Says first how long that takes. What was interrupted goes on where it was. Each model is chosen
    on dev; the main rows look at the test split once a seed, which the ledger records.
    """
    hush_torch_geometric()
    from model.study.rows import ROWS
    from model.study.run import hours, jobs_of, run_all

    check_ledger(ledger)
    folder = conversations_folder(data)
    named = {row.name: row for row in ROWS}
    for name in only or ():
        if name not in named:
            raise ConfigError(f"no row {name}: there are {', '.join(named)}")
    rows = [row for row in ROWS if not only or row.name in only]
    jobs = jobs_of(rows, folder, runs, device)
    open_jobs = sum(not job.done for job in jobs)
    console = Console()
    console.print(
        f"{len(jobs)} models, {open_jobs} to train: about {hours(jobs, workers):.1f} hours with "
        f"{workers} at once (as seen on a shared 2-core AMD EPYC)"
    )
    columns = MofNCompleteColumn(), TimeElapsedColumn()
    with progress_bar("training", *columns, total=len(jobs)) as progress:
        for done, job in enumerate(run_all(jobs, workers, ledger), start=1):
            progress(done, description=f"done: {job.folder.name}")
    from model.study.page import by_split, whole_page

    if only:
        typer.echo(by_split(rows, runs))
        return
    text = whole_page(runs, looks=looks_at(ledger), today=datetime.now(UTC).date())
    page.write_text(text, "utf-8")
    console.print(f"tables: {page}")
