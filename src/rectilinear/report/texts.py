"""Several texts side by side: the folder, the page and the table of a scan on each."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.errors import ResultError
from rectilinear.report.folder import PLOTS, fill, write_figures, write_folder
from rectilinear.report.html import texts_page
from rectilinear.report.plots import overlay
from rectilinear.report.text import number, plain
from rectilinear.results import TextsResult

DOCUMENT, TABLE, PAGE = "texts.json", "transfer.csv", "texts.html"
COLUMNS = ("kind", "tokens", "layer", "source", "target", "score")


def save_texts(result: TextsResult, out: Path, *, force: bool = False) -> Path:
    """Write texts.json, transfer.csv, plots, texts.html and the folder of each scan to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, where it cannot be written, or where a text's name is none
    for a folder; nothing half-written stays.
    """
    for name in result.names:
        if not re.fullmatch(r"[\w][\w.-]*", name) or name == PLOTS:
            raise ResultError(f"expected names of texts that a folder can have (letters, digits, . _ -), got {name!r}")

    def write(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(transfer_rows(result))
        figures = {"overlay": overlay(list(result.results.values()), result.names)}
        write_figures(figures, folder / PLOTS, png=True)
        (folder / PAGE).write_text(texts_page(result, figures), encoding="utf-8")
        for name, scan in result.results.items():
            (folder / name).mkdir()
            fill(scan, folder / name)

    return write_folder(out, write, force=force, marker=DOCUMENT)


def transfer_rows(result: TextsResult) -> list[dict[str, Any]]:
    """Return one row a score of the maps of one text (source) on another (target)."""
    return [
        dict(zip(COLUMNS, (kind, tokens, layer, source, target, value), strict=True))
        for kind, tables in result.transfer.items()
        for tokens, layers in tables.items()
        for layer, table in enumerate(layers)
        for source, row in zip(result.names, table, strict=True)
        for target, value in zip(result.names, row, strict=True)
    ]


def transfer_table(result: TextsResult) -> RenderableType:
    """Return the mean increment score of each text's maps on each text, ordinary tokens."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("maps fitted on")
    for name in result.names:
        table.add_column(plain(name, 20), justify="right", no_wrap=True)
    for name, row in zip(result.names, result.means("increment", "ordinary"), strict=True):
        cells = [
            f"[bold]{number(v)}[/]" if other == name else number(v) for other, v in zip(result.names, row, strict=True)
        ]
        table.add_row(Text(plain(name, 20)), *cells)
    return Group(
        Text("Increment score, ordinary tokens, mean over layers: maps of one text (row) on another (column)\n"),
        table,
        Text("\nBold: on unseen documents of the text that they were fitted on", "dim"),
    )
