"""`rectilinear heal`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.done import is_done
from rectilinear.cli.hold import hold
from rectilinear.cli.options import Device, Dtype, Force, Json, LayersPath, TrustRemoteCode, slug, token_budget
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import answer, typed
from rectilinear.errors import RectilinearError

if TYPE_CHECKING:
    from rectilinear.ops.heal import Outline, Progress
    from rectilinear.results import Plan

EPILOG = """Examples:

rectilinear heal demo-cut --text corpus.jsonl.gz --minutes 20

rectilinear heal small --teacher HuggingFaceTB/SmolLM2-135M --text notes.txt --batch 8 --bf16 --tokens 10_000_000

rectilinear heal small --text notes.txt --train lora --steps 500 --checkpoints ckpt --report-to tensorboard

rectilinear heal small --text notes.txt --train lora --steps 500 --checkpoints ckpt --report-to tensorboard --resume

rectilinear heal with-maps --text stories.txt --loss mse --train maps --cache-teacher logits"""


def heal(
    model: Annotated[
        str, typer.Argument(help="A folder written by `rectilinear prune`, with its plan.json.", metavar="DIR")
    ],
    teacher: Annotated[
        str | None,
        typer.Option(help="The dense model, as it was before the cut.", metavar="MODEL", show_default="the plan's"),
    ] = None,
    text: Annotated[
        str,
        typer.Option(help="A text, jsonl or parquet file (plain or .gz), a Hub dataset, '-' for stdin, or 'demo'."),
    ] = "demo",
    loss: Annotated[
        Literal["kl", "mse"],
        typer.Option(help="kl: of next-token distributions. mse: of the stream after every layer (the paper's)."),
    ] = "kl",
    train: Annotated[
        Literal["repaired", "maps", "lora", "all"],
        typer.Option(
            help="repaired: the MLP projections before each cut, and linear blocks. maps: linear blocks only. lora: "
            "low-rank adapters everywhere, merged at the end. all: every parameter."
        ),
    ] = "all",
    minutes: Annotated[
        float | None, typer.Option(help="Budget of training time, evaluation not counted.", show_default="20")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in optimizer steps, instead.")] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Budget in training tokens, instead; a shorter text is read again.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="AdamW's highest learning rate.", show_default="1e-4; 3e-4 for maps and lora"),
    ] = None,
    schedule: Annotated[
        Literal["cosine", "linear"], typer.Option(help="How the rate falls to 0 at the budget's end.")
    ] = "cosine",
    warmup: Annotated[float, typer.Option(help="Share of the budget over which the rate rises.")] = 0.05,
    window: Annotated[int, typer.Option(help="Context in tokens.", min=2)] = 512,
    protocol: Annotated[
        Literal["joined", "documents"],
        typer.Option(help="joined: all documents as one text. documents: no window crosses from one to the next."),
    ] = "joined",
    batch: Annotated[int, typer.Option(help="Windows in one forward pass.", min=1)] = 1,
    accumulate: Annotated[int, typer.Option(help="Forward passes in one step.", min=1)] = 1,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Teacher's likeliest tokens that kl compares, the rest as one.",
            min=1,
            show_default="all; 64 where cached",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Softens both distributions of kl.")] = 1.0,
    rank: Annotated[int, typer.Option(help="Rank of the adapters of lora.", min=1)] = 16,
    holdout: Annotated[int, typer.Option(help="Windows at the end of the text that only judge.", min=1)] = 16,
    read: Annotated[
        str | None,
        typer.Option(help="Tokens of the text to read.", show_default="the budget's; a million where it is minutes"),
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16; weights train in float32.")] = False,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Keep the Trainer's last checkpoints here, each tenth of the budget.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last of --checkpoints, if there is any.")
    ] = False,
    report_to: Annotated[
        str | None, typer.Option(help="Loggers that transformers knows, as tensorboard,wandb.", show_default="none")
    ] = None,
    cache_teacher: Annotated[
        Path | None,
        typer.Option(help="Keep the teacher's top-k logits here: a window seen before needs no teacher."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the healed checkpoint.", show_default="DIR-healed; none with --json"),
    ] = None,
    force: Force = False,
    json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would train and leave.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    layers_path: LayersPath = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the order of windows and of the adapters.")] = 0,
) -> None:
    """Train a cut model towards the dense one it was cut from, for a given time, and judge it before and after.

    The healed checkpoint is of the same form as the cut one. The cut model trains in float32 (--dtype is the
    teacher's) and is saved in its own precision. Nothing is written unless all went well, checkpoints and caches aside.
    """
    from rectilinear.data.text import read_text
    from rectilinear.report.folder import check_writable
    from rectilinear.report.healing import DOCUMENT
    from rectilinear.results import Plan

    known = Plan.load(model)  # a wrong one is said before a model is loaded
    target = out or (None if json else Path(f"{slug(model)}-healed"))
    if target is not None and not dry_run:
        if resume and not force and is_done(target, DOCUMENT, json=json):
            return
        check_writable(target, force, DOCUMENT)
    source = read_text(text)
    wishes: dict[str, Any] = {
        "loss": loss,
        "train": train,
        "minutes": minutes,
        "steps": steps,
        "tokens": _number("--tokens", tokens),
        "rate": lr,
        "schedule": schedule,
        "warmup": warmup,
        "window": window,
        "protocol": protocol,
        "batch": batch,
        "accumulate": accumulate,
        "top_k": top_k,
        "temperature": temperature,
        "rank": rank,
        "holdout": holdout,
        "read": _number("--read", read),
        "bf16": bf16,
        "checkpoints": checkpoints,
        "resume": resume,
        "report_to": tuple(name.strip() for name in (report_to or "").split(",") if name.strip()),
        "cache_teacher": cache_teacher,
        "layers_path": layers_path,
        "seed": seed,
    }
    loading: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    named = teacher or known.model
    if dry_run:
        for line in (
            *_told(_outlined(model, known, wishes, loading)),
            f"text       {source.id}",
            f"teacher    {named}",
        ):
            Console(soft_wrap=True, highlight=False).print(line, markup=False)
        return
    hold(target, checkpoints)
    with progress_bar(Console(stderr=True)) as show:
        show(f"loading {named}", 0, None, "")
        from rectilinear.models.load import check_found, load
        from rectilinear.ops.heal import check_teacher, heal_

        check_found(model, trust_remote_code=trust_remote_code)
        dense, _ = load(named, dtype=dtype, **loading)
        check_teacher(dense, known)
        show(f"loading {model}", 0, None, "")
        student, tokenizer = load(model, dtype="float32", **loading)

        def on_progress(state: Progress) -> None:
            show(state.task, state.done, state.total, state.said)

        facts = {"command": typed(), "text": source.id, "student": model}
        done = heal_(
            student,
            dense,
            tokenizer,
            texts=source.documents(),
            plan=known,
            provenance=facts,
            on_progress=on_progress,
            **wishes,
        )
        if target is not None:
            show(f"writing {target}", 0, None, "")
            done.save(target, force=force)
    from rectilinear.report.healing import heal_table

    answer(done.result, heal_table, json=json, place=target, kind="Model")


def _number(option: str, value: str | None) -> int | None:
    number = token_budget(value)
    if number == "all":
        raise RectilinearError(f"expected {option} as a number, got 'all'")
    return number


def _outlined(model: str, plan: Plan, wishes: dict[str, Any], loading: dict[str, Any]) -> Outline:
    from rectilinear.models.load import load
    from rectilinear.ops.heal import outline

    return outline(load(model, dtype="float32", **loading)[0], plan, **wishes)


def _told(said: Outline) -> list[str]:
    recipe = said.recipe
    kind, size = recipe.limit
    budget = f"{size / 60:g} minutes" if kind == "seconds" else f"{size:,.0f} {kind}"
    if kind == "steps":
        budget += f", {size * recipe.step_tokens:,.0f} tokens"
    elif kind == "tokens":
        budget += f", about {size / recipe.step_tokens:,.0f} steps"
    kept = "the whole vocabulary" if recipe.kept is None else f"the teacher's {recipe.kept} likeliest tokens"
    return [
        f"train      {recipe.train}: {said.trained:,} of {said.parameters:,} parameters",
        f"loss       {recipe.loss}{f' over {kept}' if recipe.loss == 'kl' else ' of the stream after every layer'}",
        f"budget     {budget}",
        f"step       {recipe.batch} x {recipe.accumulate} windows of {recipe.window}, {recipe.step_tokens:,} tokens",
        f"rate       {recipe.learning_rate:g}, warm-up {recipe.warmup:.0%}, {recipe.schedule} to 0",
        f"memory     {said.bytes / 1e6:,.1f} MB for gradients and AdamW, beside both models",
        f"reads      at most {recipe.needed:,} tokens, {recipe.holdout} windows of them only to judge",
    ]
