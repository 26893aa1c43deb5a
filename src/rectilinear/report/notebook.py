"""Results in a notebook: a card of HTML, a matplotlib figure, a pandas table."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

from rectilinear.errors import ResultError, nearest
from rectilinear.report.delta import delta_figure, delta_rows, delta_table
from rectilinear.report.evaluation import eval_rows
from rectilinear.report.folder import layer_rows
from rectilinear.report.healing import heal_table
from rectilinear.report.heatmap import SHOWN, heat_map
from rectilinear.report.html import CAPTIONS
from rectilinear.report.judging import judging_rows, judging_table
from rectilinear.report.plots import overlay, scan_figures
from rectilinear.report.pretraining import pretrain_table
from rectilinear.report.probe import probe_figure, probe_rows, probe_table
from rectilinear.report.pruning import prune_rows, prune_table
from rectilinear.report.shapes import Drawing
from rectilinear.report.story import finding
from rectilinear.report.svg import svg
from rectilinear.report.sweep import sweep_figure, sweep_rows, sweep_table
from rectilinear.report.terminal import eval_table, layers_table
from rectilinear.report.texts import transfer_rows, transfer_table
from rectilinear.report.tokens import FIGURE, token_rows, tokens_table
from rectilinear.report.trace import trace_rows, trace_table
from rectilinear.report.training import trace_figures
from rectilinear.results import (
    DeltaResult,
    EvalResult,
    HealResult,
    JudgeResult,
    PretrainResult,
    ProbeResult,
    PruneResult,
    ScanResult,
    SweepResult,
    TextsResult,
    TokensResult,
    TraceResult,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

WIDTH = 100  # columns of a printed table
STYLE = "overflow-x:auto;line-height:1.3;font-size:12px"


@dataclass(frozen=True)
class View:
    """How one kind of result is printed, made into rows, and drawn: figures by name."""

    table: Callable[[Any], RenderableType]
    rows: Callable[[Any], Sequence[dict[str, Any]]]
    figures: Callable[[Any], dict[str, Drawing]] = lambda result: {}


VIEWS: dict[type, View] = {
    ScanResult: View(layers_table, layer_rows, scan_figures),
    TextsResult: View(
        transfer_table, transfer_rows, lambda texts: {"overlay": overlay(list(texts.results.values()), texts.names)}
    ),
    SweepResult: View(sweep_table, sweep_rows, lambda sweep: {"sweep": sweep_figure(sweep)}),
    TokensResult: View(tokens_table, token_rows, lambda prompt: {FIGURE: heat_map(prompt.tokens[-SHOWN:])}),
    TraceResult: View(trace_table, trace_rows, trace_figures),
    DeltaResult: View(delta_table, delta_rows, lambda change: {"delta": delta_figure(change)}),
    ProbeResult: View(probe_table, probe_rows, lambda probes: {"probe": probe_figure(probes)}),
    EvalResult: View(eval_table, eval_rows),
    JudgeResult: View(judging_table, judging_rows),
    PretrainResult: View(pretrain_table, lambda trained: trained.to_dict()["checkpoints"]),
    PruneResult: View(prune_table, prune_rows),
    HealResult: View(heal_table, lambda healed: healed.to_dict()["history"]),
}


def html(result: Any) -> str:
    """Return a result as a piece of HTML: its first figure where it has one, and its table, folded below that."""
    view = VIEWS[type(result)]
    printed = io.StringIO()
    Console(file=printed, width=WIDTH, color_system=None).print(view.table(result))
    table = f'<pre style="{STYLE}">{escape(printed.getvalue())}</pre>'
    for name, drawing in view.figures(result).items():
        said = f"<p><b>{escape(finding(result))}</b></p>" if isinstance(result, ScanResult) else ""
        picture = svg(drawing, CAPTIONS[name][0])
        return f"<div>{said}{picture}<details><summary>Table</summary>{table}</details></div>"
    return f"<div>{table}</div>"


def figure(result: Any, name: str | None) -> Figure:
    """Return the figure `name` of a result, the first where that is None; raises ResultError for an unknown name."""
    from rectilinear.report.png import figure as drawn

    figures = VIEWS[type(result)].figures(result)
    wanted = next(iter(figures)) if name is None else name
    if wanted not in figures:
        known = ", ".join(figures)
        raise ResultError(f"expected a figure of the result ({known}), got {name!r}.{nearest(wanted, figures)}")
    return drawn(figures[wanted])


def frame(result: Any) -> DataFrame:
    """Return the rows of a result as a pandas table; raises ResultError where pandas is not installed."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ResultError("expected pandas for a table, got none installed: pip install pandas") from error
    return DataFrame(list(VIEWS[type(result)].rows(result)))
