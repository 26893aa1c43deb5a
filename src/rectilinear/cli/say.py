"""What a command says: its answer on standard output, and beside it, on standard error, what became of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rectilinear.cli.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType


class Answer(Protocol):
    """What all results have."""

    def to_json(self) -> str:
        """Return the result's document."""


def answer(
    result: Answer,
    table: Callable[[Any], RenderableType],
    *,
    json: bool,
    place: Path | None = None,
    kind: str = "Report",
) -> None:
    """Print a result, as its document or as a table, and which page, or what else of a `kind`, lies at `place`."""
    if json:
        sys.stdout.write(result.to_json() + "\n")
    else:
        Console().print(table(result))
    if place is not None:
        note(f"{kind}: {place}")


def note(line: str, style: str | None = None) -> None:
    """Print a line on standard error, unbroken, with nothing in it taken for markup."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(line, markup=False, style=style)


def typed() -> str:
    """Return the command that runs, as a shell takes it."""
    return shlex.join(["rectilinear", *sys.argv[1:]])
