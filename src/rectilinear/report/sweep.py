"""A sweep as table, plot (Figures 6 and 7 of the paper, for any model) and page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from rectilinear.core.spans import in_words
from rectilinear.report.chart import Curve, Panel, stacked
from rectilinear.report.folder import PLOTS, write_figures, write_folder
from rectilinear.report.html import sweep_page
from rectilinear.report.plots import CYCLE, DASHED, DOTTED
from rectilinear.report.shapes import Drawing
from rectilinear.results import Point, SweepResult

DOCUMENT = "sweep.json"
COLUMNS = ("select", "repair", "changed", "perplexity", "ratio", "kl", "parameters", "prefill_tokens_per_s", "layers")


def save_sweep(result: SweepResult, out: Path, *, force: bool = False) -> Path:
    """Write sweep.json, sweep.csv, the plot and sweep.html to the folder `out`, whole or not at all; return it.

    Raises ResultError as `folder.save` does.
    """

    def fill(folder: Path) -> None:
        figures = {"sweep": sweep_figure(result)}
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        (folder / "sweep.csv").write_text(sweep_csv(result), encoding="utf-8")
        write_figures(figures, folder / PLOTS, png=True)
        (folder / "sweep.html").write_text(sweep_page(result, figures), encoding="utf-8")

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def sweep_csv(result: SweepResult) -> str:
    """Return one line a cut, the dense model first."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sweep_rows(result))
    return stream.getvalue()


def sweep_rows(result: SweepResult) -> list[dict[str, Any]]:
    """Return one row a cut, the dense model first; layers as in "12 13 20"."""
    rows = []
    for p in (result.dense, *result.points):
        figures = (p.loss.perplexity, p.ratio, p.loss.kl, p.parameters, p.prefill)
        cells = (p.select, p.repair, len(p.remove), *figures, " ".join(map(str, p.remove)))
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def sweep_table(result: SweepResult) -> Table:
    """Return one row a cut, the best perplexity for each number of layers in bold."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in ("select", "repair"):
        table.add_column(name, no_wrap=True)
    for name in ("changed", "perplexity", "ratio", "KL", "parameters", "tokens/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("layers", style="dim", overflow="fold")
    for point, best in _rows(result):
        table.add_row(
            point.select,
            point.repair,
            str(len(point.remove)),
            f"{point.loss.perplexity:.2f}",
            f"{point.ratio:.3f}",
            f"{point.loss.kl:.4f}",
            f"{point.parameters / 1e6:.1f} M",
            f"{point.prefill:.0f}",
            in_words(point.remove).rsplit(",", 1)[0] if point.remove else "",
            style="bold" if best else None,
        )
    return table


def sweep_figure(result: SweepResult) -> Drawing:
    """Draw perplexity and KL over the number of layers changed, a curve for each selector with each repair."""
    panels = []
    for title, pick in (("Perplexity", lambda p: p.loss.perplexity), ("KL(dense || cut), nats a token", _kl)):
        curves = []
        for index, kind in enumerate(result.kinds):
            points = result.curve(*kind)
            curves.append(
                Curve(
                    np.array([len(p.remove) for p in points], dtype=float),
                    np.array([pick(p) for p in points]),
                    CYCLE[index % len(CYCLE)],
                    " + ".join(kind),
                    dash=((), DASHED, DOTTED)[index // len(CYCLE) % 3],
                )
            )
        panels.append(Panel(title, curves, log=True))
    most = max(len(p.remove) for p in result.points)
    return stacked(panels, "layers changed", (-0.3, most + 0.3), 240, legend=panels[0].curves)


def _kl(point: Point) -> float:
    return point.loss.kl or float("nan")  # the dense model has no place on a logarithmic axis


def _rows(result: SweepResult) -> Iterator[tuple[Point, bool]]:
    """Yield the points by number of layers changed, and whether each is the best of its number."""
    yield result.dense, False
    for count in sorted({len(p.remove) for p in result.points}):
        points = [p for p in result.points if len(p.remove) == count]
        best = min(points, key=lambda p: p.loss.perplexity)
        for point in points:
            yield point, point is best and len(points) > 1
