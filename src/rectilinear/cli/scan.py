"""`rectilinear scan`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from rectilinear.cli.done import is_done
from rectilinear.cli.hold import hold
from rectilinear.cli.options import (
    Device,
    Dtype,
    Force,
    Holdout,
    Json,
    LayersPath,
    Revision,
    ScanBatch,
    SinkMultiple,
    TrustRemoteCode,
    interval,
    share_of,
    slug,
    token_budget,
)
from rectilinear.cli.say import typed
from rectilinear.cli.scanning import Work, checkpoints_of
from rectilinear.errors import ModelError, ResultError, TextError

EPILOG = """Examples:

rectilinear scan demo

rectilinear scan HuggingFaceTB/SmolLM2-135M --text notes.txt --tokens 100000

rectilinear scan ./my-model --text corpus.jsonl.gz --window 2048 --dtype bfloat16 --out my-scan

rectilinear scan demo --keep-moments --out kept

rectilinear scan my-model --text corpus.jsonl.gz --tokens 50_000_000 --out long --checkpoint-every 10min --resume

rectilinear scan demo --text prose=articles.txt --text code=src.txt

rectilinear scan demo --layers 10-19

torchrun --nproc-per-node 2 -m rectilinear scan demo --tokens 100000

rectilinear scan demo --shard 1/3    # see `rectilinear merge`

zcat articles.txt.gz | rectilinear scan model.gguf --text - --json | jq .summary"""


def scan(
    model: Annotated[
        str,
        typer.Argument(help="A Hub id, a folder, a .gguf file, 'demo' (SmolLM2-135M, no Hub needed) or 'demo:tiny'."),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="A text, jsonl or parquet file (plain or .gz), a Hub dataset, '-' for stdin, or 'demo'. Several, each "
            "as NAME=SOURCE, are scanned in turn, and the maps of each judged on the others.",
            show_default="demo; stories for demo:tiny, where they come with it",
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(help="Tokens to read, or 'all'.", show_default="32 x the stream's width, at least 16384"),
    ] = None,
    window: Annotated[int, typer.Option(help="Longest context, in tokens.", min=1)] = 512,
    holdout: Holdout = 0.25,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="scan-MODEL; none with --json")
    ] = None,
    force: Force = False,
    json: Json = False,
    submodules: Annotated[bool, typer.Option("--submodules", help="Score attention and MLP apart as well.")] = False,
    keep_moments: Annotated[
        bool,
        typer.Option("--keep-moments", help="Keep the moments in the folder: `tokens --maps` needs no fit then."),
    ] = False,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Fit every span of layers as one map as well, on ordinary tokens.")
    ] = False,
    pairs_memory: Annotated[
        float, typer.Option(help="GiB that the products for --pairs may take; it limits the longest span.", min=0.0)
    ] = 4.0,
    moments_memory: Annotated[
        float | None,
        typer.Option(
            help="GiB of moments that stay in memory: the rest lies in files beside OUT, which takes longer. On a CPU.",
            show_default="all",
            min=0.0,
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Which layers to measure, from 0, as 12-17,20 (both ends count).", show_default="all"),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Only share I of N of the text, for `rectilinear merge`: of the part that maps are fitted on, or with "
            "--maps of the part that is held out.",
            metavar="I/N",
        ),
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Folder of the merged shards of the fit part, whose maps a --shard judges.")
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            help="Keep what is gathered beside OUT each so many minutes or tokens (of each process and text), as 10min "
            "or 5_000_000tokens, and on a SIGTERM.",
            show_default="10min with --resume, else never",
            metavar="MINUTES|TOKENS",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what was kept, if anything was: to the same result.")
    ] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    batch_tokens: ScanBatch = None,
    sink_multiple: SinkMultiple = 10.0,
    layers_path: LayersPath = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap and of the samples.")] = 0,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--plan", "--dry-run", help="Print the memory needed, by part and device, and the time; read no weights."
        ),
    ] = False,
) -> None:
    """Measure how linear every layer of a model is, in one pass over a text.

    Prints a table of the paper's score, the held-out score and the score of ordinary tokens, each with and without the
    residual stream, and writes a folder with result.json, layers.csv, plots and a one-file report.html.
    """
    budget = token_budget(tokens)
    every = interval(checkpoint_every or "10min") if checkpoint_every is not None or resume else None
    share = None if shard is None else share_of(shard)
    _check(share, maps, text or [], keep_moments, layers if pairs or keep_moments else None)
    first = os.environ.get("RANK", "0") == "0"  # of several processes one speaks and writes
    named = slug(model) if share is None else f"{slug(model)}-{'heldout' if maps else 'fit'}-{share[0]}-of-{share[1]}"
    target = out if out is not None else None if json and share is None else Path(f"scan-{named}")
    from rectilinear.report.folder import check_writable

    if keep_moments and target is None:
        raise ResultError("expected --out with --keep-moments and --json: the moments are kept in the folder")
    if every is not None and target is None:
        raise ResultError("expected --out with --json and --checkpoint-every or --resume: a state is kept beside it")
    document = _document(share, text or [])
    if (
        resume
        and not force
        and not dry_run
        and target is not None
        and is_done(target, document, json=json, first=first)
    ):
        return
    if target is not None and first:
        check_writable(target, force, document)
    from rectilinear.data.text import read_text
    from rectilinear.models.siblings import default_text

    sources = {name: read_text(given) for name, given in _named(text or [default_text(model)]).items()}
    loading: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    sizes: dict[str, Any] = {
        "tokens": budget,
        "window": window,
        "holdout": holdout,
        "submodules": submodules,
        "batch_tokens": batch_tokens,
        "layers_path": layers_path,
        "layers": layers,
        "pairs": pairs,
        "pairs_memory": pairs_memory,
    }
    if dry_run:
        from rectilinear.cli.dry import tell

        shown = ", ".join(source.id for source in sources.values())
        more = {"keep_moments": keep_moments, "moments_memory": moments_memory}
        tell(model, loading, sizes | more, text=shown, out=target, json=json)
        return
    hold(target if first else None)
    wishes = {**sizes, "sink_multiple": sink_multiple, "seed": seed}
    if moments_memory is not None:
        from rectilinear.ops.spill import Spill

        wishes["spill"] = Spill(moments_memory, Path() if target is None else target.absolute().parent)
    facts = {"model": model, "command": typed()}
    work = Work(model, loading, sources, wishes, facts, target if first else None, force, json)
    checkpoints = None
    if every is not None:
        assert target is not None
        checkpoints = checkpoints_of(target, every, resume=resume or not first, force=force)
    if share is not None:
        work.shard(share, maps, checkpoints)
        return
    from rectilinear.ops.ranks import ranks_here

    with ranks_here() as ranks:
        work.scan(ranks, keep_moments, checkpoints)


def _check(
    share: tuple[int, int] | None, maps: Path | None, texts: list[str], keep_moments: bool, layers: str | None
) -> None:
    """Raise where options do not go together; `layers` where all of them are needed."""
    if layers is not None:
        raise ModelError("expected all layers with --pairs and --keep-moments, got --layers: leave it out")
    if share is not None and os.environ.get("WORLD_SIZE", "1") != "1":
        raise TextError("expected --shard in a job of one process: torchrun shares a scan out by itself")
    if share is None and maps is not None:
        raise ResultError("expected --shard with --maps: a scan in one piece fits its own")
    if share is not None and len(texts) > 1:
        raise TextError("expected one text with --shard, got several: scan each of them in shards of its own")
    if share is not None and keep_moments:
        raise ResultError("expected no --keep-moments with --shard: `rectilinear merge --keep-moments` keeps them")


def _document(share: tuple[int, int] | None, texts: list[str]) -> str:
    """Return the name of the document that the folder will hold."""
    return "shard.json" if share is not None else "texts.json" if len(texts) > 1 else "result.json"


def _named(texts: list[str]) -> dict[str, str]:
    """Return the sources by name; a single one needs none, and is taken as it stands."""
    if len(texts) == 1:
        return {"": texts[0]}
    pairs = [text.partition("=") for text in texts]
    for (name, sign, source), text in zip(pairs, texts, strict=True):
        if not (sign and re.fullmatch(r"\w[\w.-]*", name) and source):
            raise TextError(f"expected several texts each as NAME=SOURCE, like code=src.txt, got {text!r}")
    named = {name: source for name, _, source in pairs}
    if len(named) < len(pairs):
        raise TextError("expected a name of its own for every text, got one twice")
    return named
