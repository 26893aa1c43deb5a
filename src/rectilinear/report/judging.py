"""The folder of a judging, and what the grades were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.report.folder import table_csv, write_folder
from rectilinear.report.html import judging_page
from rectilinear.report.text import percent, plain, visible
from rectilinear.results.judging import GRADES, JudgeResult, Mean

DOCUMENT = "judge.json"


def save_judging(result: JudgeResult, out: Path, *, force: bool = False) -> Path:
    """Write judge.json, judge.csv and judge.html to the folder `out`, whole or not at all; return it.

    Raises ResultError as `folder.save` does.
    """

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        (folder / "judge.csv").write_text(table_csv(judging_rows(result)), encoding="utf-8")
        (folder / "judge.html").write_text(judging_page(result), encoding="utf-8")

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def judging_rows(result: JudgeResult) -> list[dict[str, Any]]:
    """Return one row a grading; grades are None where none could be read."""
    return [
        {
            **{name: getattr(one, name) for name in ("prompt", "sample", "judge", "repeat")},
            **{name: (one.grades or {}).get(name) for name in GRADES},
            "tokens_in": one.tokens_in,
            "tokens_out": one.tokens_out,
        }
        for one in result.graded
    ]


def judging_table(result: JudgeResult) -> RenderableType:
    """Return the mean grades with their intervals and how far gradings agree, in the form of the paper's Table 3."""
    facts = result.provenance
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("")
    for name in result.means:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("grade", *(_grade(mean.mean) for mean in result.means.values()), style="bold")
    table.add_row("95 %", *(_interval(mean) for mean in result.means.values()), style="dim")
    if result.agreement:
        shares = (percent(result.agreement[name].within_one, 0) for name in GRADES)
        table.add_row("within one", *shares)
        table.add_row("kappa", *(_grade(result.agreement[name].kappa) for name in GRADES))
    judges = ", ".join(visible(name) for name in facts["judges"])
    return Group(
        Text.assemble(
            (f"{len(result.completions)} completions", "bold"),
            f" by {visible(facts['model'])}, graded by {judges} {facts['repeats']} time(s)\n",
        ),
        table,
        Text(f"\n{facts['tokens_in']:,} tokens asked, {facts['tokens_out']:,} answered", "dim"),
        *(Text(f"! {visible(note)}", style="yellow") for note in result.warnings),
        *_shown(result),
    )


def _shown(result: JudgeResult) -> list[Text]:
    """Return the first completion, cut short: grades without a text to look at are hard to believe."""
    if not result.completions:
        return []
    first = result.completions[0]
    return [Text.assemble("\n", (plain(first.start, 300), "dim"), " *** ", plain(first.text.strip(), 500))]


def _grade(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _interval(mean: Mean) -> str:
    return "" if mean.low is None or mean.high is None else f"{mean.low:.1f}–{mean.high:.1f}"
