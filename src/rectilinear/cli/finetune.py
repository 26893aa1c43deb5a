"""`rectilinear finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import (
    BatchTokens,
    Device,
    DryRun,
    Force,
    Json,
    LayersPath,
    TrustRemoteCode,
    check_either,
    slug,
    token_budget,
)
from rectilinear.cli.progress import hint, progress_bar
from rectilinear.cli.say import answer, typed
from rectilinear.errors import RectilinearError, ResultError

if TYPE_CHECKING:
    from rectilinear.data.preferences import Pairs
    from rectilinear.data.tasks import Task
    from rectilinear.ops.finetune import Finetuned
    from rectilinear.ops.progress import Progress
    from rectilinear.results import FinetuneResult

EPILOG = """Examples:

rectilinear finetune demo --task cb --seeds 3 --steps 60

rectilinear finetune HuggingFaceTB/SmolLM2-135M --task boolq --method lora --examples 9000 --text corpus.jsonl.gz

rectilinear finetune demo --task reward --steps 200 --keep-models --out rewarded

rectilinear finetune demo --task reviews.jsonl --seeds 5 --out reviews --resume"""


def finetune(
    model: Annotated[str, typer.Argument(help="A Hub id, a local folder, a .gguf file, or 'demo'.")],
    task: Annotated[
        str,
        typer.Option(
            help="boolq, multirc, cb, rte, copa, wic, arc_easy, or reward (pairs of answers); or a jsonl or parquet "
            "file with label and text, with label, question and passage, or with chosen and rejected."
        ),
    ],
    test: Annotated[
        str | None,
        typer.Option(help="Another such file, which judges.", show_default="a fifth of a file; a task has its own"),
    ] = None,
    method: Annotated[
        Literal["full", "lora"], typer.Option(help="full: all parameters. lora: adapters, merged at the end.")
    ] = "full",
    seeds: Annotated[int, typer.Option(help="How often, each time afresh, with seeds 0, 1 ...", min=1)] = 3,
    steps: Annotated[
        int | None, typer.Option(help="Budget in optimizer steps.", min=1, show_default="3000 examples")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(help="Budget in examples, instead; a smaller task is read again.", min=1)
    ] = None,
    test_examples: Annotated[
        int | None, typer.Option(help="Examples to judge on, drawn once.", min=2, show_default="all")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="AdamW's highest learning rate.", show_default="2e-5; 2e-4 for lora")
    ] = None,
    warmup: Annotated[float, typer.Option(help="Share of the budget over which the rate rises.")] = 0.1,
    batch: Annotated[int, typer.Option(help="Examples in one forward pass.", min=1)] = 8,
    accumulate: Annotated[int, typer.Option(help="Forward passes in one step.", min=1)] = 1,
    window: Annotated[int, typer.Option(help="Tokens of an example at most.", min=2)] = 512,
    rank: Annotated[int, typer.Option(help="Rank of the adapters of lora.", min=1)] = 16,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16; weights train in float32.")] = False,
    text: Annotated[
        str,
        typer.Option(
            help="To scan on: a text, jsonl or parquet file (plain or .gz), a Hub dataset, '-' for stdin, or 'demo'."
        ),
    ] = "demo",
    tokens: Annotated[
        str | None, typer.Option(help="Tokens to scan.", show_default="32 x the stream's width, at least 16384")
    ] = None,
    scan_window: Annotated[int, typer.Option(help="Longest context of the scans, in tokens.", min=1)] = 512,
    holdout: Annotated[float, typer.Option(help="Share of the scans' tokens, from the end, that judges.")] = 0.25,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep the fine-tuned models, as seed-0, seed-1 ... in the folder.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="finetune-TASK; none with --json")
    ] = None,
    force: Force = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in the folder, if it is there: seeds in it are not made again.")
    ] = False,
    json: Json = False,
    dry_run: DryRun = False,
    device: Device = "auto",
    batch_tokens: BatchTokens = 4096,
    layers_path: LayersPath = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Fine-tune a model on a task, several times, and say what that does to the linearity of its layers (Table 1).

    A head on the last real token learns two classes, or rewards of answers. Each model is scanned before and after on
    the same windows of text. A seed is kept as soon as it is done; --resume goes on after the last. Reward models need
    the extra `reward`, which is TRL; lora needs the extra `train`.
    """
    budget = token_budget(tokens)
    if budget == "all":
        raise RectilinearError("expected --tokens as a number, got 'all'")
    target = out or (None if json and not resume else Path(f"finetune-{slug(task).split('.')[0]}"))
    done = _before(target, force=force, resume=resume, looks=dry_run)
    wishes: dict[str, Any] = {
        "method": method,
        "steps": steps,
        "examples": examples,
        "rate": lr,
        "warmup": warmup,
        "batch": batch,
        "accumulate": accumulate,
        "window": window,
        "rank": rank,
        "bf16": bf16,
        "tokens": budget,
        "scan_window": scan_window,
        "holdout": holdout,
        "batch_tokens": batch_tokens,
        "layers_path": layers_path,
    }
    from rectilinear.data.preferences import read_lessons
    from rectilinear.data.text import read_text

    source = read_text(text)
    lessons = read_lessons(task, test=test, test_limit=test_examples)
    loading: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    if dry_run:
        from rectilinear.cli.dry import tell_facts

        facts = _forecast(model, lessons, wishes, loading)
        left = seeds - sum(seed.seed < seeds for seed in done.seeds) if done else seeds
        tell_facts(
            {**facts, "seeds": left, "text": source.id, "out": None if target is None else str(target)}, json=json
        )
        return
    hold(target)
    kept = [done] if done else []
    with hint(lambda: _kept(kept, seeds, target)), progress_bar(Console(stderr=True)) as show:
        show(f"looking for {model}", 0, None, "")
        from rectilinear.ops.finetune import finetune as run

        def on_progress(state: Progress) -> None:
            show(state.task, state.done, state.total, state.said, state.unit)

        def on_seed(made: Finetuned) -> None:
            if target is not None:
                from rectilinear.report.finetuning import keep_seed

                weights = made.save_model if keep_models else None
                keep_seed(made.result, made.seed, target, weights, fresh=not kept, force=force)
                kept.append(made.result)

        result = run(
            model,
            lessons,
            source.documents(),
            seeds=range(seeds),
            **loading,
            **wishes,
            done=done,
            provenance={"text": source.id, "command": typed()},
            on_progress=on_progress,
            on_seed=on_seed,
        )
        if target is not None:
            from rectilinear.report.finetuning import render_finetune

            show(f"drawing {target}", 0, None, "")
            render_finetune(result, target, png=True)
    from rectilinear.report.finetuning import finetune_table

    answer(result, finetune_table, json=json, place=target and target / "report.html")


def _kept(kept: list[FinetuneResult], seeds: int, target: Path | None) -> str:
    """Return what is there to go on from, "" for nothing."""
    return f"{len(kept[-1].seeds)} of {seeds} seeds are kept in {target}: go on with --resume" if kept else ""


def _before(target: Path | None, *, force: bool, resume: bool, looks: bool) -> FinetuneResult | None:
    """Return what is in the folder to go on from; raises ResultError where the folder must not be written."""
    check_either(force, resume)
    from rectilinear.report.finetuning import DOCUMENT, load_finetune
    from rectilinear.report.folder import check_writable

    if resume and target is not None and target.exists():
        return load_finetune(target)
    if target is not None and not looks:
        if not force and (target / DOCUMENT).is_file():
            raise ResultError(
                f"{target} holds seeds: go on with --resume, replace it with --force, or choose another --out"
            )
        check_writable(target, force, DOCUMENT)
    return None


def _forecast(model: str, lessons: Task | Pairs, wishes: dict[str, Any], loading: dict[str, Any]) -> dict[str, Any]:
    """Return what would be done, from the configuration alone."""
    from rectilinear.models.load import skeleton
    from rectilinear.ops.finetuning.loop import check_installed
    from rectilinear.ops.finetuning.recipe import FinetuneRecipe
    from rectilinear.ops.forecast import budget_of

    recipe = FinetuneRecipe(**wishes)
    recipe.check()
    check_installed(recipe, pairs=not hasattr(lessons, "labels"))
    empty = skeleton(model, dtype="float32", **loading)
    return {
        "model": model,
        "task": f"{lessons.name} from {lessons.source}",
        "learn from": len(lessons.train),
        "judge on": len(lessons.test),
        "method": recipe.method,
        "budget": f"{recipe.limit:,} steps of {recipe.batch * recipe.accumulate} examples",
        "rate": recipe.learning_rate,
        "parameters": sum(parameter.numel() for parameter in empty.parameters()),
        "scans": f"{budget_of(empty, recipe.tokens):,} tokens before, and after each seed",
    }
