"""The folder of a cut model, and what a cut cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.core.spans import in_words
from rectilinear.report.html import prune_page
from rectilinear.report.model import PLAN, repaired, write_model
from rectilinear.report.text import visible
from rectilinear.results import PruneResult

DOCUMENT = "prune.json"


def save_prune(result: PruneResult, out: Path, weights: Callable[[Path], None], *, force: bool = False) -> Path:
    """Write a checkpoint by `weights`, plan.json, prune.json, README.md and report.html to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """
    page = prune_page(result, repaired(result.plan))
    return write_model(out, weights, result, page, document=DOCUMENT, template="cut.md.j2", marker=PLAN, force=force)


def prune_rows(result: PruneResult) -> list[dict[str, Any]]:
    """Return two rows, the model before the cut and after it."""
    plan = result.plan
    sides = (
        ("dense", plan.layers, result.parameters_dense, result.dense),
        ("cut", plan.layers - len(plan.remove), result.parameters, result.cut),
    )
    return [
        {"model": name, "layers": layers, "parameters": parameters, "perplexity": loss.perplexity, "kl": loss.kl}
        for name, layers, parameters, loss in sides
    ]


def prune_table(result: PruneResult) -> RenderableType:
    """Return what was removed in words, and what it cost: layers, parameters, perplexity, divergence."""
    plan = result.plan
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("")
    for name in ("dense", "cut", ""):
        table.add_column(name, justify="right", no_wrap=True)
    kept, share = plan.layers - len(plan.remove), result.parameters / result.parameters_dense - 1
    ratio = result.cut.perplexity / result.dense.perplexity
    table.add_row("layers", str(plan.layers), str(kept), f"{kept - plan.layers:+d}")
    table.add_row("parameters", f"{result.parameters_dense:,}", f"{result.parameters:,}", f"{share:+.1%}")
    table.add_row("perplexity", f"{result.dense.perplexity:.2f}", f"{result.cut.perplexity:.2f}", f"x {ratio:.3f}")
    table.add_row("KL (nats a token)", "0", f"{result.cut.kl:.4f}", "")
    where = "another text" if plan.calibration.get("judge_apart") else "calibration text that no repair was fitted on"
    after = ", kept layers above refitted too" if plan.refit_after else ""
    return Group(
        Text.assemble(
            ("Removed ", "bold"),
            in_words(plan.remove),
            ", as given" if plan.select == "given" else f", chosen by {plan.select}",
        ),
        Text(f"repair {plan.repair}{after} · cost {result.passes:.1f} forward passes of the calibration text\n", "dim"),
        table,
        Text(f"\njudged on {plan.calibration.get('judge_tokens', 0):,} tokens of {where}", "dim"),
        *(Text(f"! {visible(note)}", style="yellow") for note in result.warnings),
    )
