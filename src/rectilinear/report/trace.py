"""The folder and the table of a trace; a scan of each checkpoint lies in it as a folder of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from rectilinear.digests import write_sums
from rectilinear.files import into, write_whole, writing
from rectilinear.report.folder import DOCUMENT as SCAN
from rectilinear.report.folder import PLOTS, TABLE, fill, flat, read_document, table_csv, write_figures, write_folder
from rectilinear.report.html import trace_page
from rectilinear.report.plots import judged
from rectilinear.report.text import bar, number, sparkline, visible
from rectilinear.report.training import story, trace_figures
from rectilinear.results import ScanResult, Score, TraceResult, clean

DOCUMENT, PAGE, SCANS = "trace.json", "trace.html", "scans"
FIXED, LEAST = 57, 8  # places in the terminal table beside steps and sparklines, and the shortest sparkline


def save_trace(result: TraceResult, out: Path, *, force: bool = False) -> Path:
    """Write trace.json, layers.csv, plots and trace.html to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """

    def write(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        _draw(result, folder, {}, png=True)

    return write_folder(out, write, force=force, marker=DOCUMENT)


def keep_scan(result: TraceResult, scan: ScanResult, out: Path, *, fresh: bool, force: bool = False) -> None:
    """Write scans/step-STEP and then trace.json to the folder `out`, each whole or not at all.

    `fresh`: this is the first scan, and `out` is made, or with `force` replaced. Raises ResultError as `save_trace`.
    """
    place = Path(SCANS) / f"step-{scan.provenance['step']}"

    def write(folder: Path) -> None:
        (folder / place).mkdir(parents=True)
        fill(scan, folder / place, png=False)
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")

    if fresh:
        write_folder(out, write, force=force, marker=DOCUMENT)
        return
    write_folder(out / place, lambda folder: fill(scan, folder, png=False), force=True, marker=SCAN)
    with writing(out / DOCUMENT):
        write_whole(out / DOCUMENT, f"{result.to_json()}\n".encode())
        write_sums(out)


def load_trace(path: str | Path) -> TraceResult:
    """Read a folder written by `save_trace` or `keep_scan`, or its trace.json.

    Raises ResultError where it is missing, damaged or of another schema.
    """
    return TraceResult.from_dict(read_document(path, DOCUMENT, "trace")[1])


def render_trace(result: TraceResult, out: Path, *, png: bool = False) -> None:
    """Write table, plots and page of a trace into its folder; raises ResultError where that fails."""
    reports = {point.step: f"{SCANS}/step-{point.step}/report.html" for point in result.points}
    there = {step: place for step, place in reports.items() if (out / place).is_file()}
    with into(out) as part:
        _draw(result, part, there, png=png)


def _draw(result: TraceResult, folder: Path, reports: dict[int, str], *, png: bool) -> None:
    figures = trace_figures(result)
    write_figures(figures, folder / PLOTS, png=png)
    (folder / TABLE).write_text(table_csv(trace_rows(result)), encoding="utf-8")
    (folder / PAGE).write_text(trace_page(result, figures, reports), encoding="utf-8")


def trace_rows(result: TraceResult) -> list[dict[str, Any]]:
    """Return one row a checkpoint and layer, nested fields flattened (`increment_heldout`)."""
    rows = []
    for point in result.points:
        name = point.name.encode("utf-8", "replace").decode()  # a folder's may hold a lone surrogate
        for layer in point.layers:
            rows.append({"step": point.step, "checkpoint": name, **flat(clean(layer))})
    return rows


def trace_table(result: TraceResult) -> RenderableType:
    """Return one row a checkpoint with its increment scores, layer by layer, as a sparkline, and the means."""
    return _View(result)


@dataclass(frozen=True)
class _View:
    """The table of a trace; the sparklines give way where the terminal is narrow."""

    result: TraceResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        facts = self.result.provenance
        per_d = facts.get("tokens_per_d") or {}
        yield Text.assemble((visible(facts.get("model", "model")), "bold"), " on ", visible(facts.get("text", "text")))
        yield Text(
            f"{len(self.result.points)} checkpoints on the same {facts.get('tokens', 0):,} tokens · width "
            f"{facts.get('d', '?')} · tokens / d: {per_d.get('paper', '?')} paper, "
            f"{per_d.get('heldout', '?')} held-out\n",
            style="dim",
        )
        yield _table(self.result, options.max_width)
        yield Text(f"\n{story(self.result)}")
        for note in self.result.warnings:
            yield Text(f"! {visible(note)}", style="yellow")


def _table(result: TraceResult, width: int) -> Table:
    steps = [f"{point.step:,}" for point in result.points]
    room = max(width - FIXED - max(map(len, steps)), LEAST)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1), collapse_padding=True)
    table.add_column("step", justify="right", no_wrap=True)
    for head, style, numbers in (("incr.", "cyan", "cyan"), ("score", "blue", None)):
        table.add_column(head, no_wrap=True, style=style)
        for name in ("paper", "held-out", "ordinary"):
            table.add_column(name, justify="right", no_wrap=True, style=numbers)
    for step, point in zip(steps, result.points, strict=True):
        by_layer = sparkline((judged(layer.increment) for layer in point.layers), room)
        table.add_row(step, by_layer, *_means(point.increment), bar(judged(point.score)), *_means(point.score))
    return table


def _means(score: Score) -> tuple[str, ...]:
    return number(score.paper), number(score.heldout), number(score.ordinary)
