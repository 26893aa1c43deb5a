"""`rectilinear probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import BatchTokens, Device, DryRun, Dtype, Force, Json, LayersPath, TrustRemoteCode
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import answer, typed

if TYPE_CHECKING:
    from rectilinear.data.tasks import Task
    from rectilinear.ops.evaluate import Candidate
    from rectilinear.ops.probe import ProbeSettings
    from rectilinear.ops.progress import Progress
    from rectilinear.results import ProbeResult

EPILOG = """Examples:

rectilinear probe demo --task boolq --examples 1000 --test-examples 500

rectilinear probe plain-650m cosine-650m --task rte --pooling last --out regularised

rectilinear probe demo --task reviews.jsonl --test more-reviews.jsonl

rectilinear probe demo --task cb --json | jq .curves[0].best"""


def probe(
    models: Annotated[
        list[str], typer.Argument(help="Hub ids, local folders, .gguf files, or 'demo'.", metavar="MODEL...")
    ],
    task: Annotated[
        str,
        typer.Option(
            help="boolq, multirc, cb, rte, copa, wic, arc_easy, or a jsonl or parquet file with label and text, or "
            "label, question and passage."
        ),
    ],
    test: Annotated[
        str | None,
        typer.Option(help="Another such file, which judges.", show_default="a fifth of a file; a task has its own"),
    ] = None,
    examples: Annotated[
        int | None, typer.Option(help="Examples to learn from, drawn by the seed.", min=10, show_default="all")
    ] = None,
    test_examples: Annotated[
        int | None, typer.Option(help="Examples to judge on, drawn by the seed.", min=2, show_default="all")
    ] = None,
    pooling: Annotated[
        Literal["mean", "last"], typer.Option(help="One vector an example: mean of its tokens, or the last one.")
    ] = "mean",
    window: Annotated[int, typer.Option(help="Tokens of an example at most; its end is cut off.", min=1)] = 512,
    folds: Annotated[int, typer.Option(help="Of the cross-validation of the probe's strength.", min=2)] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="probe-TASK; none with --json")
    ] = None,
    force: Force = False,
    json: Json = False,
    dry_run: DryRun = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    batch_tokens: BatchTokens = 4096,
    layers_path: LayersPath = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the examples drawn, the folds and the bootstrap.")] = 0,
) -> None:
    """Fit a linear probe at every position of the stream, and say how much of a task it reads (the paper's Figure 5).

    One forward pass a model; features lie in a temporary file. Several models are overlaid, with the gap of each to the
    first. Needs the extra `probe`, which is scikit-learn. Writes a folder with probe.json, layers.csv, the plot and a
    one-file report.html.
    """
    target = out or (None if json else Path(f"probe-{Path(task).name.split('.')[0]}"))
    from rectilinear.report.folder import check_writable
    from rectilinear.report.probe import DOCUMENT, probe_table

    if target is not None and not dry_run:
        check_writable(target, force, DOCUMENT)
        hold(target)
    from rectilinear.data.tasks import read_task

    found = read_task(task, test=test, train_limit=examples, test_limit=test_examples, seed=seed)
    loading: dict[str, Any] = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    from rectilinear.ops.probe import ProbeSettings

    settings = ProbeSettings(pooling, window, folds, batch_tokens, layers_path, seed)
    settings.check()
    if dry_run:
        from rectilinear.cli.dry import tell_facts

        facts = _forecast(models, found, settings, loading)
        tell_facts({**facts, "out": None if target is None else str(target)}, json=json)
        return
    result = _probed(models, found, settings, loading)
    if target is not None:
        result.save(target, force=force)
    answer(result, probe_table, json=json, place=target and target / "report.html")


def _forecast(models: list[str], task: Task, settings: ProbeSettings, loading: dict[str, Any]) -> dict[str, Any]:
    """Return what would be done, from the configurations alone."""
    from rectilinear.models.load import skeleton
    from rectilinear.models.stack import decoder_stack, width
    from rectilinear.ops.forecast import context

    count = len(task.train) + len(task.test)
    facts: dict[str, Any] = {"task": f"{task.name} from {task.source}", "labels": " or ".join(task.labels)}
    facts |= {"learn from": len(task.train), "judge on": len(task.test), "majority": round(task.majority, 4)}
    for name in models:
        model = skeleton(name, **loading)
        positions, d = len(decoder_stack(model, settings.layers_path)) + 1, width(model)
        facts[name] = (
            f"{positions} positions of width {d:,}, {context(model, settings.window):,} tokens an example at most, "
            f"{4 * positions * count * d / 1e6:,.0f} MB of features on disk"
        )
    return facts


def _probed(models: list[str], task: Task, settings: ProbeSettings, loading: dict[str, Any]) -> ProbeResult:
    """Load and probe the models one after the other, with a bar."""
    with progress_bar(Console(stderr=True)) as show:
        show("looking for the models", 0, None, "")
        from rectilinear.models.load import check_found, load
        from rectilinear.ops.evaluate import Candidate
        from rectilinear.ops.probe import probe_models

        for name in models:  # the last one must not fail after the first took an hour
            check_found(name, trust_remote_code=loading["trust_remote_code"])

        def loaded(name: str) -> Candidate:
            show(f"loading {name}", 0, None, "")
            return Candidate(name, *load(name, **loading))

        def on_progress(state: Progress) -> None:
            show(state.task, state.done, state.total, state.said, state.unit)

        facts = {"command": typed()}
        return probe_models(map(loaded, models), task, settings, provenance=facts, on_progress=on_progress)
