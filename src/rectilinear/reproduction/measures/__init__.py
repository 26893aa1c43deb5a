"""What recipes measure: functions from the folders of finished runs to values and a figure in the paper's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rectilinear.reproduction.measures import depth, models, scans, training
from rectilinear.reproduction.measures.found import Found

# A function of the folders of a recipe's runs, and of the recipe's options; folders of other kinds it leaves alone.
MEASURES: dict[str, Callable[..., Found]] = {
    "linearity": scans.linearity,
    "contributions": scans.contributions,
    "tails": scans.tails,
    "checkpoints": training.checkpoints,
    "regularised": training.regularised,
    "probes": models.probes,
    "finetuned": training.finetuned,
    "tasks": models.tasks,
    "grades": models.grades,
    "depth": depth.depth,
}


def measured(name: str, folders: Sequence[Path], options: dict[str, object]) -> Found:
    """Return what a measure finds in the folders; raises ResultError for one that is damaged."""
    return MEASURES[name](folders, **options)
