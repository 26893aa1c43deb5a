"""What changed between two models: the folder, the figure (in the form of Figure 1 of the paper) and the table."""

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
from rectilinear.report.html import delta_page
from rectilinear.report.plots import DASHED, score_limits, values_of
from rectilinear.report.shapes import BLUE, ORANGE, RED, SOFT, Drawing
from rectilinear.report.text import between, number, plain, signed, visible
from rectilinear.results import Change, Changes, DeltaResult

DOCUMENT = "delta.json"
TITLES = {"increment": "Increment score (without residual)", "score": "Score (with residual)"}
COLOURS = {"heldout": BLUE, "ordinary": ORANGE}


def save_delta(result: DeltaResult, out: Path, *, force: bool = False) -> Path:
    """Write delta.json, layers.csv, the plot and report.html to the folder `out`; return it.

    Raises ResultError as `folder.save` does.
    """

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        _draw(result, folder, png=True)

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def load_delta(path: str | Path) -> DeltaResult:
    """Read a folder written by `save_delta`, or its delta.json.

    Raises ResultError where it is missing, damaged or of another schema.
    """
    return DeltaResult.from_dict(read_document(path, DOCUMENT, "delta")[1])


def render_delta(result: DeltaResult, folder: Path, *, png: bool = False) -> None:
    """Write table, plot and page into an existing folder; raises ResultError where that fails."""
    with into(folder) as part:
        _draw(result, part, png=png)


def _draw(result: DeltaResult, folder: Path, *, png: bool) -> None:
    figures = {"delta": delta_figure(result)}
    write_figures(figures, folder / PLOTS, png=png)
    (folder / TABLE).write_text(table_csv(delta_rows(result)), encoding="utf-8")
    (folder / PAGE).write_text(delta_page(result, figures), encoding="utf-8")


def delta_rows(result: DeltaResult) -> list[dict[str, Any]]:
    """Return one row a layer, with columns like `increment_heldout_delta`."""
    rows = []
    for layer in result.layers:
        parts = {name: asdict(getattr(layer, name)) for name in ("score", "increment")}
        cells = {
            f"{name}_{kind}_{part}": value
            for name, kinds in parts.items()
            for kind, change in kinds.items()
            for part, value in change.items()
        }
        rows.append({"layer": layer.layer, **cells})
    return rows


def delta_figure(result: DeltaResult) -> Drawing:
    """Draw both models' curves, increment score first, and below each the change with its interval.

    Ordinary tokens are left out where they are all tokens: their curve would hide the other.
    """
    x = np.array([layer.layer for layer in result.layers])
    panels, zero = [], Curve(x, np.zeros(len(x)), SOFT, marker="")
    for name, title in TITLES.items():
        changes: list[Changes] = [getattr(layer, name) for layer in result.layers]
        kinds = [kind for kind in COLOURS if kind == "heldout" or any(one.ordinary != one.heldout for one in changes)]
        curves = [curve for kind in kinds for curve in _pair(x, changes, kind)]
        moved = x[[change.heldout.moved for change in changes]]
        marks = Curve(moved, moved, RED, "held-out change is more than noise", marker="diamond", lined=False)
        panels.append(Panel(title, curves, score_limits([curve.y for curve in curves])))
        gaps = [zero, *(_gap(x, changes, kind) for kind in kinds)]
        panels.append(Panel("Its change, after − before, 95 % interval", gaps, marks=marks))
    return stacked(panels, "layer", (x[0] - 0.5, x[-1] + 0.5), 170, legend=[*panels[0].curves, marks])


def _pair(x: np.ndarray, changes: list[Changes], kind: str) -> tuple[Curve, Curve]:
    of: list[Change] = [getattr(change, kind) for change in changes]
    label = "held-out" if kind == "heldout" else kind
    before, after = values_of(change.before for change in of), values_of(change.after for change in of)
    return (
        Curve(x, before, COLOURS[kind], f"{label}, before", marker="", dash=DASHED),
        Curve(x, after, COLOURS[kind], f"{label}, after", marker="dot" if kind == "heldout" else "square"),
    )


def _gap(x: np.ndarray, changes: list[Changes], kind: str) -> Curve:
    of: list[Change] = [getattr(change, kind) for change in changes]
    delta, low, high = (values_of(getattr(change, part) for change in of) for part in ("delta", "low", "high"))
    return Curve(x, delta, COLOURS[kind], marker="dot" if kind == "heldout" else "square", band=(low, high))


def delta_table(result: DeltaResult) -> RenderableType:
    """Return the means with their intervals, then one row a layer; `*` marks changes that are more than noise."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1), collapse_padding=True)
    for name in ("layer", "before", "held-out", "95 %", "ordinary", "95 %", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in result.layers:
        table.add_row(str(layer.layer), *_cells(layer.increment, layer.score))
    table.add_section()
    table.add_row("mean", *_cells(result.mean["increment"], result.mean["score"]), style="bold")
    facts, count = result.provenance, len(result.layers)
    moved = [sum(getattr(layer.increment, kind).moved for layer in result.layers) for kind in COLOURS]
    return Group(
        Text.assemble((plain(result.before.get("model")), "bold"), " → ", (plain(result.after.get("model")), "bold")),
        Text(f"on {visible(facts.get('text'))}, {facts.get('tokens_heldout') or 0:,} tokens held out\n", "dim"),
        *(Text(verdict(result, kind)) for kind in COLOURS),
        Text("\nChange of the increment score, held-out and ordinary, and of the score, held-out", "dim"),
        table,
        Text(
            f"* more than noise, by the 95 % interval over documents: {moved[0]} and {moved[1]} of {count} layers",
            "dim",
        ),
        *(Text(f"! {visible(note)}", style="yellow") for note in result.warnings),
    )


def verdict(result: DeltaResult, kind: str) -> str:
    """Return how the mean increment score changed, "heldout" or "ordinary", and whether that is more than noise."""
    change: Change = getattr(result.mean["increment"], kind)
    says = "more than noise" if change.moved else "no more than noise"
    return (
        f"{'held-out' if kind == 'heldout' else kind} {number(change.before)} → {number(change.after)}: "
        f"{signed(change.delta)} ({between(change.low, change.high)}), {says}"
    )


def _cells(increment: Changes, score: Changes) -> list[str]:
    held, ordinary = increment.heldout, increment.ordinary
    return [
        number(held.before),
        *(_marked(held), between(held.low, held.high)),
        *(_marked(ordinary), between(ordinary.low, ordinary.high)),
        _marked(score.heldout),
    ]


def _marked(change: Change) -> str:
    return signed(change.delta) + ("*" if change.moved else " ")
