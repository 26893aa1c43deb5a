"""The folder of a cut or healed model: the checkpoint, its plan, what was done to it, a model card and a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from rectilinear.core.spans import in_words
from rectilinear.report.folder import write_folder
from rectilinear.report.text import number, visible
from rectilinear.results import HealResult, Plan, PruneResult

PLAN, CARD, PAGE = "plan.json", "README.md", "report.html"
REPAIRED = {
    "none": "Nothing was done to make up for them.",
    "linear": "An affine map, fitted on the dense model's stream, stands in the place of each.",
    "patch": "One affine map stands in the place of each removed span.",
    "scalar": "What the layers above add was scaled, so that the stream has its old size.",
    "fold": "A map of the MLP's output was folded into the projection before each cut, by least squares.",
    "fold-cosine": "A map of the MLP's output was folded into the projection before each cut, by cosine distance.",
    "refit": "The MLP output projection before each cut was solved again, by ridge towards its old value.",
}


def write_model(
    out: Path,
    weights: Callable[[Path], None],
    result: PruneResult | HealResult,
    page: str,
    *,
    document: str,
    template: str,
    marker: str,
    force: bool,
) -> Path:
    """Write a checkpoint by `weights`, and beside it plan, document, card and page, to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """
    texts = {PLAN: result.plan.to_json(), document: result.to_json(), CARD: card(result, template), PAGE: page}

    def fill(folder: Path) -> None:
        weights(folder)
        for name, text in texts.items():
            (folder / name).write_text(text + "\n", encoding="utf-8")

    return write_folder(out, fill, force=force, marker=marker)


def card(result: PruneResult | HealResult, template: str) -> str:
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
    values = {"removed": in_words(plan.remove), "repaired": repaired(plan)}
    return environment.get_template(template).render(result=result, plan=plan, **values)


def repaired(plan: Plan) -> str:
    """Return in words how a cut was made up for."""
    return REPAIRED.get(plan.repair, plan.repair)


def _inline(value: object) -> str:
    """Return text from data fit for a code span of Markdown, and for a line of its front matter."""
    return visible(value).replace("`", "'")
