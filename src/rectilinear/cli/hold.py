"""What a command writes is its own until it ends."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

HELD = ExitStack()  # by the command that runs, which closes it at its end


def hold(*outs: Path | None) -> None:
    """Keep other processes from writing these folders until the command ends; None is left out.

    Raises ResultError where another process holds one.
    """
    from rectilinear.report.lock import locked

    for out in outs:
        if out is not None:
            HELD.enter_context(locked(out))
