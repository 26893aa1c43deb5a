"""`--dry-run`: what a command would do, without reading weights and without writing."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from rectilinear.cli.console import Console

if TYPE_CHECKING:
    from rectilinear.ops.forecast import Forecast


def tell(
    model: str, loading: Mapping[str, Any], sizes: Mapping[str, Any], *, text: str, out: Path | None, json: bool
) -> None:
    """Print what a scan would do, as JSON if asked.

    loading, sizes: the options of `models.load.load` and `ops.scan.scan`; `out` is None where no folder is written.
    """
    from rectilinear.models.load import device_of, skeleton
    from rectilinear.ops.forecast import bytes_by_device, forecast, least_seconds

    bare = skeleton(model, **loading)
    device, path, layers = device_of(loading["device"]), sizes["layers_path"], sizes["layers"]
    told = forecast(bare, **sizes, device=device)
    devices = bytes_by_device(bare, told, device, path)
    timed = "cuda" if device == "balanced" else device
    seconds = None if told.tokens is None else least_seconds(bare, told.tokens, timed, path, layers)
    if json:
        more = {"devices": devices, "least_seconds": seconds}
        facts = {"model": model, "text": text, **asdict(told), **more, "out": None if out is None else str(out)}
        sys.stdout.write(jsonlib.dumps(facts, indent=1) + "\n")
        return
    from rectilinear.report.text import visible

    table = facts_table()
    table.add_row("model", Text(visible(model)))
    table.add_row("text", Text(visible(text)))
    for name, value in lines(told):
        table.add_row(name, value)
    for name, held in devices.items():
        table.add_row(f"on {name}", f"{_size(sum(held.values()))} of weights and moments, with sinks")
    if seconds is not None:
        table.add_row("time", f"{seconds:,.1f} s on {timed} at the least: matrix products, as fast as one was now")
    table.add_row("output", Text(visible(out or "none")))
    Console().print(table)


def facts_table() -> Table:
    """Return a table for a name and a fact a line, of which none is cut short."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    return table


def tell_facts(facts: Mapping[str, Any], *, json: bool) -> None:
    """Print what a command would do, one fact a line, as JSON if asked."""
    if json:
        sys.stdout.write(jsonlib.dumps(dict(facts), indent=1) + "\n")
        return
    from rectilinear.report.text import visible

    table = facts_table()
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(visible("none" if value is None else value)))
    Console().print(table)


def lines(forecast: Forecast) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of what is known about a scan beforehand."""
    chosen = "" if forecast.measured == forecast.layers else f", {forecast.measured:,} of them measured"
    yield "layers", f"{forecast.layers:,} of width {forecast.width:,}{chosen}"
    per_d = forecast.tokens_per_d
    if forecast.tokens is None or per_d is None:
        yield "tokens", "all"
    else:
        yield "tokens", f"{forecast.tokens:,} asked for"
        yield "tokens / d", f"{per_d['paper']} paper, {per_d['heldout']} held-out"
    yield "window", f"{forecast.window:,} tokens"
    known = forecast.batches is not None
    yield "batches", f"{forecast.batches:,}, more where documents are short" if known else "as many as the text fills"
    yield "weights", f"{_size(forecast.weights_bytes)} in {forecast.dtype}"
    yield "moments", f"{_size(forecast.moments_bytes)}; with sinks {_size(forecast.moments_bytes_most)}"
    if forecast.spilled_bytes_most:
        yield "in files", f"{_size(forecast.spilled_bytes)} of them; with sinks {_size(forecast.spilled_bytes_most)}"
    if forecast.pairs_bytes:
        yield "pairs", _size(forecast.pairs_bytes)
    if forecast.kept_bytes:
        yield "on disk", f"{_size(forecast.kept_bytes)}; with sinks {_size(forecast.kept_bytes_most)}"


def _size(count: int) -> str:
    from rectilinear.report.judged import quantity

    return f"{count:,} bytes ({quantity(count, 'B')})"
