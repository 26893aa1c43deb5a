"""Which tokens carry the error of a scan, over all its layers: the feature-triggering of the paper, in figures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.report.folder import write_figures, write_folder
from rectilinear.report.text import bar, number, percent, plain, token
from rectilinear.results import SCHEMA, ScanResult, clean, mean

STRINGS = 15
DOCUMENT, PAGE, FIGURE = "carriers.json", "carriers.html", "carriers"


@dataclass(frozen=True)
class Row:
    """A kind of token, or one token: share of tokens, and of the squared error in the mean layer and in the worst.

    layer: the worst. tail_index: of the errors of a kind, median over layers; smaller is heavier, None where not known.
    """

    name: str
    tokens: float
    mean: float
    most: float
    layer: int
    tail_index: float | None = None

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


def shares(result: ScanResult, field: str, key: str) -> dict[str, dict[int, float]]:
    """Return by name, and then by layer, the share of the squared error; tokens that read alike are one."""
    found: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for layer in result.layers:
        for item in getattr(layer, field):
            found[item[key]][layer.layer] += item["error"]
    return found


def document(result: ScanResult) -> dict[str, Any]:
    """Return who carries the error as a JSON document: schema, kind, the scan's provenance, classes, tokens."""
    rows = {"classes": classes(result), "tokens": strings(result)}
    return clean({"schema": SCHEMA, "kind": "carriers", "provenance": result.provenance, **rows})


def save_carriers(result: ScanResult, out: Path, *, force: bool = False) -> Path:
    """Write carriers.json, carriers.html, carriers.svg and carriers.png to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """
    from rectilinear.report.carriermap import carrier_map
    from rectilinear.report.html import carriers_page

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(json.dumps(document(result), indent=1) + "\n", encoding="utf-8")
        figures = {FIGURE: carrier_map(result)}
        write_figures(figures, folder, png=True)
        (folder / PAGE).write_text(carriers_page(result, figures), encoding="utf-8")

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def carriers_table(result: ScanResult) -> RenderableType:
    """Return who carries the error: the worst 1 % of tokens, kinds of tokens, and single tokens."""
    lines: list[RenderableType] = [Text(said + "\n") for said in worst(result)]
    said = "Shares of tokens and of the squared error that the linear maps leave on unseen text, mean over layers\n"
    kinds = _table("kind", "tokens", "error", "", "per token", "most", "in layer", "tail index")
    for row in classes(result):
        share, weight = percent(row.mean), f"{number(row.weight, 1)} x"
        most = (percent(row.most), str(row.layer), number(row.tail_index, 1))
        kinds.add_row(row.name, percent(row.tokens), share, bar(row.mean), weight, *most)
    single = _table("token", "seen", "error", "most", "in layer")
    for row in strings(result):
        name = Text(token(plain(row.name, 24)))
        single.add_row(name, f"{row.tokens:,.0f}", percent(row.mean, 2), percent(row.most, 2), str(row.layer))
    return Group(*lines, Text(said, "dim"), kinds, Text("\nSingle tokens, sinks set apart\n", "dim"), single)


def worst(result: ScanResult) -> Iterable[str]:
    """Yield what the worst 1 % of tokens carry, in a sentence, where it is known."""
    known = [(layer.tails.share_1, layer.layer) for layer in result.layers if layer.tails.share_1 is not None]
    if known:
        most, at = max(known)
        average = percent(mean(value for value, _ in known))
        yield f"The worst 1 % of unseen tokens carry {average} of the error, {percent(most)} in layer {at}"


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rows(result: ScanResult, field: str, key: str) -> list[Row]:
    count = len(result.layers)
    tails: dict[str, list[float]] = defaultdict(list)
    known: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for layer in result.layers:
        for item in getattr(layer, field):
            known[item[key]][layer.layer] += item["tokens"] if "tokens" in item else item["count"]
            if item.get("tail_index") is not None:
                tails[item[key]].append(item["tail_index"])
    rows = []
    for name, seen in shares(result, field, key).items():
        most, at = max((error, layer) for layer, error in seen.items())
        # A kind that is not there in a layer (no sinks) has a share of nothing; a token is seen as often in all.
        tokens = sum(known[name].values()) / (count if field == "error_classes" else len(seen))
        tail = median(tails[name]) if tails[name] else None
        rows.append(Row(name, tokens, sum(seen.values()) / count, most, at, tail))
    return rows
