"""Linear probes: the folder, the figure (in the form of Figure 5 of the paper) and the table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.files import into
from rectilinear.report.chart import Curve, Panel, stacked
from rectilinear.report.folder import PAGE, PLOTS, TABLE, read_document, table_csv, write_figures, write_folder
from rectilinear.report.html import probe_page
from rectilinear.report.plots import DASHED, values_of
from rectilinear.report.shapes import CYCLE, SOFT, Drawing
from rectilinear.report.text import between, plain, share, sparkline, visible
from rectilinear.results import ProbeCurve, ProbePoint, ProbeResult

DOCUMENT = "probe.json"
SHOWN = 2  # models whose intervals fit beside each other in a terminal


def save_probe(result: ProbeResult, out: Path, *, force: bool = False) -> Path:
    """Write probe.json, layers.csv, the plot and report.html to the folder `out`; return it.

    Raises ResultError as `folder.save` does.
    """

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        _draw(result, folder, png=True)

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def load_probe(path: str | Path) -> ProbeResult:
    """Read a folder written by `save_probe`, or its probe.json.

    Raises ResultError where it is missing, damaged or of another schema.
    """
    return ProbeResult.from_dict(read_document(path, DOCUMENT, "probe")[1])


def render_probe(result: ProbeResult, folder: Path, *, png: bool = False) -> None:
    """Write table, plot and page into an existing folder; raises ResultError where that fails."""
    with into(folder) as part:
        _draw(result, part, png=png)


def _draw(result: ProbeResult, folder: Path, *, png: bool) -> None:
    figures = {"probe": probe_figure(result)}
    write_figures(figures, folder / PLOTS, png=png)
    (folder / TABLE).write_text(table_csv(probe_rows(result)), encoding="utf-8")
    (folder / PAGE).write_text(probe_page(result, figures), encoding="utf-8")


def probe_rows(result: ProbeResult) -> list[dict[str, Any]]:
    """Return one row a model and position."""
    return [{"model": visible(curve.name), **asdict(point)} for curve in result.curves for point in curve.points]


def probe_figure(result: ProbeResult) -> Drawing:
    """Draw accuracy with its interval over the stream's positions, a curve a model; over depth where depths differ."""
    lengths = {len(curve.points) for curve in result.curves}
    same = len(lengths) == 1
    curves = [_curve(curve, index, same) for index, curve in enumerate(result.curves)]
    ends = (-0.5, max(lengths) - 0.5) if same else (-0.02, 1.02)
    x = np.array([curves[0].x[0], curves[0].x[-1]])
    usual = Curve(x, np.full(2, result.majority), SOFT, "more frequent class", marker="", dash=DASHED)
    title = f"Accuracy on {result.task['test']:,} test examples, 95 % interval"
    where = "position of the stream (0: embedding)" if same else "normalised depth (position / last position)"
    return stacked([Panel(title, [usual, *curves])], where, ends, 360, whole=same, legend=[*curves, usual])


def _curve(curve: ProbeCurve, index: int, same: bool) -> Curve:
    positions = np.array([point.position for point in curve.points], dtype=float)
    accuracy, low, high = (
        values_of(getattr(point, name) for point in curve.points) for name in ("accuracy", "low", "high")
    )
    x = positions if same else positions / max(positions[-1], 1)
    return Curve(x, accuracy, CYCLE[index % len(CYCLE)], curve.name, band=(low, high))


def probe_table(result: ProbeResult) -> RenderableType:
    """Return one row a position, a column a model, then best and mean; intervals where there is room."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("position", justify="right", no_wrap=True)
    room = len(result.curves) <= SHOWN
    for curve in result.curves:
        table.add_column(Text(plain(curve.name, 24)), justify="right", no_wrap=True)
    for position in range(max(len(curve.points) for curve in result.curves)):
        points = [curve.points[position] if position < len(curve.points) else None for curve in result.curves]
        table.add_row(str(position), *(_cell(point, room) for point in points))
    task = result.task
    where = "the last token" if result.provenance.get("pooling") == "last" else "the mean of all tokens"
    return Group(
        Text.assemble(
            (f"{visible(task['name'])}: {visible(task['labels'][0])} or {visible(task['labels'][1])}", "bold"),
            f", by a linear probe of {where} at every position",
        ),
        Text(
            f"learnt from {task['train']:,} examples, judged on {task['test']:,}; the more frequent class alone gets "
            f"{result.majority:.3f}\n",
            "dim",
        ),
        table,
        Text(""),
        *(Text(line) for curve in result.curves for line in verdict(result, curve)),
        *(Text(f"! {visible(note)}", style="yellow") for note in result.warnings),
    )


def verdict(result: ProbeResult, curve: ProbeCurve) -> list[str]:
    """Return what a model's probes come to, and how they stand to the first model's."""
    best, low = curve.best, min(point.accuracy for point in curve.points)
    span = best.accuracy - low or 1.0
    shape = sparkline([(point.accuracy - low) / span for point in curve.points], 40)
    lines = [
        f"{plain(curve.name, 40)} {shape} best {best.accuracy:.3f} "
        f"({between(best.low, best.high, share)}) at position {best.position}, mean {curve.mean:.3f}"
    ]
    if curve.gap is not None:
        gap = between(curve.gap_low, curve.gap_high, _gap)
        lines.append(f"  mean against {plain(result.curves[0].name, 32)}: {curve.gap:+.3f} ({gap})")
    return lines


def _gap(value: float) -> str:
    return f"{value:+.3f}"


def _cell(point: ProbePoint | None, room: bool) -> str:
    if point is None:
        return ""
    return f"{point.accuracy:.3f}  {between(point.low, point.high, share)}" if room else f"{point.accuracy:.3f}"
