"""What a long command shows while it works; nothing where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rectilinear.cli.console import Console
from rectilinear.cli.say import note


class Show(Protocol):
    """What `progress_bar` gives."""

    def __call__(self, task: str, done: int, total: int | None, said: str, unit: str = ..., /) -> None:
        """Show a task, how many `unit`s of it are done, of total or None, and what is known so far."""


@contextmanager
def progress_bar(console: Console, unit: str = "tokens") -> Iterator[Show]:
    """Give a function that shows how far a task is, in `unit`s where it is not told others, with rate and time.

    A fifth argument names another unit for a task. Another task than before starts the clock again. On
    anything but a terminal the function does nothing.
    """
    if not console.is_terminal:
        yield lambda task, done, total, said, unit=unit: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}{task.fields[rate]}{task.fields[said]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task("", total=None, count="", rate="", said="")

        def show(task: str, done: int, total: int | None, said: str, unit: str = unit) -> None:
            if bar.tasks[0].description != task:
                bar.reset(line, total=total, description=task)
            bar.update(line, total=total, completed=done)
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            rate = f" · {speed:,.{0 if speed >= 10 else 1}f} {unit}/s" if speed else ""
            count = "" if total is None else f"{done:,}/{total:,} {unit}"
            bar.update(line, count=count, rate=rate, said=f" · {said}" if said else "")

        yield show


@contextmanager
def hint(kept: Callable[[], str]) -> Iterator[None]:
    """Say on standard error, on an interrupt or a SIGTERM, what there is to go on from, if `kept` returns anything."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if said := kept():
            note(said)
        raise
