"""`rectilinear pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.done import finished
from rectilinear.cli.hold import hold
from rectilinear.cli.options import Device, Force, Json, token_budget
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import answer, typed
from rectilinear.errors import RectilinearError

if TYPE_CHECKING:
    from rectilinear.ops.pretrain import Progress
    from rectilinear.ops.pretraining.recipe import Recipe

EPILOG = """Examples:

rectilinear pretrain plain --text stories.txt.gz --tokens 10_000_000

rectilinear pretrain cosine --recipe plain/recipe.yaml --penalty cosine

rectilinear pretrain big --size 150m --text roneneldan/TinyStories --text nampdn-ai/tiny-textbooks --minutes 600

rectilinear pretrain big --recipe big/recipe.yaml --resume

rectilinear scan cosine"""


def pretrain(
    out: Annotated[Path, typer.Argument(help="Folder for the recipe, the checkpoints and the model.", metavar="OUT")],
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="A text, jsonl or parquet file (plain or .gz), a Hub dataset, or 'demo'. May be given several times; "
            "a document that came before, case and white space aside, is dropped."
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe.yaml of an earlier run; options given here replace its own.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="tiny (0.8M parameters), mini (14M), 150m, 650m: all Mistral.", show_default="tiny"),
    ] = None,
    penalty: Annotated[
        str | None,
        typer.Option(
            help="none; cosine or mse, between the stream before and after each layer (the paper's); increment.",
            show_default="none",
        ),
    ] = None,
    weight: Annotated[float | None, typer.Option(help="The penalty's, lambda.", show_default="0.5")] = None,
    layers: Annotated[str | None, typer.Option(help="Layers of the penalty, as 3,4,5.", show_default="all")] = None,
    penalty_schedule: Annotated[
        str | None,
        typer.Option(help="constant; warmup: from 0 over a tenth; decay: to 0.", show_default="constant"),
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Increment score that the penalty increment drives each layer to.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Budget in training tokens; a shorter text is read again.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget in time, instead.", show_default="60")] = None,
    read: Annotated[
        float | None,
        typer.Option(help="Million characters of text to read at most.", show_default="what --tokens can use"),
    ] = None,
    holdout: Annotated[
        float | None, typer.Option(help="Share of the text that only judges.", show_default="0.05")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub id of a tokenizer.", show_default="one trained on the text")
    ] = None,
    vocab: Annotated[int | None, typer.Option(help="Tokens of a trained tokenizer.", show_default="the size's")] = None,
    window: Annotated[int | None, typer.Option(help="Context in tokens.", show_default="the size's")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows in one forward pass.", show_default="the size's")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes in one step.", show_default="1")] = None,
    lr: Annotated[float | None, typer.Option(help="AdamW's highest learning rate.", show_default="the size's")] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Share of the budget over which it rises.", show_default="0.02")
    ] = None,
    checkpoints: Annotated[
        int | None,
        typer.Option(help="How many are kept, each at twice the budget of the one before.", show_default="6"),
    ] = None,
    profile: Annotated[
        int | None,
        typer.Option(help="Steps from one linearity profile to the next, in OUT/linearity.jsonl.", show_default="500"),
    ] = None,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--no-bf16", help="Compute in bfloat16.", show_default="on a GPU")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first weights.", show_default="0")] = None,
    data_seed: Annotated[
        int | None, typer.Option(help="Seed of what is held out and of the order.", show_default="0")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last whole checkpoint in OUT, if there is any.")
    ] = False,
    report_to: Annotated[
        str | None, typer.Option(help="Loggers that transformers knows, as tensorboard,wandb.", show_default="none")
    ] = None,
    force: Force = False,
    json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would train and leave.")] = False,
    device: Device = "auto",
) -> None:
    """Train a small language model from scratch, with or without the paper's penalty on the stream.

    OUT gets recipe.yaml, which trains the same model again; checkpoints that other commands take, as
    OUT/checkpoint-100; and the model itself. Runs that differ in the penalty alone start from the same weights and see
    the same batches. Documents are packed into windows, an end token before each, and no token attends across it.
    """
    asked: dict[str, Any] = {
        "text": tuple(text) if text else None,
        "size": size,
        "penalty": penalty,
        "weight": weight,
        "layers": _layers(layers),
        "penalty_schedule": penalty_schedule,
        "target": target,
        "tokens": _number(tokens),
        "minutes": minutes,
        "read": read,
        "holdout": holdout,
        "tokenizer": tokenizer,
        "vocab": vocab,
        "window": window,
        "batch": batch,
        "accumulate": accumulate,
        "rate": lr,
        "warmup": warmup,
        "checkpoints": checkpoints,
        "profile": profile,
        "bf16": bf16,
        "seed": seed,
        "data_seed": data_seed,
    }
    from rectilinear.ops.pretraining.recipe import asked_for
    from rectilinear.results.pretraining import DOCUMENT

    wanted = asked_for(recipe, **asked)
    if dry_run:
        for line in _told(wanted):
            Console(soft_wrap=True, highlight=False).print(line, markup=False)
        return
    if resume and _done(out, wanted):
        finished(out / DOCUMENT, json=json)
        return
    hold(out)
    with progress_bar(Console(stderr=True)) as show:
        show("starting", 0, None, "")
        from rectilinear.ops.pretrain import pretrain

        def on_progress(state: Progress) -> None:
            show(state.task, state.done, state.total, state.said)

        result = pretrain(
            out,
            recipe,
            resume=resume,
            force=force,
            device=device,
            report_to=tuple(name.strip() for name in (report_to or "").split(",") if name.strip()),
            provenance={"command": typed()},
            on_progress=on_progress,
            **asked,
        )
    from rectilinear.report.pretraining import pretrain_table

    answer(result, pretrain_table, json=json, place=out, kind="Model")


def _done(out: Path, wanted: Recipe) -> bool:
    """Tell whether a folder holds a run of this recipe that has ended."""
    from rectilinear.ops.pretraining.recipe import asked_for, differences
    from rectilinear.results.pretraining import DOCUMENT, RECIPE

    whole = (out / DOCUMENT).is_file() and (out / RECIPE).is_file()
    return whole and not differences(asked_for(out / RECIPE), wanted)


def _layers(value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise RectilinearError(f"expected --layers as numbers like 3,4,5, got {value!r}") from None


def _number(value: str | None) -> int | None:
    number = token_budget(value)
    if number == "all":
        raise RectilinearError("expected --tokens as a number, got 'all'")
    return number


def _told(recipe: Recipe) -> list[str]:
    shape = recipe.shape
    kind, size = recipe.limit
    budget = f"{size / 60:g} minutes" if kind == "seconds" else f"{size:,} steps, {size * recipe.step_tokens:,} tokens"
    return [
        f"model      {recipe.size}: {shape.layers} layers of width {shape.width}",
        f"text       {', '.join(recipe.text)}",
        f"penalty    {recipe.penalty}" + ("" if recipe.added is None else f" x {recipe.weight:g}"),
        f"budget     {budget}",
        f"step       {shape.batch} x {recipe.accumulate} windows of {shape.window}, {recipe.step_tokens:,} tokens",
        f"rate       {shape.rate:g}, warm-up {recipe.warmup:.0%}, cosine to 0",
    ]
