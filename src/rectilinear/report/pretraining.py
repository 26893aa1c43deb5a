"""What a pretraining did, for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.report.text import visible
from rectilinear.results import PretrainResult


def pretrain_table(result: PretrainResult) -> RenderableType:
    """Return the model's size, what each checkpoint is worth on held-out documents, and the sample."""
    recipe, corpus = result.recipe, result.corpus
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in ("checkpoint", "tokens", "held-out loss", "bits per byte"):
        table.add_column(name, justify="left" if name == "checkpoint" else "right", no_wrap=True)
    for point in result.checkpoints:
        bits = "" if point.bits_per_byte is None else f"{point.bits_per_byte:.4f}"
        table.add_row(visible(point.folder), f"{point.tokens:,}", f"{point.loss:.4f}", bits)
    penalty = "no penalty" if recipe["penalty"] == "none" else f"{recipe['penalty']} penalty x {recipe['weight']:g}"
    last = result.history[-1]
    speed = last.tokens / last.seconds if last.seconds else 0.0
    read = (
        f"{last.tokens:,} tokens in {last.seconds / 60:.1f} minutes ({speed:,.0f} tokens/s), "
        f"{corpus['epochs']:.1f} times the {corpus['tokens']:,} of {corpus['documents']:,} documents; "
        f"{corpus['heldout']:,} held out, {corpus['dropped']:,} duplicates dropped\n"
    )
    return Group(
        Text.assemble(("Pretrained ", "bold"), f"{recipe['size']}, {result.parameters:,} parameters, {penalty}"),
        Text(read, "dim"),
        table,
        Text("\nIt writes:", "bold"),
        *(Text(visible(line)) for line in result.sample.splitlines()),
        *(Text(f"! {visible(note)}", style="yellow") for note in result.warnings),
    )
