"""How far a long task of several parts is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a task (a few words) is: done, of about so many units in all, and what is known so far."""

    task: str
    done: int = 0
    total: int | None = None
    said: str = ""
    unit: str = "tokens"


OnProgress = Callable[[Progress], None] | None
