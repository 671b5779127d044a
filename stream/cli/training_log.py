"""`emotrack train` while it runs: a bar on a terminal, elsewhere a line an epoch."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from model.training.progress import Epoch, Listener

if TYPE_CHECKING:
    from model.training.tensorboard import Board

TERMINATED: Final = 128 + signal.SIGTERM


class Log:
    """Sentences about one run; `say` prints one, `now` is a clock in seconds."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self._say, self._now = say, now
        self._phase = "reading the data"
        self._epochs, self._history = 0, list[Epoch]()
        self._share = self._share_at_first = 0.0
        self._began = now()

    def phase(self, name: str) -> None:
        """Note what is done from now on."""
        self._phase, self._share = name, 0.0
        self._say(f"{name} …")

    def begin(self, epochs: int, done: Sequence[Epoch]) -> None:
        """Say that epochs are about to run, and which an interrupted run has done already."""
        self._epochs, self._history = epochs, list(done)
        self._began = self._now()
        self._share_at_first = -1.0 if done else 0.0
        if done:
            self._say(
                f"resuming: {_epochs(len(done))} of at most {epochs} done before, best dev "
                f"weighted F1 {100 * self._best.dev_weighted_f1:.1f} % in epoch {self._best.number}"
            )

    def share(self, share: float) -> None:
        """Note the share of the phase that is done."""
        if self._share_at_first < 0:  # the first step of this process
            self._share_at_first = share
        self._share = share

    def epoch(self, epoch: Epoch) -> None:
        """Say one epoch's numbers, the best so far, and the time that is left at most."""
        self._history.append(epoch)
        self._say(
            f"epoch {epoch.number} of at most {self._epochs}: train loss {epoch.train_loss:.3f}, "
            f"dev loss {epoch.dev_loss:.3f}, dev weighted F1 {100 * epoch.dev_weighted_f1:.1f} %, "
            f"best {100 * self._best.dev_weighted_f1:.1f} % in epoch {self._best.number}, "
            f"{self._left()}"
        )

    @property
    def interruption(self) -> str:
        """A sentence for a run that ends here and now."""
        done = len(self._history)
        if not self._epochs:
            return f"interrupted while {self._phase}: run the same command again to start anew"
        if not done:
            return "interrupted in epoch 1, before anything was saved: run the same command again"
        over = done == self._epochs or self._share >= 1.0
        where = "after the last epoch" if over else f"in epoch {done + 1}"
        return f"interrupted {where}: run the same command again, and it goes on after epoch {done}"

    @property
    def _best(self) -> Epoch:
        return max(self._history, key=lambda epoch: (epoch.dev_weighted_f1, -epoch.number))

    def _left(self) -> str:
        done = self._share - max(0.0, self._share_at_first)
        if self._share >= 1.0 or done <= 0:
            return "nothing left" if self._share >= 1.0 else "time left unknown"
        seconds = (self._now() - self._began) * (1 - self._share) / done
        return f"at most {_duration(seconds)} left"


@contextmanager
def followed(notes: Sequence[str], board: Board | None = None) -> Iterator[Listener]:
    """Yield a listener that tells a person on stderr how a training goes, after the notes.

    Ctrl-C and SIGTERM end it with a sentence that says what was saved.
    """
    console = Console(stderr=True)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    shown = _bar if console.is_terminal else _lines
    with shown(console) as (log, listener), _terminable():
        try:
            yield _with_board(listener, board)
        except (KeyboardInterrupt, SystemExit):
            console.print(log.interruption, highlight=False, soft_wrap=True)
            raise
        finally:
            if board is not None:
                board.close()


@contextmanager
def _lines(_: Console) -> Iterator[tuple[Log, Listener]]:
    log = Log(lambda line: print(line, file=sys.stderr, flush=True), time.monotonic)
    yield log, Listener(log.begin, log.phase, log.share, log.epoch)


@contextmanager
def _bar(console: Console) -> Iterator[tuple[Log, Listener]]:
    """Show a bar with the phase, the share done and the last epoch's score."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        task = progress.add_task("reading", total=1.0, note="")
        quiet = Log(lambda _: None, time.monotonic)
        loud = Log(progress.console.print, time.monotonic)  # of the resumption alone

        def on_begin(epochs: int, done: Sequence[Epoch]) -> None:
            quiet.begin(epochs, done)
            loud.begin(epochs, done)

        def on_phase(phase: str) -> None:
            quiet.phase(phase)
            progress.reset(task, description=phase)

        def on_share(share: float) -> None:
            progress.update(task, completed=share)

        def on_epoch(epoch: Epoch) -> None:
            quiet.epoch(epoch)
            note = f"epoch {epoch.number}: dev weighted F1 {100 * epoch.dev_weighted_f1:.1f} %"
            progress.update(task, note=note)

        yield quiet, Listener(on_begin, on_phase, on_share, on_epoch)


def _with_board(listener: Listener, board: Board | None) -> Listener:
    if board is None:
        return listener

    def on_begin(epochs: int, done: Sequence[Epoch]) -> None:
        board.add(done)  # of an interrupted run: its files may lack the last ones
        listener.on_begin(epochs, done)

    def on_epoch(epoch: Epoch) -> None:
        board.add([epoch])
        listener.on_epoch(epoch)

    return Listener(on_begin, listener.on_phase, listener.on_share, on_epoch)


def open_board(folder: Path | None, run: Path) -> Board | None:
    """Return TensorBoard's files of the run of this name below a folder; None where not asked."""
    if folder is None:
        return None
    from model.training.tensorboard import Board

    return Board(folder / run)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, by which a scheduler ends a job, raise SystemExit in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
