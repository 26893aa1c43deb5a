"""`rectilinear trace`."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import (
    Device,
    DryRun,
    Dtype,
    Force,
    Holdout,
    Json,
    LayersPath,
    ScanBatch,
    SinkMultiple,
    TrustRemoteCode,
    check_either,
    slug,
    token_budget,
)
from rectilinear.cli.progress import hint, progress_bar
from rectilinear.cli.say import answer, typed
from rectilinear.files import discard, under_way

if TYPE_CHECKING:
    from rectilinear.ops.trace import Outline, Progress
    from rectilinear.results import ScanResult, TraceResult

EPILOG = """Examples:

rectilinear trace my-run

rectilinear trace my-run --resume

rectilinear trace demo:tiny --tokens 32768

rectilinear trace EleutherAI/pythia-70m --revisions pythia:8 --text notes.txt

rectilinear trace EleutherAI/pythia-410m --revisions step1000,step10000,step143000 --dry-run

rectilinear trace --checkpoints 'runs/small-*/final' --text stories.txt --json | jq '.checkpoints[].increment'"""


def trace(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A folder that holds checkpoint-STEP folders, 'demo:tiny', 'demo:tiny-cosine', or, with --revisions, "
            "a Hub id. With --checkpoints it may be left out.",
            metavar="MODEL_OR_DIR",
            show_default=False,
        ),
    ] = None,
    revisions: Annotated[
        str | None,
        typer.Option(
            help="Branches or tags on the Hub, as step1,step512,step143000; 'pythia' for the 154 that every Pythia "
            "model has, 'pythia:8' for eight of them on a logarithmic scale."
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(help="Pattern of folders, in quotes, as 'out/checkpoint-*'.", show_default="checkpoint-* in DIR"),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="A text, jsonl or parquet file (plain or .gz), a Hub dataset, '-' for stdin, or 'demo'.",
            show_default="demo; stories for demo:tiny, where they come with it",
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Tokens that every checkpoint reads, or 'all'.",
            show_default="32 x the stream's width, at least 16384",
        ),
    ] = None,
    window: Annotated[int, typer.Option(help="Longest context, in tokens.", min=1)] = 512,
    holdout: Holdout = 0.25,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the scans and the report.", show_default="trace-MODEL; none with --json"),
    ] = None,
    force: Force = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in the folder, if it is there: scans in it are not made again.")
    ] = False,
    json: Json = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    batch_tokens: ScanBatch = None,
    sink_multiple: SinkMultiple = 10.0,
    layers_path: LayersPath = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap and of the samples.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Follow linearity along training: scan every checkpoint on the very same windows of a text.

    The step is read from a checkpoint's name or its trainer_state.json. Each scan is kept as soon as it is done, in
    OUT/scans, and its state on the way each ten minutes and on a SIGTERM; --resume goes on from there, also when more
    checkpoints have come. At the end there are trace.json, layers.csv, plots and trace.html, which `rectilinear report
    OUT` draws again.
    """
    budget = token_budget(tokens)
    target = out or (
        None if json and not resume else Path(f"trace-{slug(model or str(Path(checkpoints or '').parent))}")
    )
    from rectilinear.data.text import read_text
    from rectilinear.models.siblings import default_text

    source = read_text(text or default_text(model or ""))
    done = _before(target, force=force, resume=resume)
    where: dict[str, Any] = {"revisions": revisions, "checkpoints": checkpoints}
    wishes: dict[str, Any] = {
        "tokens": budget,
        "window": window,
        "holdout": holdout,
        "batch_tokens": batch_tokens,
        "layers_path": layers_path,
        "dtype": dtype,
        "device": device,
        "trust_remote_code": trust_remote_code,
    }
    if dry_run:
        from rectilinear.ops.trace import outline

        _tell(outline(model, **where, **wishes, done=done), source.id, target, json=json)
        return
    hold(target)
    kept: list[TraceResult] = []

    def on_scan(so_far: TraceResult, scan: ScanResult) -> None:
        if target is not None:
            so_far.keep(scan, target, fresh=done is None and not kept, force=force)
            kept.append(so_far)

    states = None if target is None else under_way(target)
    if states is not None and not resume:
        discard(states)
    with hint(lambda: _kept(kept, target, states)), progress_bar(Console(stderr=True)) as show:
        show("looking for checkpoints", 0, None, "")
        from rectilinear.ops.trace import trace as run

        def on_progress(state: Progress) -> None:
            show("tracing" if state.total else "preparing", state.done, state.total or None, state.said)

        result = run(
            model,
            source.documents(),
            **where,
            **wishes,
            sink_multiple=sink_multiple,
            seed=seed,
            done=done,
            states=states,
            provenance={"text": source.id, "command": typed()},
            on_progress=on_progress,
            on_scan=on_scan,
        )
        if target is not None:
            from rectilinear.report.trace import render_trace

            show(f"drawing {target}", 0, None, "")
            render_trace(result, target, png=True)
    from rectilinear.report.trace import PAGE, trace_table

    answer(result, trace_table, json=json, place=target and target / PAGE)


def _kept(kept: list[TraceResult], target: Path | None, states: Path | None) -> str:
    """Return what is there to go on from, "" for nothing."""
    if not kept:
        from rectilinear.ops.resume import Checkpoints

        under_way = states is not None and Checkpoints(states).there()
        return f"What the first scan has gathered is kept in {states}: go on with --resume" if under_way else ""
    done, every = len(kept[-1].points), len(kept[-1].provenance["steps"])
    return f"{done} of {every} checkpoints are scanned and kept in {target}: go on with --resume"


def _before(target: Path | None, *, force: bool, resume: bool) -> TraceResult | None:
    """Return what is in the folder to go on from; raises ResultError where the folder must not be written."""
    check_either(force, resume)
    from rectilinear.report.folder import check_writable
    from rectilinear.report.trace import DOCUMENT, load_trace

    if resume and target is not None and target.is_dir() and any(target.iterdir()):
        return load_trace(target)
    if target is not None:
        check_writable(target, force, DOCUMENT)
    return None


def _tell(told: Outline, text: str, out: Path | None, *, json: bool) -> None:
    """Print what would be done."""
    if json:
        facts = asdict(told) | {"text": text, "out": None if out is None else str(out)}
        sys.stdout.write(jsonlib.dumps(facts, indent=1) + "\n")
        return
    from rich.text import Text

    from rectilinear.cli.dry import facts_table, lines
    from rectilinear.report.text import visible

    table = facts_table()
    for one in told.checkpoints:
        table.add_row(f"step {one.step:,}", Text(visible(one.name) + (" (scanned already)" if one.scanned else "")))
    table.add_row("text", Text(visible(text)))
    for name, value in lines(told.scan):
        table.add_row(name, value)
    left = sum(not one.scanned for one in told.checkpoints)
    if told.scan.tokens is not None:
        table.add_row("in all", f"{left} x {told.scan.tokens:,} = {left * told.scan.tokens:,} tokens")
    if told.seconds is not None:
        table.add_row("time", f"at least {_spent(told.seconds)}: the matrix products, at the speed of one timed now")
    table.add_row("output", Text(visible(out or "none")))
    Console().print(table)


def _spent(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
