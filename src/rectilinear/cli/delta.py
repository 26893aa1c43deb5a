"""`rectilinear delta`."""

from __future__ import annotations

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
    Json,
    LayersPath,
    ScanBatch,
    TrustRemoteCode,
    slug,
    token_budget,
)
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import answer, typed
from rectilinear.errors import ResultError

if TYPE_CHECKING:
    from rectilinear.data.text import Text
    from rectilinear.results import ScanResult

MADE = "result.json"  # what makes a folder one of a finished scan
OF_SCANS = ("out", "force", "json", "dry_run", "seed", "before", "after")  # what two finished scans leave to say
EPILOG = """Examples:

rectilinear delta HuggingFaceTB/SmolLM2-135M HuggingFaceTB/SmolLM2-135M-Instruct --text notes.txt

rectilinear delta demo my-finetuned --text corpus.jsonl.gz --tokens 40000 --out what-changed

rectilinear scan demo --out a && rectilinear scan my-finetuned --out b && rectilinear delta a b"""


def delta(
    context: typer.Context,
    before: Annotated[
        str, typer.Argument(help="A model (Hub id, folder, .gguf file, 'demo'), or the folder of a finished scan.")
    ],
    after: Annotated[str, typer.Argument(help="The other one, of the same kind, as deep as the first.")],
    text: Annotated[
        str,
        typer.Option(help="A text, jsonl or parquet file (plain or .gz), a Hub dataset, '-' for stdin, or 'demo'."),
    ] = "demo",
    tokens: Annotated[
        str | None,
        typer.Option(help="Tokens to read, or 'all'.", show_default="32 x the stream's width, at least 16384"),
    ] = None,
    window: Annotated[int, typer.Option(help="Longest context, in tokens.", min=1)] = 512,
    holdout: Annotated[float, typer.Option(help="Share of the tokens, from the end, that judges.")] = 0.25,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="delta-AFTER; none with --json")
    ] = None,
    force: Force = False,
    json: Json = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    batch_tokens: ScanBatch = None,
    sink_multiple: Annotated[
        float, typer.Option(help="A token is a sink above this many median stream norms.", min=1.0)
    ] = 10.0,
    layers_path: LayersPath = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Say what changed in every layer from one model to another, and whether it is more than noise.

    Both are scanned on the same windows of tokens, one after the other. Held-out changes have intervals over the
    held-out documents, the same ones for both models. Tokenizers may differ where they cut the text into the same ids.
    Writes a folder with delta.json, layers.csv, plots and a one-file report.html.
    """
    budget = token_budget(tokens)
    target = out if out is not None else None if json else Path(f"delta-{slug(after)}")
    from rectilinear.report.delta import DOCUMENT, delta_table
    from rectilinear.report.folder import check_writable

    if target is not None and not dry_run:
        check_writable(target, force, DOCUMENT)
        hold(target)
    finished = [(Path(side) / MADE).is_file() for side in (before, after)]
    if finished[0] != finished[1]:
        raise ResultError(f"expected two models or two folders of scans, got one of each: {before} and {after}")
    loading: dict[str, Any] = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    sizes: dict[str, Any] = {
        "tokens": budget,
        "window": window,
        "holdout": holdout,
        "batch_tokens": batch_tokens,
        "layers_path": layers_path,
    }
    told: dict[str, Any] = {"before": before, "after": after}
    if all(finished):
        _refuse_unused(context)
        from rectilinear.report.folder import load

        scans = [load(side) for side in (before, after)]
    else:
        from rectilinear.data.text import read_text

        source = read_text(text)
        agreed = _agreed((before, after), loading, sizes)
        told |= {"text": source.id, **agreed}
        if not dry_run:
            scans = _scanned((before, after), source, loading, {**sizes, **agreed, "sink_multiple": sink_multiple})
    if dry_run:
        from rectilinear.cli.dry import tell_facts

        tell_facts({**told, "out": None if target is None else str(target)}, json=json)
        return
    from rectilinear.ops.delta import delta as build

    result = build(*scans, seed=seed, provenance={"command": typed()})
    if target is not None:
        result.save(target, force=force)
    answer(result, delta_table, json=json, place=target and target / "report.html")


def _refuse_unused(context: typer.Context) -> None:
    sources = {name: context.get_parameter_source(name) for name in context.params if name not in OF_SCANS}
    given = [
        f"--{name.replace('_', '-')}"
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"  # an enum of typer's own click, or of click
    ]
    if given:
        raise ResultError(f"expected no {', '.join(given)} with two finished scans, whose text is read already")


def _agreed(names: tuple[str, str], loading: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the number of tokens and the window for both models, from their configurations alone."""
    from rectilinear.models.load import load_tokenizer, skeleton
    from rectilinear.ops.delta import check_depth
    from rectilinear.ops.forecast import forecast

    for name in names:  # which also fetches the demo
        load_tokenizer(name, trust_remote_code=loading["trust_remote_code"])
    first, second = (forecast(skeleton(name, **loading), **sizes) for name in names)
    check_depth(first.layers, second.layers)
    return {"tokens": "all" if first.tokens is None else first.tokens, "window": min(first.window, second.window)}


def _scanned(
    names: tuple[str, str], source: Text, loading: dict[str, Any], options: dict[str, Any]
) -> list[ScanResult]:
    """Scan the models one after the other, one in memory at a time; that they read the same is seen before."""
    with progress_bar(Console(stderr=True)) as show:
        show("reading text", 0, None, "")
        from rectilinear.models.load import load, load_tokenizer
        from rectilinear.ops.delta import same_documents
        from rectilinear.ops.passes import Progress
        from rectilinear.ops.scan import scan

        tokenizers = [load_tokenizer(name, trust_remote_code=loading["trust_remote_code"]) for name in names]
        documents = same_documents(
            tokenizers,
            source.documents(),
            tokens=None if options["tokens"] == "all" else options["tokens"],
            window=options["window"],
            holdout=options["holdout"],
        )
        scans = []
        for name, tokenizer in zip(names, tokenizers, strict=True):
            show(f"loading {name}", 0, None, "")

            def on_progress(state: Progress, name: str = name) -> None:
                said = "fitting" if state.score is None else f"mean held-out score {state.score:.4f}"
                show(f"scanning {name}", state.done, state.total, said)

            facts = {"model": name, "text": source.id}
            model = load(name, **loading)[0]
            scans.append(scan(model, tokenizer, documents, provenance=facts, on_progress=on_progress, **options))
            del model  # before the next one is loaded
        return scans
