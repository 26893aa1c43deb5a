"""Tables for the terminal. Text from data is escaped: neither markup nor control characters reach the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rectilinear.results import ScanResult


def layers_table(result: ScanResult) -> RenderableType:
    """Return the header, one row a layer, the means, the sinks by name and the warnings."""
    facts = result.provenance
    per_d = facts.get("tokens_per_d", {})
    head = Text.assemble(
        (visible(facts.get("model")), "bold"),
        f" on {visible(facts.get('text'))}: {facts.get('tokens', 0):,} tokens in {facts.get('documents')} documents, "
        f"window {facts.get('window')}, d {facts.get('d')}; tokens / d {per_d.get('paper')} (paper), "
        f"{per_d.get('heldout')} (held-out), {per_d.get('ordinary')} (ordinary)",
    )
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("layer", justify="right")
    table.add_column("score", no_wrap=True)
    for name in ("paper", "held-out", "ordinary"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("incr.", no_wrap=True)
    for name in ("paper", "held-out", "ordinary"):
        table.add_column(name, justify="right", style="cyan", no_wrap=True)
    for name in ("‖z‖/‖y‖", "cosine", "worst 1 %", "sinks"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in result.layers:
        score, increment = layer.score, layer.increment
        table.add_row(
            str(layer.layer),
            bar(score.ordinary if score.ordinary is not None else score.paper),
            *(number(v) for v in (score.paper, score.heldout, score.ordinary)),
            bar(increment.ordinary if increment.ordinary is not None else increment.paper),
            *(number(v) for v in (increment.paper, increment.heldout, increment.ordinary)),
            f"{layer.norm_ratio:.3f}",
            f"{layer.cosine:.4f}",
            "–" if layer.tails.share_1 is None else f"{100 * layer.tails.share_1:.0f} %",
            f"[red]◆[/] {layer.sinks.count}" if layer.sinks.count else "",
        )
    mean = result.summary()
    table.add_section()
    table.add_row(
        "mean",
        "",
        *(number(mean["score"][k]) for k in ("paper", "heldout", "ordinary")),
        "",
        *(number(mean["increment"][k]) for k in ("paper", "heldout", "ordinary")),
        number(mean["norm_ratio"])[:5],
        number(mean["cosine"]),
        style="bold",
    )
    return Group(head, table, *_sinks(result), *(Text(f"! {note}", style="yellow") for note in result.warnings))


def compare_table(results: Sequence[ScanResult], labels: Sequence[str]) -> Table:
    """Return means per model and, below the first, the difference to it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    for name in ("layers", "score paper", "held-out", "ordinary", "incr. paper", "held-out", "ordinary"):
        table.add_column(name, justify="right")
    first = _means(results[0])
    for index, (result, label) in enumerate(zip(results, labels, strict=True)):
        means = _means(result)
        table.add_row(escape(visible(label)), str(len(result.layers)), *(number(v) for v in means))
        if index:
            gaps = [None if a is None or b is None else a - b for a, b in zip(means, first, strict=True)]
            table.add_row("  against the first", "", *("–" if g is None else f"{g:+.4f}" for g in gaps), style="dim")
    return table


def bar(value: float | None, width: int = 5) -> str:
    """Return a bar of `width` cells for a value in [0, 1]."""
    if value is None:
        return "·" * width
    eighths = round(min(max(value, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")).ljust(width, "·")


def number(value: float | None) -> str:
    """Return four decimals, cut and not rounded up to 1: 0.99996 is not exactly linear."""
    if value is None:
        return "–"
    return f"{min(value, 0.9999) if value < 1 else value:.4f}"


def visible(value: Any) -> str:
    """Return text with control characters and surrogates written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _means(result: ScanResult) -> list[float | None]:
    summary = result.summary()
    return [summary[name][kind] for name in ("score", "increment") for kind in ("paper", "heldout", "ordinary")]


def _sinks(result: ScanResult) -> list[Text]:
    """Name the sink tokens of the layer where they weigh most."""
    heavy = max(result.layers, key=lambda layer: layer.sinks.variance_share or 0.0)
    if not heavy.sinks.count:
        return [Text("No sink tokens.", style="dim")]
    names = ", ".join(f"{visible(t['token'])!r} at {t['position']} ({t['count']}x)" for t in heavy.sinks.tokens[:5])
    share = 100 * (heavy.sinks.variance_share or 0.0)
    return [
        Text.assemble(
            ("◆ sinks", "red"),
            f" in layer {heavy.layer}: {heavy.sinks.count} tokens ({100 * heavy.sinks.share_of_tokens:.2f} %) carry "
            f"{share:.1f} % of the variance: {names}",
        )
    ]
