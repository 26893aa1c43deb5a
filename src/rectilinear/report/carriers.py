"""Which tokens carry the error of a scan, over all its layers: the feature-triggering of the paper, in figures."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.report.text import bar, number, percent, plain, token
from rectilinear.results import ScanResult, mean

STRINGS = 15


@dataclass(frozen=True)
class Row:
    """A kind of token, or one token: share of tokens, and of the squared error in the mean layer and in the worst."""

    name: str
    tokens: float
    mean: float
    most: float
    layer: int

    @property
    def weight(self) -> float:
        """Squared error of such a token over that of the mean token."""
        return self.mean / self.tokens if self.tokens else 0.0


def classes(result: ScanResult) -> list[Row]:
    """Return the kinds of tokens, sinks first; none where the scan did not tell them."""
    return sorted(_rows(result, "error_classes", "class"), key=lambda row: row.name != "sink")


def strings(result: ScanResult) -> list[Row]:
    """Return the tokens that carry most of the error in the mean layer; `tokens` is how often each was seen."""
    return sorted(_rows(result, "error_tokens", "token"), key=lambda row: -row.mean)[:STRINGS]


def carriers_table(result: ScanResult) -> RenderableType:
    """Return who carries the error: the worst 1 % of tokens, kinds of tokens, and single tokens."""
    lines: list[RenderableType] = []
    worst = [(layer.tails.share_1, layer.layer) for layer in result.layers if layer.tails.share_1 is not None]
    if worst:
        most, at = max(worst)
        average = percent(mean(value for value, _ in worst))
        lines.append(
            Text(f"The worst 1 % of unseen tokens carry {average} of the error, {percent(most)} in layer {at}\n")
        )
    said = "Shares of tokens and of the squared error that the linear maps leave on unseen text, mean over layers\n"
    kinds = _table("kind", "tokens", "error", "", "per token", "most", "in layer")
    for row in classes(result):
        share, weight = percent(row.mean), f"{number(row.weight, 1)} x"
        kinds.add_row(row.name, percent(row.tokens), share, bar(row.mean), weight, percent(row.most), str(row.layer))
    single = _table("token", "seen", "error", "most", "in layer")
    for row in strings(result):
        name = Text(token(plain(row.name, 24)))
        single.add_row(name, f"{row.tokens:,.0f}", percent(row.mean, 2), percent(row.most, 2), str(row.layer))
    return Group(*lines, Text(said, "dim"), kinds, Text("\nSingle tokens, sinks set apart\n", "dim"), single)


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rows(result: ScanResult, field: str, key: str) -> list[Row]:
    names: dict[str, list[tuple[float, float, int]]] = {}
    for layer in result.layers:
        for item in getattr(layer, field):
            known = item["tokens"] if "tokens" in item else float(item["count"])
            names.setdefault(item[key], []).append((item["error"], known, layer.layer))
    count = len(result.layers)
    return [
        Row(
            name,
            # A kind that is not there in a layer (no sinks) has a share of nothing; a token's count is the same in all.
            sum(known for _, known, _ in seen) / (count if field == "error_classes" else len(seen)),
            sum(error for error, _, _ in seen) / count,
            max(seen)[0],
            max(seen)[2],
        )
        for name, seen in names.items()
    ]
