"""The progress bars of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn


@contextmanager
def progress_bar(
    title: str,
    *columns: ProgressColumn,
    total: int | None = None,
    transient: bool = False,
) -> Iterator[Callable[..., None]]:
    """Show a progress bar on a terminal's stderr, nothing elsewhere; `columns` come after the bar.

    Yields a function that takes the count so far and, once it is known, the total.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *(columns or (MofNCompleteColumn(),)),
        console=console,
        disable=not console.is_terminal,
        transient=transient,
    ) as progress:
        task = progress.add_task(title, total=total)

        def update(done: int, of: int | None = total) -> None:
            progress.update(task, completed=done, total=of)

        yield update
