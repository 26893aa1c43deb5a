"""`rectilinear eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import BatchTokens, Device, Dtype, Force, Json, TrustRemoteCode, token_budget
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import answer, typed
from rectilinear.errors import RectilinearError

if TYPE_CHECKING:
    from rectilinear.data.text import Text
    from rectilinear.ops.evaluate import Candidate, Progress
    from rectilinear.results import EvalResult

DEMO_TOKENS = 16_384  # of the demo text, which is long
EPILOG = """Examples:

rectilinear eval demo

rectilinear eval my-pruned-model --reference HuggingFaceTB/SmolLM2-135M --text wiki.test.raw

rectilinear eval dense pruned healed --text wiki.test.raw --window 1024 --stride 512 --out judged

rectilinear eval dense pruned --lambada EleutherAI/lambada_openai#test --lambada-limit 500 --speed --json

rectilinear eval dense pruned --tasks arc_easy,piqa,boolq,cb --tasks-limit 200 --out judged"""


def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="Hub ids, local folders, .gguf files, or 'demo'.", metavar="MODEL...")
    ],
    text: Annotated[
        str | None,
        typer.Option(
            help="A text, jsonl or parquet file (plain or .gz), a Hub dataset, '-' for stdin, or 'demo'.",
            show_default="demo; stories for demo:tiny first; none with --lambada, --tasks or --speed",
        ),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Tokens to read, or 'all'.", show_default="all; 16384 of the demo text")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Context in tokens.", show_default="2048, or the model's limit")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Tokens from one window to the next; less than the window gives every token more context.",
            show_default="the window",
        ),
    ] = None,
    protocol: Annotated[
        Literal["joined", "documents"],
        typer.Option(help="joined: all documents as one text. documents: no window crosses from one to the next."),
    ] = "joined",
    reference: Annotated[
        str | None, typer.Option(help="Measure KL and agreement to this model, and ratios.", metavar="MODEL")
    ] = None,
    lambada: Annotated[
        str | None, typer.Option(help="Predict last words: a jsonl or parquet file or a Hub dataset.")
    ] = None,
    lambada_limit: Annotated[int | None, typer.Option(help="Passages to read.", min=1, show_default="all")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks of lm-evaluation-harness, separated by commas, zero-shot (extra `tasks`); from the Hub, or "
            "from local files below $RECTILINEAR_DATA."
        ),
    ] = None,
    tasks_limit: Annotated[int | None, typer.Option(help="Documents of each task.", min=1, show_default="all")] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Time prefill and generation, models in turn.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for eval.json, eval.csv and eval.html.")] = None,
    force: Force = False,
    json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be measured and leave.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    batch_tokens: BatchTokens = 2048,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Judge models side by side: perplexity, divergence from a reference, LAMBADA, benchmark tasks, speed.

    Perplexity is exp(summed nats / summed tokens), with a 95 % interval; ratios to the first model, or to the
    reference, have a paired one. Models are held one at a time, except with --reference or --speed.
    """
    budget = token_budget(tokens or (str(DEMO_TOKENS) if text in (None, "demo") else "all"))
    # A reference that is also named as a model stands for both.
    names = [name for name in models if name != reference] or models
    from rectilinear.data.text import read_text
    from rectilinear.models.siblings import default_text
    from rectilinear.report.evaluation import DOCUMENT, save_eval
    from rectilinear.report.folder import check_writable
    from rectilinear.report.terminal import eval_table

    if out is not None:
        check_writable(out, force, DOCUMENT)
    asked = None if tasks is None else (_named(tasks), tasks_limit)
    source = None if text is None and (lambada or asked or speed) else read_text(text or default_text(names[0]))
    options: dict[str, Any] = {
        "window": window,
        "stride": stride,
        "tokens": None if budget == "all" else budget,
        "protocol": protocol,
        "speed": speed,
        "batch_tokens": batch_tokens,
        "seed": seed,
    }
    if dry_run:
        plan = _plan(names, reference, source, options, f"{lambada}, {lambada_limit or 'all'} passages" * bool(lambada))
        for line in (*plan, *(_foreseen(*asked) if asked else ()), f"writes     {out or 'nothing'}"):
            Console(soft_wrap=True, highlight=False).print(line, markup=False)
        return
    hold(out)
    options["passages"] = _passages(lambada, lambada_limit)
    loading = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    result = _measure(names, reference, source, options, loading, lambada, asked)
    if out is not None:
        save_eval(result, out, force=force)
    answer(result, eval_table, json=json, place=out and out / "eval.html", kind="Page")


def _plan(
    names: list[str], reference: str | None, source: Text | None, options: dict[str, Any], lambada: str
) -> Iterator[str]:
    """Yield what would be done, a line each."""
    window = options["window"] or "2048, or the model's limit"
    text = "none"
    if source is not None:
        text = (
            f"{source.id}, {options['tokens'] or 'all'} tokens, {options['protocol']}, "
            f"window {window}, stride {options['stride'] or 'the window'}"
        )
    yield f"models     {', '.join(names)}"
    yield f"reference  {reference or 'none'}"
    yield f"text       {text}"
    yield f"LAMBADA    {lambada or 'none'}"
    yield f"speed      {'prefill and generation, models in turn' if options['speed'] else 'none'}"
    yield f"in memory  {'all models at once' if reference or options['speed'] else 'one model at a time'}"


def _named(tasks: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if not names:
        raise RectilinearError(f"expected names of tasks as --tasks arc_easy,boolq, got {tasks!r}")
    return names


def _foreseen(names: tuple[str, ...], limit: int | None) -> Iterator[str]:
    """Yield what each task would ask, a line each; nothing is fetched for it."""
    from rectilinear.ops.tasks.prepare import foresee

    for task in foresee(names, limit):
        size = "from the Hub"
        if task.documents is not None:
            size = f"local data, {task.documents:,} documents, about {task.requests:,} requests"
        yield f"task       {task.name}: {size}"


def _passages(source: str | None, limit: int | None) -> tuple[tuple[str, str], ...]:
    if source is None:
        return ()
    from rectilinear.data.lambada import read_passages

    return tuple(islice(read_passages(source), limit))


def _measure(
    names: list[str],
    reference: str | None,
    source: Text | None,
    options: dict[str, Any],
    loading: dict[str, Any],
    lambada: str | None,
    asked: tuple[tuple[str, ...], int | None] | None,
) -> EvalResult:
    """Load and judge the models, with a bar."""
    with progress_bar(Console(stderr=True)) as show:
        show("looking for the models", 0, None, "")
        from rectilinear.models.load import check_found, load
        from rectilinear.ops.evaluate import Candidate, evaluate_models
        from rectilinear.ops.protocol import Settings

        if asked is not None:
            show("reading the tasks", 0, None, "")
            from rectilinear.ops.tasks.prepare import prepare

            options["tasks"] = prepare(*asked)
            show("looking for the models", 0, None, "")
        for name in {*names, reference} - {None}:  # the last one must not fail after the first took an hour
            check_found(str(name), trust_remote_code=loading["trust_remote_code"])

        def loaded(name: str) -> Candidate:
            show(f"loading {name}", 0, None, "")
            return Candidate(name, *load(name, **loading))

        def on_progress(state: Progress) -> None:
            said = "" if state.perplexity is None else f"perplexity {state.perplexity:,.2f}"
            show(state.task, state.done, state.total, said, state.unit)

        facts: dict[str, Any] = {"command": typed()}
        if source is not None:
            facts["text"] = source.id
        if lambada is not None:
            facts["lambada"] = lambada
        return evaluate_models(
            map(loaded, names),
            None if source is None else _opener(source, again=len(names) > 1),
            Settings(**options),
            reference=None if reference is None else loaded(reference),
            provenance=facts,
            on_progress=on_progress,
        )


def _opener(source: Text, *, again: bool) -> Callable[[], Iterable[str]]:
    """Return what opens the text; standard input, which opens once, is kept where it is needed `again`."""
    if source.id != "stdin" or not again:
        return source.documents
    held = list(source.documents())
    return lambda: held
