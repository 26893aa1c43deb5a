"""`rectilinear tokens`."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import (
    Device,
    Dtype,
    Force,
    Json,
    LayersPath,
    Revision,
    TrustRemoteCode,
    given,
    slug,
    token_budget,
)
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import answer, note, typed
from rectilinear.errors import ModelError, ResultError, TextError

EPILOG = """Examples:

rectilinear tokens demo --prompt "The capital of France is Paris, and the capital of Germany is"

rectilinear tokens demo --file story.txt --maps tokens-demo --out story

rectilinear tokens --corpus scan-demo --out carriers

rectilinear tokens HuggingFaceTB/SmolLM2-135M --prompt "To be or not to" --text corpus.jsonl.gz --tokens 100000

rectilinear tokens demo --prompt "One, two," --maps tokens-demo --json | jq .tokens[-1].prediction"""

OF_A_PROMPT = (
    *("prompt", "file", "maps", "text", "tokens", "window", "sink_multiple"),
    *("dtype", "device", "layers_path", "revision", "trust_remote_code"),
)


def tokens(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="A Hub id, a local folder, a .gguf file, or 'demo' (SmolLM2-135M, no Hub needed)."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The text to look at.", metavar="TEXT")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file with it, in UTF-8; line ends at its end are left out.")
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="No model and no prompt: tell which tokens carry the error of a scan, from its folder.",
            metavar="SCAN_DIR",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            help="Maps fitted before: a folder of `rectilinear tokens`, or of `scan --keep-moments`.",
            metavar="DIR",
            show_default="fit them",
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option(
            help="To fit on: a text, jsonl or parquet file (plain or .gz), a Hub dataset, '-' for stdin, or 'demo'."
        ),
    ] = "demo",
    tokens: Annotated[str, typer.Option(help="Tokens to fit on, or 'all'.")] = "16384",
    window: Annotated[int, typer.Option(help="Longest context while fitting, in tokens.", min=1)] = 512,
    sink_multiple: Annotated[
        float, typer.Option(help="A token is a sink above this many median stream norms of the fit.", min=1.0)
    ] = 10.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the page and the maps.", show_default="tokens-MODEL; none with --json or --corpus"
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    layers_path: LayersPath = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show for every token of a prompt where the layers are not linear, and what the stream would say on its way.

    Prints a heat map of the relative error of each layer's linear map, the model's predictions, and two lenses: the
    head on the stream as it is, and after a linear map to its end. Writes a folder with tokens.json, tokens.html,
    heatmap.svg and .png, and the maps it has fitted, for --maps.
    """
    if corpus is not None:
        if model is not None or (idle := given(context, *OF_A_PROMPT)):
            raise TextError(
                f"expected --corpus without a model or a prompt, got {model or ', '.join(idle)}: leave it out"
            )
        _carriers(corpus, out, force, json)
        return
    if model is None:
        raise ModelError("expected a model, or --corpus SCAN_DIR: got neither")
    idle = given(context, "text", "tokens", "window", "sink_multiple") if maps is not None else []
    if idle:
        raise TextError(f"expected --maps without {', '.join(idle)}: maps that are there are not fitted; leave one out")
    asked = _prompt(prompt, file)
    budget = token_budget(tokens)
    target = out or (None if json else Path(f"tokens-{slug(model)}"))
    from rectilinear.report.folder import check_writable
    from rectilinear.report.tokens import DOCUMENT

    if target is not None:
        check_writable(target, force, DOCUMENT)
        hold(target)
    from rectilinear.data.text import read_text

    source = read_text(text)
    with progress_bar(Console(stderr=True)) as show:
        show(f"loading {model}", 0, None, "")
        from rectilinear.models.load import load
        from rectilinear.ops.maps import Maps, fit_maps
        from rectilinear.ops.tokens import tokens as run

        known = None if maps is None else Maps.load(maps)
        loading: dict[str, Any] = {"dtype": dtype, "device": device, "revision": revision}
        loaded, tokenizer = load(model, trust_remote_code=trust_remote_code, **loading)
        fitted = known or fit_maps(
            loaded,
            tokenizer,
            source.documents(),
            tokens=None if budget == "all" else budget,
            window=window,
            sink_multiple=sink_multiple,
            layers_path=layers_path,
            provenance={"model": model, "text": source.id},
            on_progress=lambda done, total: show("fitting maps", done, total, ""),
        )
        show("reading the prompt", 0, None, "")
        result = run(
            loaded,
            tokenizer,
            asked,
            maps=fitted,
            layers_path=layers_path,
            provenance={"model": model, "command": typed()},
            on_progress=lambda done, total: show("reading the prompt", done, total, ""),
        )
        if target is not None:
            # Maps that came from elsewhere stay there, unless this folder takes that one's place.
            ours = known is None or (maps is not None and target.exists() and target.samefile(maps))
            result.save(target, fitted.save if ours else None, force=force)
    from rectilinear.report.tokens import tokens_table

    answer(result, tokens_table, json=json, place=target and target / "tokens.html", kind="Page")


def _carriers(corpus: Path, out: Path | None, force: bool, json: bool) -> None:
    from rectilinear.report.carriers import PAGE, carriers_table, classes, document, save_carriers
    from rectilinear.report.folder import load

    result = load(corpus)
    if not classes(result):
        raise ResultError(f"{corpus} does not tell which tokens carry the error: scan again, with text held out")
    if out is not None:
        save_carriers(result, out, force=force)
    if json:
        sys.stdout.write(jsonlib.dumps(document(result), indent=1) + "\n")
    else:
        Console().print(carriers_table(result))
    if out is not None:
        note(f"Page: {out / PAGE}")


def _prompt(prompt: str | None, file: Path | None) -> str:
    if (prompt is None) == (file is None):
        raise TextError(f"expected --prompt or --file, got {'neither' if prompt is None else 'both'}: give one of them")
    if file is not None:
        try:
            prompt = file.read_bytes().decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
        except OSError as error:
            raise TextError(f"cannot read {file}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise TextError(f"expected UTF-8 text in {file}, got byte 0x{error.object[error.start]:02x}") from error
    assert prompt is not None
    if not prompt.strip():
        raise TextError(f"expected a prompt, got an empty one{f' in {file}' if file else ''}")
    return prompt
