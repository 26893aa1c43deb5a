"""`rectilinear scan`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import (
    BatchTokens,
    Device,
    Dtype,
    Force,
    Holdout,
    Json,
    LayersPath,
    Revision,
    SinkMultiple,
    TrustRemoteCode,
    slug,
    token_budget,
)
from rectilinear.cli.progress import progress_bar
from rectilinear.errors import ResultError, TextError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rectilinear.results import ScanResult, TextsResult

EPILOG = """Examples:

rectilinear scan demo

rectilinear scan HuggingFaceTB/SmolLM2-135M --text notes.txt --tokens 100000

rectilinear scan ./my-model --text corpus.jsonl.gz --window 2048 --dtype bfloat16 --out my-scan

rectilinear scan demo --keep-moments --out kept

rectilinear scan demo --text prose=articles.txt --text code=src.txt

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
    dtype: Dtype = "auto",
    device: Device = "auto",
    batch_tokens: BatchTokens = 4096,
    sink_multiple: SinkMultiple = 10.0,
    layers_path: LayersPath = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap and of the samples.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done; read no weights, write nothing.")
    ] = False,
) -> None:
    """Measure how linear every layer of a model is, in one pass over a text.

    Prints a table of the paper's score, the held-out score and the score of ordinary tokens, each with and without the
    residual stream, and writes a folder with result.json, layers.csv, plots and a one-file report.html.
    """
    budget = token_budget(tokens)
    target = out if out is not None else None if json else Path(f"scan-{slug(model)}")
    from rectilinear.report.folder import check_writable

    if keep_moments and target is None:
        raise ResultError("expected --out with --keep-moments and --json: the moments are kept in the folder")
    if target is not None:
        check_writable(target, force, "texts.json" if len(text or []) > 1 else "result.json")
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
        "keep_moments": keep_moments,
    }
    if dry_run:
        from rectilinear.cli.dry import tell

        tell(model, loading, sizes, text=", ".join(source.id for source in sources.values()), out=target, json=json)
        return
    hold(target)
    with progress_bar(Console(stderr=True)) as show, _beside(target, keep_moments) as moments:
        show(f"loading {model}", 0, None, "")
        from rectilinear.models.load import load
        from rectilinear.ops.scan import Progress

        loaded, tokenizer = load(model, **loading)
        show("scanning", 0, None, "reading text")

        def on_progress(name: str, state: Progress) -> None:
            said = "fitting" if state.score is None else f"mean held-out score {state.score:.4f}"
            show(f"scanning {name}".strip(), state.done, state.total, said)

        facts = {"model": model, "command": shlex.join(["rectilinear", *sys.argv[1:]])}
        wishes = {
            **sizes,
            "pairs": pairs,
            "pairs_memory": pairs_memory,
            "sink_multiple": sink_multiple,
            "seed": seed,
            "keep_moments": moments,
        }
        result: ScanResult | TextsResult
        if len(sources) > 1:
            from rectilinear.ops.texts import scan_texts

            result = scan_texts(
                loaded,
                tokenizer,
                {name: source.documents() for name, source in sources.items()},
                provenance={name: {**facts, "text": source.id} for name, source in sources.items()},
                on_progress=on_progress,
                **wishes,
            )
        else:
            from rectilinear.ops.scan import scan as run

            ((name, source),) = sources.items()
            result = run(
                loaded,
                tokenizer,
                source.documents(),
                provenance={**facts, "text": source.id},
                on_progress=partial(on_progress, name),
                **wishes,
            )
        if target is not None:
            show("writing the report", 0, None, "")
            result.save(target, force=force)
    if json:
        sys.stdout.write(result.to_json() + "\n")
    else:
        Console().print(_table(result))
    if target is not None:
        note = Console(stderr=True, soft_wrap=True, highlight=False)
        note.print(f"Report: {target / ('texts.html' if len(sources) > 1 else 'report.html')}", markup=False)


@contextmanager
def _beside(target: Path | None, wanted: bool) -> Iterator[Path | None]:
    """Give a folder beside `target` for moments, if any are wanted, and take it away in the end."""
    if not wanted or target is None:
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        yield Path(folder)


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


def _table(result: ScanResult | TextsResult) -> RenderableType:
    from rectilinear.results import ScanResult

    if isinstance(result, ScanResult):
        from rectilinear.report.terminal import layers_table

        return layers_table(result)
    from rectilinear.report.texts import transfer_table

    return transfer_table(result)
