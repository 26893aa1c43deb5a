"""`rectilinear prune`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.done import is_done
from rectilinear.cli.hold import hold
from rectilinear.cli.options import (
    Device,
    Dtype,
    Force,
    Json,
    LayersPath,
    Revision,
    TrustRemoteCode,
    share,
    slug,
    token_budget,
)
from rectilinear.cli.progress import hint, progress_bar
from rectilinear.cli.say import answer, typed
from rectilinear.core.spans import in_words, parse_layers
from rectilinear.errors import ModelError, ResultError
from rectilinear.files import under_way

if TYPE_CHECKING:
    from rectilinear.ops.cut.bench import Progress
    from rectilinear.results import Plan, SweepResult

EPILOG = """Examples:

rectilinear prune demo --remove 6 --out small

rectilinear prune HuggingFaceTB/SmolLM2-135M --remove 20% --text calibration.txt --effort thorough --out small

rectilinear prune my-model --layers 12-17,20 --repair linear --out small

rectilinear prune my-model --max-perplexity-increase 5% --out small

rectilinear prune my-model --plan small/plan.json --text calibration.txt --out the-same

rectilinear prune demo --sweep 0:12 --select linearity,kl --repair none,linear,refit --out curve"""


def prune(
    model: Annotated[str, typer.Argument(help="A Hub id, a local folder, a .gguf file, or 'demo'.")],
    remove: Annotated[
        str | None, typer.Option(help="How many layers to remove: a number, or a share like 20%.", metavar="N|N%")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Which layers to remove, from 0, as 12-17,20 (both ends count).")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Carry out a plan.json again.")] = None,
    max_perplexity_increase: Annotated[
        str | None,
        typer.Option(
            help="Remove as many layers as keep perplexity, on calibration text kept apart, within a share like 5%."
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            help="Judge every number of layers FROM:TO, write no model; --select and --repair may list several.",
            metavar="FROM:TO",
        ),
    ] = None,
    select: Annotated[
        str,
        typer.Option(
            help="How layers are chosen: kl (sets judged by KL to the dense model after their repair), linearity (the "
            "paper's), increment, bi (ShortGPT), angular (one window: UIDL, ReplaceMe), span (the window that one map "
            "replaces best), loss (SLEB), reverse, random."
        ),
    ] = "kl",
    repair: Annotated[
        str,
        typer.Option(
            help="What makes up for them: refit (the MLP projection before a cut, solved again), none, linear (the "
            "paper's maps), patch (one map a span), scalar (Prune&Comp), fold or fold-cosine (ReplaceMe)."
        ),
    ] = "refit",
    refit_after: Annotated[
        bool,
        typer.Option(
            "--refit-after",
            help="Refit the kept layers above the first cut too: nearer on text like --text, farther on other text.",
        ),
    ] = False,
    ridge: Annotated[float, typer.Option(help="Ridge of the refit, towards the old weights.")] = 0.1,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the maps of linear and patch.", show_default="full", min=1)
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="Calibration: a text, jsonl or parquet file (plain or .gz), a Hub dataset, '-', or 'demo'.",
            show_default="demo; stories for demo:tiny, where they come with it",
        ),
    ] = None,
    judge_text: Annotated[
        str | None,
        typer.Option(help="Another text to judge the result on.", show_default="a part of --text, not fitted on"),
    ] = None,
    tokens: Annotated[str, typer.Option(help="Tokens to calibrate on, or 'all'.")] = "32768",
    window: Annotated[int, typer.Option(help="Context in tokens.", min=2)] = 512,
    effort: Annotated[
        Literal["one-shot", "balanced", "thorough"],
        typer.Option(help="How many sets kl tries: none (the paper's order), 4 or 8 a step."),
    ] = "balanced",
    protect: Annotated[str | None, typer.Option(help="Layers that stay, as 0-2,29.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the checkpoint, or the sweep.", show_default="MODEL-cut, MODEL-sweep"),
    ] = None,
    force: Force = False,
    json: Json = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a search that was stopped: no set of layers is tried again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Choose the layers, print the plan and leave.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    layers_path: LayersPath = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the judging windows and of the random selector.")] = 0,
) -> None:
    """Cut depth: choose layers, repair what is left, and save a checkpoint that loads anywhere.

    Prints what was removed and what it cost, judged on calibration text that no repair was fitted on. Layers are
    counted from 0. Nothing is written unless all went well, but for the sets that the search has tried, which are kept
    beside OUT until then.
    """
    from rectilinear.data.text import read_text
    from rectilinear.models.siblings import default_text
    from rectilinear.report.folder import check_writable
    from rectilinear.results import Plan

    if sum(value is not None for value in (remove, layers, plan, max_perplexity_increase, sweep)) != 1:
        raise ModelError("expected one of --remove, --layers, --plan, --max-perplexity-increase and --sweep")
    budget = token_budget(tokens)
    limit, counts = share(max_perplexity_increase), None if sweep is None else _range(sweep)
    known = None if plan is None else Plan.load(plan)  # a wrong one is said before a model is loaded
    target = _target(out, None if json else f"{slug(model)}-{'sweep' if counts else 'cut'}", resume=resume)
    journal = None
    if target is not None and not dry_run:
        if resume and not force and is_done(target, "sweep.json" if counts else "prune.json", json=json):
            return
        check_writable(target, force, "sweep.json" if counts else "plan.json")
        hold(target)
        journal = _journal(target, force=force, resume=resume)
    source, judge = read_text(text or default_text(model)), None if judge_text is None else read_text(judge_text)
    with hint(lambda: _kept(journal)), progress_bar(Console(stderr=True)) as show:
        show(f"loading {model}", 0, None, "")
        from rectilinear.models.load import load
        from rectilinear.models.stack import decoder_stack

        dense, tokenizer = load(
            model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code
        )
        count = len(decoder_stack(dense, layers_path))

        def on_progress(state: Progress) -> None:
            done = f"{state.done}" if state.total is None else f"{state.done} of {state.total}"
            show(state.task, 0, None, f"{done} {'sets tried' if state.total is None else 'layers'}")

        wishes: dict[str, Any] = {
            "texts": source.documents(),
            "window": window,
            "tokens": None if budget == "all" else budget,
            "refit_after": refit_after,
            "ridge": ridge,
            "rank": rank,
            "effort": effort,
            "protect": parse_layers(protect or "", count),
            "seed": seed,
            "layers_path": layers_path,
            "on_progress": on_progress,
        }
        goal: dict[str, Any] = {
            "remove": remove,
            "layers": None if layers is None else parse_layers(layers, count),
            "plan": known,
            "max_perplexity_increase": limit,
        }
        facts = {"command": typed(), "text": source.id, "judge_text": judge_text}
        judged: dict[str, Any] = {
            "judge_texts": None if judge is None else judge.documents(),
            "journal": journal,
            "provenance": facts,
        }
        if counts is not None:
            from rectilinear.ops.sweep import sweep as swept

            kinds: dict[str, Any] = {"selects": _names(select), "repairs": _names(repair)}
            if dry_run:
                said = f"{counts[0]} to {counts[-1]} layers changed, {' and '.join(kinds['selects'])}"
                Console(soft_wrap=True).print(f"{said}, each with {' and '.join(kinds['repairs'])}", markup=False)
                return
            curve = swept(dense, tokenizer, counts=counts, **kinds, **judged, **wishes)
            _shown(curve, target, force, json)
            _done(journal)
            return
        from rectilinear.ops.prune import plan_for, prune_

        wishes |= {"select": select, "repair": repair}
        if dry_run:
            made = known or plan_for(dense, tokenizer, **{k: v for k, v in goal.items() if k != "plan"}, **wishes)
        else:
            cut = prune_(dense, tokenizer, **goal, **judged, **wishes)
            if target is not None:
                show(f"writing {target}", 0, None, "")
                cut.save(target, force=force)
                _done(journal)
    if dry_run:
        _told(made, json)
        return
    from rectilinear.report.pruning import prune_table

    answer(cut.result, prune_table, json=json, place=target, kind="Model")


def _target(out: Path | None, named: str | None, *, resume: bool) -> Path | None:
    """Return the folder to write; raises ResultError where a run to resume has none."""
    if out is None and named is None and resume:
        raise ResultError("expected --out with --json and --resume: what was tried is kept beside it")
    return out or (None if named is None else Path(named))


def _journal(target: Path, *, force: bool, resume: bool) -> Path:
    """Return the file that keeps the sets that are tried; raises ResultError where that of another search is there."""
    path = under_way(target, ".jsonl")
    if path.exists() and not resume:
        if not force:
            raise ResultError(f"{path} keeps an earlier search: add --resume to go on, or --force to start again")
        path.unlink()
    return path


def _done(journal: Path | None) -> None:
    if journal is not None:
        journal.unlink(missing_ok=True)


def _kept(journal: Path | None) -> str:
    """Return what is there to go on from, "" for nothing."""
    if journal is None or not journal.exists():
        return ""
    return f"The sets that were tried are kept in {journal}: go on with --resume"


def _range(text: str) -> range:
    """Return 0:12 as the numbers from 0 to 12."""
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if match is None or int(match[2]) < max(int(match[1]), 1):
        raise ModelError(f"expected --sweep as FROM:TO like 0:12, got {text!r}")
    return range(int(match[1]), int(match[2]) + 1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _told(plan: Plan, json: bool) -> None:
    if json:
        sys.stdout.write(plan.to_json() + "\n")
        return
    lines = [
        f"remove     {in_words(plan.remove)} of {plan.layers}",
        f"chosen by  {plan.select}",
        f"repair     {plan.repair}{', kept layers above refitted too' if plan.refit_after else ''}",
        f"calibrate  {plan.calibration.get('tokens', 0):,} tokens in windows of {plan.calibration.get('window')}",
    ]
    for line in lines:
        Console(soft_wrap=True, highlight=False).print(line, markup=False)


def _shown(result: SweepResult, target: Path | None, force: bool, json: bool) -> None:
    if target is not None:
        result.save(target, force=force)
    from rectilinear.report.sweep import sweep_table

    answer(result, sweep_table, json=json, place=target and target / "sweep.html", kind="Page")
