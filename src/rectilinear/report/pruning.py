"""The folder of a cut model: the checkpoint, its plan, what it cost, and a model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.core.spans import in_words
from rectilinear.report.folder import write_folder
from rectilinear.report.html import prune_page
from rectilinear.report.text import number, visible
from rectilinear.results import Plan, PruneResult

PLAN, DOCUMENT, CARD, PAGE = "plan.json", "prune.json", "README.md", "report.html"
REPAIRED = {
    "none": "Nothing was done to make up for them.",
    "linear": "An affine map, fitted on the dense model's stream, stands in the place of each.",
    "patch": "One affine map stands in the place of each removed span.",
    "scalar": "What the layers above add was scaled, so that the stream has its old size.",
    "fold": "A map of the MLP's output was folded into the projection before each cut, by least squares.",
    "fold-cosine": "A map of the MLP's output was folded into the projection before each cut, by cosine distance.",
    "refit": "The MLP output projection before each cut was solved again, by ridge towards its old value.",
}


def save_prune(result: PruneResult, out: Path, weights: Callable[[Path], None], *, force: bool = False) -> Path:
    """Write a checkpoint by `weights`, plan.json, prune.json, README.md and report.html to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """

    def fill(folder: Path) -> None:
        weights(folder)
        (folder / PLAN).write_text(result.plan.to_json() + "\n", encoding="utf-8")
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        (folder / CARD).write_text(card(result), encoding="utf-8")
        (folder / PAGE).write_text(prune_page(result, _repaired(result.plan)), encoding="utf-8")

    return write_folder(out, fill, force=force, marker=PLAN)


def card(result: PruneResult) -> str:
    """Return the model card, in Markdown."""
    environment = Environment(
        loader=PackageLoader("rectilinear.report"),
        autoescape=False,  # Markdown: `inline` takes out what would end a code span or a line
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "inline": _inline}
    plan = result.plan
    values = {"removed": in_words(plan.remove), "repaired": _repaired(plan)}
    return environment.get_template("card.md.j2").render(result=result, plan=plan, **values) + "\n"


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


def _repaired(plan: Plan) -> str:
    return REPAIRED.get(plan.repair, plan.repair)


def _inline(value: object) -> str:
    """Return text from data fit for a code span of Markdown, and for a line of its front matter."""
    return visible(value).replace("`", "'")
