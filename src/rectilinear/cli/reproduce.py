"""`rectilinear reproduce`."""

from __future__ import annotations

import contextlib
import io
import json as jsonlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import Json, check_either
from rectilinear.cli.progress import hint
from rectilinear.cli.say import answer, note, typed
from rectilinear.errors import RectilinearError, ResultError
from rectilinear.files import discard, writing

if TYPE_CHECKING:
    from rectilinear.reproduction.execute import Step
    from rectilinear.reproduction.log import Log
    from rectilinear.reproduction.recipe import Recipe

EPILOG = """Examples:

rectilinear reproduce --list

rectilinear reproduce fig1 --dry-run

rectilinear reproduce fig1 fig3 fig9 --out claims

rectilinear reproduce all --out claims --resume

rectilinear reproduce table1 --scale paper --dry-run"""


def reproduce(
    parts: Annotated[
        list[str] | None, typer.Argument(help="fig1 to fig9, table1 to table3, or 'all'.", metavar="PART...")
    ] = None,
    scale: Annotated[
        Literal["smoke", "paper"],
        typer.Option(help="smoke: the demo models, on two cores, in minutes. paper: as published, with Hub and GPU."),
    ] = "smoke",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the runs and the report.", show_default="reproduction-SCALE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Start again: remove the folder first, if it exists.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in the folder, if it is there: finished runs are not made again.")
    ] = False,
    json: Json = False,
    listed: Annotated[bool, typer.Option("--list", help="List the claims and leave.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands and the time they take; write nothing.")
    ] = False,
) -> None:
    """Make figures and tables of "Your Transformer is Secretly Linear" again, and judge each of its claims.

    Every part rests on commands of this package, which --dry-run prints. They write into OUT/runs, where they are found
    again by --resume and by other parts. OUT/report gets reproduction.json, figures, tables of paper against measured,
    a verdict a claim with the numbers that decide it, and reproduction.html.
    """
    from rectilinear.reproduction.recipe import ALL, chosen

    if listed:
        _listed(chosen(parts or [ALL]))
        return
    if not parts:
        raise RectilinearError("expected parts like fig1 or table1, or all, got none: --list shows them")
    recipes = chosen(parts)
    target = out or Path(f"reproduction-{scale}")
    from rectilinear.models.siblings import default_text
    from rectilinear.reproduction.execute import reproduce as run
    from rectilinear.reproduction.execute import steps
    from rectilinear.reproduction.runs import planned

    log = _opened(target, scale, force=force, resume=resume, looks=dry_run)
    plan, stories = planned(scale), default_text("demo:tiny")
    if dry_run:
        _told(steps(recipes, plan, log, stories), target, json=json)
        return
    from rectilinear.digests import SUMS, write_sums
    from rectilinear.ops.provenance import run_facts
    from rectilinear.report.reproduction import DOCUMENT, PAGE, load_reproduction, reproduction_table
    from rectilinear.reproduction.log import REPORT

    report = target / REPORT
    facts = {"scale": scale, **run_facts(), "command": typed()}
    with hint(lambda: _kept(log)):
        with writing(target):
            (target / SUMS).unlink(missing_ok=True)  # they come again in the end
        log.write()
        result = run(
            recipes,
            plan,
            log,
            stories,
            call=_call,
            on_step=_announced,
            before=load_reproduction(report) if (report / DOCUMENT).is_file() else None,
            provenance=facts,
        )
        result.save(report, force=True)
        with writing(target):
            write_sums(target)
    answer(result, reproduction_table, json=json, place=report / PAGE, kind="Page")


def _opened(target: Path, scale: str, *, force: bool, resume: bool, looks: bool) -> Log:
    """Return the log to go on from; raises ResultError where the folder must not be written."""
    from rectilinear.report.folder import check_writable
    from rectilinear.reproduction.log import DOCUMENT, Log

    check_either(force, resume)
    if not looks:
        hold(target)
    if resume or looks:
        return Log(target, scale) if force else Log.open(target, scale)
    check_writable(target, force, DOCUMENT)
    discard(target)
    if target.exists():
        raise ResultError(f"cannot remove {target}: remove it by hand, or choose another --out")
    return Log(target, scale)


def _call(arguments: Sequence[str]) -> None:
    """Carry a command of this package out, its progress on the screen, its table not."""
    import click

    from rectilinear.cli.main import app

    with _typed(arguments), contextlib.redirect_stdout(io.StringIO()):
        try:
            typer.main.get_command(app).main(list(arguments), prog_name="rectilinear", standalone_mode=False)
        except click.Abort:
            raise KeyboardInterrupt from None


@contextlib.contextmanager
def _typed(arguments: Sequence[str]) -> Iterator[None]:
    """Let a command record itself in its result, not this one."""
    whole = sys.argv
    sys.argv = ["rectilinear", *arguments]
    try:
        yield
    finally:
        sys.argv = whole


def _kept(log: Log) -> str:
    done = sum(log.seconds(name) is not None for name in log.runs)
    return f"{done} runs are finished and kept in {log.folder}: go on with --resume"


def _announced(step: Step, left: Sequence[Step]) -> None:
    """Say which command comes, and how long all that are left take."""
    from rectilinear.report.text import visible

    minutes = sum(one.run.minutes or 0 for one in left)
    time = f", about {_time(minutes)}" if minutes else ""
    line = f"{len(left)} to go{time}: {visible(step.typed)}"
    note(line, style="dim")


def _told(planned: Sequence[Step], out: Path, *, json: bool) -> None:
    """Print the commands that would run, and what they take."""
    from rectilinear.report.text import visible
    from rectilinear.reproduction.runs import GPU

    left = [step.run for step in planned if not step.finished]
    minutes = sum(run.minutes or 0 for run in left)
    flops = sum(run.flops or 0 for run in left)
    if json:
        runs = [
            {"name": s.run.name, "command": s.typed, "finished": s.finished, "minutes": s.run.minutes,
             "flops": s.run.flops} for s in planned
        ]  # fmt: skip
        facts = {"runs": runs, "minutes": minutes or None, "flops": flops or None, "out": str(out)}
        sys.stdout.write(jsonlib.dumps(facts, indent=1) + "\n")
        return
    console = Console(soft_wrap=True, highlight=False)
    for step in planned:
        time = "finished" if step.finished else _cost(step.run.minutes, step.run.flops)
        console.print(f"{visible(step.typed)}  # {time}", markup=False)
    total = f"about {_time(minutes)} on two slow cores"
    if flops:
        total = f"{flops:.2g} operations, {flops / GPU / 3600:,.1f} GPU hours at {GPU:.0e} a second"
    console.print(f"\n{len(left)} of {len(planned)} commands, {total}; into {visible(out)}", markup=False)


def _cost(minutes: float | None, flops: float | None) -> str:
    if minutes is not None:
        return f"about {_time(minutes)}"
    return "unknown" if flops is None else f"{flops:.2g} operations"


def _time(minutes: float) -> str:
    return f"{60 * minutes:.0f} s" if minutes < 1 else f"{minutes:.0f} min"


def _listed(recipes: Sequence[Recipe]) -> None:
    """Print the parts and their claims."""
    console = Console(soft_wrap=True, highlight=False)
    for recipe in recipes:
        console.print(f"{recipe.name:<7} {recipe.title} ({recipe.source})", markup=False)
        for claim in recipe.claims:
            console.print(f"        - {claim.says}", markup=False)
