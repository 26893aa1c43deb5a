"""Saved results of every kind, read back and drawn again without the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from rectilinear.errors import ResultError
from rectilinear.report import delta, probe
from rectilinear.report.folder import load, read_document, render
from rectilinear.report.terminal import layers_table
from rectilinear.results import DeltaResult, ProbeResult


@dataclass(frozen=True)
class Kind:
    """How a kind of result is read from its document, drawn into a folder, and shown in a terminal."""

    read: Callable[[dict[str, Any]], Any]
    draw: Callable[..., None]
    table: Callable[[Any], RenderableType]


KINDS = {  # by the name of the document
    delta.DOCUMENT: Kind(DeltaResult.from_dict, delta.draw, delta.delta_table),
    probe.DOCUMENT: Kind(ProbeResult.from_dict, probe.draw, probe.probe_table),
}


def redraw(path: Path, *, png: bool) -> tuple[Any, RenderableType]:
    """Draw plots, table and page of the result in a folder (or of its document) again; return it and its table.

    The plots are SVG and, with `png`, PNG too. Raises ResultError where it is missing or damaged, or where the folder
    cannot be written.
    """
    for name, kind in KINDS.items():
        file = path if path.name == name else path / name
        if file.is_file():
            result = kind.read(read_document(file))
            try:
                kind.draw(result, file.parent, png=png)
            except OSError as error:
                raise ResultError(f"cannot write {file.parent}: {error.strerror or error}") from error
            return result, kind.table(result)
    scan = load(path)
    render(scan, path if path.is_dir() else path.parent, png=png)
    return scan, layers_table(scan)
