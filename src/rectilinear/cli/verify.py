"""`rectilinear verify`."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from rectilinear.cli.console import Console
from rectilinear.errors import ResultError

EPILOG = """Examples:

rectilinear verify scan-demo small

rectilinear verify results/* --json"""


def verify(
    folders: Annotated[list[Path], typer.Argument(help="Folders written by any command.", metavar="DIR...")],
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Compare the data of result and model folders with the checksums written beside them; exit code 2 for damage.

    Tables, pages and pictures are left out: `rectilinear report` draws them again. SHA256SUMS has the usual form, so
    `sha256sum --check` reads it too.
    """
    from rectilinear.report.checksums import verify as compare
    from rectilinear.report.text import visible

    found = {str(folder): compare(folder) for folder in folders}
    damaged = [f"{folder}/{line}" for folder, (_, wrong) in found.items() for line in wrong]
    if json:
        document = {folder: {"whole": whole, "damaged": wrong} for folder, (whole, wrong) in found.items()}
        sys.stdout.write(jsonlib.dumps(document, indent=1) + "\n")
    else:
        for folder, (whole, wrong) in found.items():
            lines = [f"{visible(folder)}: {whole} of {whole + len(wrong)} files are as they were written"]
            for line in (*lines, *(f"  {visible(line)}" for line in wrong)):
                Console(soft_wrap=True, highlight=False).print(line, markup=False)
    if damaged:
        raise ResultError(
            f"{len(damaged)} files are damaged, the first {damaged[0]}: make them again, or copy them again"
        )
