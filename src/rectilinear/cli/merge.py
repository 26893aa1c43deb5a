"""`rectilinear merge`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import Force, Json
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import answer, note, typed
from rectilinear.cli.scanning import beside, table_of

if TYPE_CHECKING:
    from rectilinear.ops.shards import Shards

EPILOG = """Examples:

for i in 1 2 3; do rectilinear scan demo --shard $i/3 --out fit-$i; done

rectilinear merge fit-1 fit-2 fit-3 --out fit

for i in 1 2 3; do rectilinear scan demo --shard $i/3 --maps fit --out heldout-$i; done

rectilinear merge fit heldout-* --out scan"""


def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders written by `scan --shard`, or by this command.", metavar="DIR...")
    ],
    out: Annotated[Path, typer.Option(help="Folder for what they make up.")],
    force: Force = False,
    json: Json = False,
    keep_moments: Annotated[
        bool, typer.Option("--keep-moments", help="Keep the moments beside the result, as `scan --keep-moments` does.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the shards make up and what is missing; write nothing.")
    ] = False,
) -> None:
    """Merge the shards of a scan, in any order and grouping.

    The shares of the fit part make the maps that those of the held-out part are judged by; both together are the scan,
    and its report is written. Anything less is a shard again, to be merged with the rest.
    """
    from rectilinear.ops.shards import DOCUMENT, Shards
    from rectilinear.report.folder import DOCUMENT as RESULT
    from rectilinear.report.folder import check_writable

    shards = Shards.of(folders)
    check_writable(out, force, RESULT if shards.whole else DOCUMENT)
    if dry_run:
        _tell(shards, out, json)
        return
    hold(out)
    if shards.whole:
        _whole(shards, out, force=force, json=json, keep_moments=keep_moments)
    else:
        _part(shards, out, force=force, json=json)


def _tell(shards: Shards, out: Path, json: bool) -> None:
    from rectilinear.cli.dry import tell_facts

    facts = {part: list(shards.held(part)) for part in ("fit", "heldout")}
    tell_facts(
        {"model": shards.first.facts["model"], **facts, "missing": shards.lack() or None, "output": str(out)}, json=json
    )


def _whole(shards: Shards, out: Path, *, force: bool, json: bool, keep_moments: bool) -> None:
    """Write the result of a scan that is all there, and print it."""
    with progress_bar(Console(stderr=True), "shards") as show, beside(out, keep_moments) as moments:
        states = sum(bool(getattr(shard, part)) for shard in shards.members.values() for part in ("fit", "heldout"))
        result = shards.result(
            keep_moments=moments,
            provenance={"command": typed()},
            on_shard=lambda done: show("merging", done, states, "" if done < states else "solving"),
        )
        show("writing the report", 0, None, "")
        result.save(out, force=force)
    answer(result, table_of, json=json, place=out / "report.html")


def _part(shards: Shards, out: Path, *, force: bool, json: bool) -> None:
    """Write what is there as one shard, and say what to do next."""
    from rectilinear.ops.shards import DOCUMENT
    from rectilinear.report.folder import write_folder

    with progress_bar(Console(stderr=True), "shards") as show:

        def fill(folder: Path) -> None:
            shards.save(folder, lambda done: show("merging", done, None, ""))

        write_folder(out, fill, force=force, marker=DOCUMENT)
    if json:
        sys.stdout.write((out / DOCUMENT).read_text(encoding="utf-8"))
    note(f"Shards: {out}; missing to be a scan: {shards.lack()}")
    if not shards.missing("fit") and not shards.held("heldout"):
        shares = shards.first.same["of"]
        note(f"Next: the scan's command with --shard I/{shares} --maps {out}, for I from 1 to {shares}")
