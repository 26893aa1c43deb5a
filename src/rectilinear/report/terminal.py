"""Tables for the terminal. Text from data is escaped: neither markup nor control characters reach the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rectilinear.report.judged import Section, sections
from rectilinear.report.plots import judged
from rectilinear.report.text import bar, number, percent, plain, sparkline, token, visible
from rectilinear.results import EvalResult, LayerResult, ScanResult

__all__ = ["compare_table", "eval_table", "layers_table", "number", "sparkline", "visible"]

KINDS = ("paper", "heldout", "ordinary")
WIDE, MIDDLE = 98, 88  # columns of terminal from which all, and nearly all, of the table fits


def layers_table(result: ScanResult) -> RenderableType:
    """Return the header, one row a layer, the means, the sinks by name and the warnings; fits itself to the width."""
    return _LayersView(result)


def compare_table(results: Sequence[ScanResult], labels: Sequence[str]) -> Table:
    """Return means per model and, below each but the first, the difference to the first."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("model", overflow="fold")
    for name in ("layers", "paper", "held-out", "ordinary"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("incr. paper", "held-out", "ordinary"):
        table.add_column(name, justify="right", style="cyan")
    first = _means(results[0])
    for index, (result, label) in enumerate(zip(results, labels, strict=True)):
        means = _means(result)
        table.add_row(escape(plain(label)), str(len(result.layers)), *(number(v) for v in means))
        if index:
            gaps = ["–" if a is None or b is None else f"{a - b:+.4f}" for a, b in zip(means, first, strict=True)]
            table.add_row("  to the first", "", *gaps, style="dim")
    return table


def eval_table(result: EvalResult) -> RenderableType:
    """Return one table for each thing measured, one row a model, and the warnings; fits itself to the width."""
    return _EvalView(result)


@dataclass(frozen=True)
class _EvalView:
    """The tables of an evaluation; intervals and details are left out where the terminal is narrow."""

    result: EvalResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for section in sections(self.result):
            table = _section_table(section, frozenset())
            if console.measure(table, options=options.update(max_width=1000)).maximum > options.max_width:
                table = _section_table(section, section.spare)
            yield Text(visible(section.title), style="bold")
            yield Text(visible(section.note), style="dim")
            yield table
            yield Text("")
        for note in self.result.warnings:
            yield Text(f"! {visible(note)}", style="yellow")


def _section_table(section: Section, without: frozenset[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1), collapse_padding=True)
    shown = [i for i, name in enumerate(section.columns) if name not in without]
    for i in shown:
        table.add_column(escape(visible(section.columns[i])), justify="right" if i else "left", overflow="fold")
    for row in section.rows:
        table.add_row(*(escape(visible(row[i])) for i in shown))
    return table


@dataclass(frozen=True)
class _LayersView:
    """The table of one scan; columns are left out where the terminal is narrow."""

    result: ScanResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide, middle = options.max_width >= WIDE, options.max_width >= MIDDLE
        yield from _head(self.result)
        yield _table(self.result, wide=wide, middle=middle)
        yield _sinks(self.result)
        for note in self.result.warnings:
            yield Text(f"! {visible(note)}", style="yellow")


def _table(result: ScanResult, *, wide: bool, middle: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1), collapse_padding=True)
    table.add_column("layer", justify="right", no_wrap=True)
    table.add_column("score", no_wrap=True, style="blue")
    for name in ("paper", "held-out", "ordinary"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("incr.", no_wrap=True, style="cyan")
    for name in ("paper", "held-out", "ordinary"):
        table.add_column(name, justify="right", no_wrap=True, style="cyan")
    names = ["ratio", *(["cosine"] if middle else []), *(["worst 1 %"] if wide else []), "sinks"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for layer in result.layers:
        score, increment = layer.score, layer.increment
        table.add_row(
            str(layer.layer),
            bar(judged(score)),
            *(number(getattr(score, kind)) for kind in KINDS),
            bar(judged(increment)),
            *(number(getattr(increment, kind)) for kind in KINDS),
            *_rest(layer, names),
        )
    mean = result.summary()
    table.add_section()
    table.add_row(
        "mean",
        "",
        *(number(mean["score"][kind]) for kind in KINDS),
        "",
        *(number(mean["increment"][kind]) for kind in KINDS),
        number(mean["norm_ratio"], 3),
        *([number(mean["cosine"], 3)] if middle else []),
        style="bold",
    )
    return table


def _rest(layer: LayerResult, names: list[str]) -> list[str]:
    cells = {
        "ratio": number(layer.norm_ratio, 3),
        "cosine": number(layer.cosine, 3),
        "worst 1 %": percent(layer.tails.share_1, 0),
        "sinks": f"[red]◆[/] {layer.sinks.count}" if layer.sinks.count else "",
    }
    return [cells[name] for name in names]


def _head(result: ScanResult) -> list[Text]:
    facts: dict[str, Any] = result.provenance
    per_d = facts.get("tokens_per_d") or {}
    return [
        Text.assemble((visible(facts.get("model", "model")), "bold"), " on ", visible(facts.get("text", "text"))),
        Text(
            f"{facts.get('tokens', 0):,} tokens in {facts.get('documents', '?')} documents · "
            f"width {facts.get('d', '?')} · tokens / d: {per_d.get('paper', '?')} paper, "
            f"{per_d.get('heldout', '?')} held-out, {per_d.get('ordinary', '?')} ordinary",
            style="dim",
        ),
        Text.assemble(
            ("score ", "dim"),
            (sparkline(judged(layer.score) for layer in result.layers), "blue"),
            ("  increment ", "dim"),
            (sparkline(judged(layer.increment) for layer in result.layers), "cyan"),
            "\n",
        ),
    ]


def _sinks(result: ScanResult) -> Text:
    """Name the sink tokens of the layer where they weigh most."""
    heavy = max(result.layers, key=lambda layer: (layer.sinks.variance_share or 0.0, layer.sinks.count))
    if not heavy.sinks.count:
        return Text("\nNo sink tokens.", style="dim")
    names = ", ".join(
        f"{token(plain(t['token'], 24))} at position {t['position']} ({t['count']}×)" for t in heavy.sinks.tokens[:5]
    )
    return Text.assemble(
        ("\n◆ sinks", "red"),
        f" weigh most in layer {heavy.layer}: {heavy.sinks.count} tokens ({percent(heavy.sinks.share_of_tokens, 2)}) "
        f"carry {percent(heavy.sinks.variance_share)} of the variance: {names}",
    )


def _means(result: ScanResult) -> list[float | None]:
    summary = result.summary()
    return [summary[name][kind] for name in ("score", "increment") for kind in KINDS]
