"""`rectilinear report` and `rectilinear compare`: from saved results, without torch."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.say import answer, note
from rectilinear.errors import ResultError

REPORT_EPILOG = """Examples:

rectilinear report scan-demo

rectilinear report scans/* --png

rectilinear report scan-demo --json | jq '.layers[].score.heldout'"""
COMPARE_EPILOG = """Examples:

rectilinear compare scan-small scan-large --out compare

rectilinear compare before after --labels before,after --force"""


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders written by `scan`, `tokens`, `trace`, `delta`, `probe` or `finetune`.", metavar="DIR..."
        ),
    ],
    png: Annotated[bool, typer.Option("--png", help="Draw the PNG plots again too; takes seconds.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result documents instead of tables.")] = False,
) -> None:
    """Draw the table, SVG plots, CSV and HTML page of saved results again, without the model."""
    from rectilinear.report.again import kind_of

    for folder in folders:
        kind = kind_of(folder)
        result = kind.load(folder)
        where = folder if folder.is_dir() else folder.parent
        hold(where)
        kind.render(result, where, png=png)
        answer(result, kind.table, json=json, place=where / kind.page)


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Two or more folders written by a scan.", metavar="DIR...")],
    labels: Annotated[
        str | None, typer.Option(help="Names for them, separated by commas.", show_default="the models' names")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the plots and the page.")] = Path("compare"),
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if it exists.")] = False,
    png: Annotated[bool, typer.Option("--png", help="Draw the plots as PNG too; takes seconds.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Overlay scans on normalised depth (Figures 1 and 3 of the paper), with means and deltas to the first."""
    if len(folders) < 2:
        raise ResultError(f"expected two or more scan folders to compare, got {len(folders)}")
    from rectilinear.report.compare import DOCUMENT as COMPARE
    from rectilinear.report.compare import compare as build
    from rectilinear.report.compare import save_compare
    from rectilinear.report.folder import check_writable, load
    from rectilinear.report.terminal import compare_table

    check_writable(out, force, COMPARE)
    hold(out)
    results = [load(folder) for folder in folders]
    names = labels.split(",") if labels else _names(folders, [str(r.provenance.get("model")) for r in results])
    if len(names) != len(results):
        raise ResultError(f"expected {len(results)} labels, one a folder, got {len(names)}: {', '.join(names)}")
    save_compare(results, names, out, force=force, png=png)
    if json:
        sys.stdout.write(jsonlib.dumps(build(results, names), indent=1) + "\n")
    else:
        Console().print(compare_table(results, names))
    note(f"Page: {out / 'compare.html'}")


def _names(folders: list[Path], models: list[str]) -> list[str]:
    """Return the models' names, the folders' where those do not tell them apart."""
    return models if len(set(models)) == len(models) else [folder.name or str(folder) for folder in folders]
