"""The folder of a healed model, and what a healing did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.core.spans import in_words
from rectilinear.report.folder import write_folder
from rectilinear.report.text import percent, sparkline, visible
from rectilinear.results import HealResult

PLAN, DOCUMENT = "plan.json", "heal.json"


def save_heal(result: HealResult, out: Path, weights: Callable[[Path], None], *, force: bool = False) -> Path:
    """Write a checkpoint by `weights`, plan.json and heal.json to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """

    def fill(folder: Path) -> None:
        weights(folder)
        (folder / PLAN).write_text(result.plan.to_json() + "\n", encoding="utf-8")
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def heal_table(result: HealResult) -> RenderableType:
    """Return what trained, on how much, and what it did to perplexity and divergence on held-out text."""
    recipe = result.recipe
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("")
    for name in ("dense", "before", "healed"):
        table.add_column(name, justify="right", no_wrap=True)
    losses = (result.dense, result.before, result.after)
    table.add_row("perplexity", *(f"{loss.perplexity:.2f}" for loss in losses))
    table.add_row("x dense", *(f"{loss.perplexity / result.dense.perplexity:.3f}" for loss in losses))
    table.add_row("KL (nats a token)", *(f"{loss.kl:.4f}" for loss in losses))
    speed = result.tokens / result.seconds if result.seconds else 0.0
    share = result.trained / result.parameters
    return Group(
        Text.assemble(("Healed ", "bold"), f"by {recipe['loss']}, training {recipe['train']}: ", _losses(result)),
        Text(
            f"{result.trained:,} numbers trained ({percent(share)} of the model's) · without "
            f"{in_words(result.plan.remove)}\n"
            f"{result.steps:,} steps, {result.tokens:,} tokens in {result.seconds / 60:.1f} minutes "
            f"({speed:,.0f} tokens/s)\n",
            "dim",
        ),
        table,
        Text(
            f"\njudged on {result.holdout_tokens:,} held-out tokens; of the excess over the dense model "
            f"{percent(result.recovered)} is gone",
            "dim",
        ),
        *(Text(f"! {visible(note)}", style="yellow") for note in result.warnings),
    )


def _losses(result: HealResult) -> str:
    """Return the losses of training, as a small curve between the first and the last."""
    values = [point.loss for point in result.history]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    curve = sparkline([(value - low) / (high - low or 1.0) for value in values], 30)
    return f"loss {values[0]:.4f} {curve} {values[-1]:.4f}"
