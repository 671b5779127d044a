"""A progress bar for commands that take long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn


@contextmanager
def progress_bar(
    title: str, *columns: ProgressColumn, total: int | None = None, transient: bool = False
) -> Iterator[Callable[..., None]]:
    """Show a bar on a terminal's stderr, nothing elsewhere.

    Yields a function of the count so far, the total if it was not known, and a new description.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *(columns or [MofNCompleteColumn()]),
        console=console,
        disable=not console.is_terminal,
        transient=transient,
    ) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done, end=None, description=None: progress.update(
            task, completed=done, total=end, description=description
        )
