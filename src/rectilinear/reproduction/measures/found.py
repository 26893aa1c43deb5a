"""What a measure finds, and how it reads the folders of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from rectilinear.report.evaluation import DOCUMENT as EVAL
from rectilinear.report.folder import read_document
from rectilinear.results import EvalResult, Plot, PlotCurve, Spread

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """Values and the figure of one part.

    values: by name, the recipe's or, where it knows none, the table's. xlabel, log: of the horizontal axis. notes:
    plain sentences.
    """

    values: dict[str, Spread | None]
    plots: tuple[Plot, ...] = ()
    xlabel: str = ""
    log: bool = False
    notes: tuple[str, ...] = ()


def loaded(folders: Sequence[Path], document: str, load: Callable[[Path], T]) -> list[T]:
    """Return the results of those folders that hold a document of this name."""
    return [load(folder) for folder in folders if (folder / document).is_file()]


def evaluations(folders: Sequence[Path]) -> list[EvalResult]:
    """Return the evaluations among the folders; raises ResultError for a damaged one."""
    return loaded(folders, EVAL, lambda folder: EvalResult.from_dict(read_document(folder, EVAL, "eval")[1]))


def spreads(values: Mapping[str, float | None]) -> dict[str, Spread | None]:
    """Return numbers as spreads without a deviation."""
    return {name: None if value is None else Spread(float(value)) for name, value in values.items()}


def curve(label: str, x: Iterable[float], y: Iterable[float | None], *, dashed: bool = False) -> PlotCurve:
    """Return a curve of plain numbers."""
    return PlotCurve(label, tuple(map(float, x)), tuple(None if v is None else float(v) for v in y), dashed)


def correlation(values: Sequence[float]) -> float | None:
    """Return the rank correlation (Spearman's) of values with their order; None for fewer than three or equal ones."""
    if len(values) < 3 or len(set(values)) == 1:
        return None
    ordered = np.sort(np.array(values))
    ranks = [(np.searchsorted(ordered, v, "left") + np.searchsorted(ordered, v, "right") - 1) / 2 for v in values]
    return float(np.corrcoef(np.arange(len(values)), ranks)[0, 1])
