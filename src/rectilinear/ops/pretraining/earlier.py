"""The run that a new one replaces: kept beside it until the new one has something that one could go on from."""

from __future__ import annotations

import shutil
from pathlib import Path

from rectilinear.ops.training.saving import has_checkpoint
from rectilinear.results.pretraining import DOCUMENT


def put_aside(folder: Path) -> None:
    """Move an earlier run out of a new one's way; raises OSError."""
    if folder.is_dir():
        folder.rename(_aside(folder))


def let_go(folder: Path) -> None:
    """Remove the earlier run where the new one has a checkpoint or is done; costs a look for it where it is gone."""
    before = _aside(folder)
    if before.is_dir() and has_own(folder):
        shutil.rmtree(before, ignore_errors=True)


def settle(folder: Path) -> None:
    """Let go of the earlier run where the new one has a checkpoint or is done; else put it back in its place.

    To be called when a run has ended, and before one starts: a run that was killed has not called it.
    """
    let_go(folder)
    before = _aside(folder)
    if before.is_dir() and not has_own(folder):
        shutil.rmtree(folder, ignore_errors=True)
        before.rename(folder)


def has_own(folder: Path) -> bool:
    """Tell whether a run is done, or can be resumed."""
    return (folder / DOCUMENT).is_file() or has_checkpoint(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.before")
