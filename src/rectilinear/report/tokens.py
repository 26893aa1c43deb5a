"""A prompt token by token: its folder, and what a terminal shows of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rectilinear.files import into
from rectilinear.report.folder import read_document, write_figures, write_folder
from rectilinear.report.heatmap import DEEP, SHADES, SHOWN, heat_map, shade
from rectilinear.report.shapes import BLUE, ORANGE
from rectilinear.report.text import number, plain, token, visible
from rectilinear.results import TokenResult, TokensResult

DOCUMENT, PAGE, FIGURE = "tokens.json", "tokens.html", "heatmap"
LABEL, CELL, MEDIAN = 12, 2, 6  # columns of terminal: a token's name, one layer, the median
NAME = 24  # characters of a token in tables


def save_tokens(result: TokensResult, out: Path, maps: Callable[[Path], Any] | None, *, force: bool = False) -> Path:
    """Write tokens.json, heatmap.svg, heatmap.png and tokens.html, and by `maps` what it writes, to `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        _draw(result, folder, png=True)
        if maps is not None:
            maps(folder)

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def load_tokens(path: str | Path) -> TokensResult:
    """Read a folder written by `save_tokens`, or its tokens.json.

    Raises ResultError where it is missing, damaged or of another schema.
    """
    return TokensResult.from_dict(read_document(path, DOCUMENT, "tokens")[1])


def render_tokens(result: TokensResult, folder: Path, *, png: bool = False) -> None:
    """Write the page and heatmap.svg, with `png` heatmap.png too, into an existing folder; its data stay as they are.

    Raises ResultError where the folder cannot be written.
    """
    with into(folder) as part:
        _draw(result, part, png=png)


def _draw(result: TokensResult, folder: Path, *, png: bool) -> None:
    from rectilinear.report.html import tokens_page

    write_figures({FIGURE: heat_map(result.tokens[-SHOWN:])}, folder, png=png)
    (folder / PAGE).write_text(tokens_page(result), encoding="utf-8")


def token_rows(result: TokensResult) -> list[dict[str, Any]]:
    """Return one row a layer of each token."""
    values = ("relative_error", "bias_share", "stream_norm", "contribution_norm", "cosine", "sink")
    return [
        {"position": one.position, "token": one.token, "layer": layer}
        | {name: getattr(one, name)[layer] for name in values}
        for one in result.tokens
        for layer in range(result.layers)
    ]


def tokens_table(result: TokensResult) -> RenderableType:
    """Return the heat map, what the model says after each token, and both lenses at the last; fits the width.

    The map is digits, tenths of the relative error, on colours where there are some.
    """
    return _TokensView(result)


@dataclass(frozen=True)
class _TokensView:
    """What a terminal shows of a prompt."""

    result: TokensResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.result.tokens[-SHOWN:]
        yield from _head(self.result, len(shown))
        label = min(LABEL, max(len(_name(one)) for one in shown))
        fit = max((options.max_width - label - 1 - MEDIAN) // CELL, 1)
        for start in range(0, self.result.layers, fit):
            stop = min(start + fit, self.result.layers)
            yield from _block(shown, range(start, stop), label, median=stop == self.result.layers)
        yield Text("tenths of the relative error, + above 1 · ◆ sink · med: median over layers\n", style="dim")
        yield _said(shown)
        yield Text(f"\nAfter the last token, {_name(shown[-1])}, by the stream on its way:", style="bold")
        yield _lenses(shown[-1])
        for note in self.result.warnings:
            yield Text(f"! {visible(note)}", style="yellow")


def _head(result: TokensResult, shown: int) -> list[Text]:
    facts = result.provenance
    maps = facts.get("maps") or {}
    some = f", the last {shown:,} shown" if shown < len(result.tokens) else ""
    return [
        Text.assemble((visible(facts.get("model", "model")), "bold"), f" on {len(result.tokens):,} tokens{some}"),
        Text(
            f"maps of ordinary tokens, from {maps.get('tokens', 0):,} tokens of {visible(maps.get('text', 'text'))} · "
            f"width {facts.get('d', '?')}\n",
            style="dim",
        ),
    ]


def _block(tokens: Sequence[TokenResult], layers: range, label: int, *, median: bool) -> list[Text]:
    """Return the lines of the heat map for some of the layers."""
    numbers = "".join(f"{layer:<{5 * CELL}}" for layer in layers if (layer - layers.start) % 5 == 0)
    head = " " * (label + 1) + numbers[: CELL * len(layers)].ljust(CELL * len(layers)) + ("   med" if median else "")
    lines = [Text(head.rstrip(), style="bold", no_wrap=True)]
    for one in tokens:
        line = Text(set_cell_size(_name(one), label) + " ", no_wrap=True)
        for layer in layers:
            line.append_text(_cell(one, layer))
        if median:
            line.append(f"{number(one.median_error, 2):>6}", "dim")
        lines.append(line)
    return lines


def _cell(one: TokenResult, layer: int) -> Text:
    found = shade(one.relative_error[layer])
    digit = "·" if found is None else "+" if found == SHADES else str(found)
    cell = Text(digit + ("◆" if one.sink[layer] else " "))
    if found is not None:
        cell.stylize(_style(found))
    return cell


def _style(found: int) -> str:
    if found == SHADES:
        return f"black on {ORANGE}"
    share = (found + 0.5) / SHADES
    mixed = [round(255 + share * (int(BLUE[i : i + 2], 16) - 255)) for i in (1, 3, 5)]
    return f"{'white' if found >= DEEP else 'black'} on rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def _said(tokens: Sequence[TokenResult]) -> Table:
    """Return what the model says after each token, and how it rated the token that came."""
    table = _table(("after", "left"), ("the model says", "left"), ("prob.", "right"), ("came", "left"))
    table.add_column("rank", justify="right")
    table.add_column("prob.", justify="right")
    for at, one in enumerate(tokens):
        came = (
            (_name(tokens[at + 1]), f"{one.next_rank:,}", number(one.next_probability))
            if one.next_rank is not None
            else ("", "", "")
        )
        said = one.prediction
        cells = (_name(one), token(plain(said.token, NAME)), number(said.probability), *came)
        table.add_row(*map(escape, cells))
    return table


def _lenses(one: TokenResult) -> Table:
    table = _table(("stream", "left"), ("logit lens", "left"), ("prob.", "right"), ("linear lens", "left"))
    table.add_column("prob.", justify="right")
    table.add_column("error of the next layer", justify="right")
    for position, (logit, linear) in enumerate(zip(one.logit_lens, one.linear_lens, strict=True)):
        error = number(one.relative_error[position], 2) if position < len(one.relative_error) else ""
        guesses = [cell for guess in (logit, linear) for cell in (token(plain(guess.token, NAME)), guess.probability)]
        cells = [cell if isinstance(cell, str) else number(cell) for cell in guesses]
        table.add_row(after(position), *map(escape, cells), error)
    return table


def after(position: int) -> str:
    """Return a position of the stream in words."""
    return f"after layer {position - 1}" if position else "embedding"


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1), collapse_padding=True)
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _name(one: TokenResult) -> str:
    return token(plain(one.token, NAME))
