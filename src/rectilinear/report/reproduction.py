"""A reproduction as figures in the paper's form, tables of paper against measured, verdicts, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.files import into
from rectilinear.report.chart import Curve, Panel, stacked
from rectilinear.report.folder import PLOTS, read_document, table_csv, write_figures, write_folder
from rectilinear.report.grid import grid
from rectilinear.report.html import reproduction_page
from rectilinear.report.plots import CYCLE, DASHED, values_of
from rectilinear.report.scale import around
from rectilinear.report.shapes import Drawing
from rectilinear.report.text import plus_minus, visible
from rectilinear.results import FAILS, HOLDS, UNTESTABLE, Plot, Reproduced, ReproductionResult, Spread

DOCUMENT, PAGE = "reproduction.json", "reproduction.html"
COUNTED = {  # of one claim, and of several
    HOLDS: ("holds", "hold"),
    FAILS: ("does not hold", "do not hold"),
    UNTESTABLE: ("cannot be tested", "cannot be tested"),
}
STYLES = {HOLDS: "green", FAILS: "red"}
MANY = 4  # plots from which on they stand in a grid


def save_reproduction(result: ReproductionResult, out: Path, *, force: bool = False) -> Path:
    """Write reproduction.json, verdicts.csv, values.csv, plots and reproduction.html to the folder `out`; return it.

    Raises ResultError as `folder.save` does.
    """

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        _draw(result, folder, png=True)

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def load_reproduction(path: str | Path) -> ReproductionResult:
    """Read a folder written by `save_reproduction`, or its reproduction.json.

    Raises ResultError where it is missing, damaged or of another schema.
    """
    return ReproductionResult.from_dict(read_document(path, DOCUMENT, "reproduce")[1])


def render_reproduction(result: ReproductionResult, out: Path, *, png: bool = False) -> None:
    """Write tables, plots and page of a reproduction into its folder; raises ResultError where that fails."""
    with into(out) as part:
        _draw(result, part, png=png)


def _draw(result: ReproductionResult, folder: Path, *, png: bool) -> None:
    figures = {part.name: figure(part) for part in result.parts if part.plots}
    write_figures(figures, folder / PLOTS, png=png, titles={part.name: visible(part.title) for part in result.parts})
    (folder / "verdicts.csv").write_text(table_csv(verdict_rows(result)), encoding="utf-8")
    (folder / "values.csv").write_text(table_csv(value_rows(result)), encoding="utf-8")
    tables = {
        part.name: [(row.label, _cell(row.paper), _cell(row.measured)) for row in part.rows] for part in result.parts
    }
    (folder / PAGE).write_text(reproduction_page(result, figures, counted(result), tables), encoding="utf-8")


def verdict_rows(result: ReproductionResult) -> list[dict[str, str]]:
    """Return one row a claim."""
    return [
        {"part": part.name, "claim": one.claim, "verdict": one.verdict, "reason": one.reason}
        for part in result.parts
        for one in part.verdicts
    ]


def value_rows(result: ReproductionResult) -> list[dict[str, object]]:
    """Return one row a value, of the paper and as measured."""
    return [
        {"part": part.name, "value": row.label, **_cells("paper", row.paper), **_cells("measured", row.measured)}
        for part in result.parts
        for row in part.rows
    ]


def _cells(name: str, spread: Spread | None) -> dict[str, float | None]:
    return {name: spread.mean if spread else None, f"{name}_std": spread.std if spread else None}


def figure(part: Reproduced) -> Drawing:
    """Draw the plots of a part above each other or, where they are many, in a grid."""
    panels = _panels(part.plots)
    xs = [curve.x for panel in panels for curve in panel.curves]
    limits = around(xs, log=part.log)
    if len(panels) > MANY:
        return grid(panels, part.xlabel, limits, log=part.log)
    whole = all(np.equal(np.mod(x, 1), 0).all() for x in xs)
    height = 300 if len(panels) == 1 else 240
    return stacked(panels, part.xlabel, limits, height, whole=whole, log=part.log, legend=panels[0].curves)


def _panels(plots: Sequence[Plot]) -> list[Panel]:
    """Return the plots as panels; a curve keeps its colour in all, and a dashed one has that of the one before it."""
    panels = []
    for plot in plots:
        curves, colour = [], -1
        for one in plot.curves:
            colour += not one.dashed or colour < 0
            dash = DASHED if one.dashed else ()
            marker = "" if one.dashed else "dot"
            x, y = values_of(one.x), values_of(one.y)
            curves.append(Curve(x, y, CYCLE[colour % len(CYCLE)], one.label, marker=marker, dash=dash))
        panels.append(Panel(plot.title, curves, log=plot.log))
    return panels


def reproduction_table(result: ReproductionResult) -> RenderableType:
    """Return one row a claim: the verdict and the numbers that decide it."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("part", no_wrap=True)
    table.add_column("the paper says", overflow="fold", ratio=4)
    table.add_column("verdict", overflow="fold", min_width=9)
    table.add_column("because", overflow="fold", ratio=5)
    for part in result.parts:
        for index, one in enumerate(part.verdicts):
            verdict = Text(one.verdict, STYLES.get(one.verdict, "yellow"))
            name = Text("" if index else part.name, "bold")
            table.add_row(name, Text(visible(one.claim)), verdict, Text(visible(one.reason)))
    return Group(table, Text(f"\n{counted(result)}"))


def counted(result: ReproductionResult) -> str:
    """Return in a sentence how many claims hold, do not, and could not be tested."""
    every = [one.verdict for part in result.parts for one in part.verdicts]
    said = [f"{n} {words[n > 1]}" for verdict, words in COUNTED.items() if (n := every.count(verdict))]
    return f"Of {len(every)} claims at scale {result.scale}: {', '.join(said)}."


def _cell(spread: Spread | None) -> str:
    return "–" if spread is None else plus_minus(spread, _form)


def _form(value: float) -> str:
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4f}"
