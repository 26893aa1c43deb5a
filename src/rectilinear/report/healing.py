"""The folder of a healed model, and what a healing did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.core.spans import in_words
from rectilinear.report.chart import Curve, Panel, stacked
from rectilinear.report.html import heal_page
from rectilinear.report.model import repaired, write_model
from rectilinear.report.scale import around
from rectilinear.report.shapes import BLUE, Drawing
from rectilinear.report.text import percent, sparkline, visible
from rectilinear.results import HealResult

DOCUMENT = "heal.json"


def save_heal(result: HealResult, out: Path, weights: Callable[[Path], None], *, force: bool = False) -> Path:
    """Write a checkpoint by `weights`, plan.json, heal.json, README.md and report.html to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """
    figures = {"healing": healing_figure(result)} if len(result.history) > 1 else {}
    page = heal_page(result, repaired(result.plan), figures)
    return write_model(
        out, weights, result, page, document=DOCUMENT, template="healed.md.j2", marker=DOCUMENT, force=force
    )


def healing_figure(result: HealResult) -> Drawing:
    """Draw the loss of training over the tokens read."""
    tokens, losses = (np.array([getattr(p, name) for p in result.history], dtype=float) for name in ("tokens", "loss"))
    panel = Panel(f"Loss ({visible(result.recipe['loss'])})", [Curve(tokens, losses, BLUE, marker="")])
    return stacked([panel], "tokens read", around([tokens]), 200)


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
