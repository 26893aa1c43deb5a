"""What a command writes is its own until it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

RUNNING: list[ExitStack] = []  # a command may carry out another: each holds folders of its own


@contextmanager
def holding() -> Iterator[None]:
    """Let go in the end of what `hold` holds meanwhile."""
    with ExitStack() as held:
        RUNNING.append(held)
        try:
            yield
        finally:
            RUNNING.pop()


def hold(*outs: Path | None) -> None:
    """Keep other processes from writing these folders until the command ends; None is left out.

    Raises ResultError where another process holds one.
    """
    from rectilinear.report.lock import locked

    for out in outs:
        if out is not None:
            RUNNING[-1].enter_context(locked(out))
