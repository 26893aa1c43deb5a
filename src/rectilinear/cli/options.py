"""Options that commands share."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

from rectilinear.errors import RectilinearError, TextError

Force = Annotated[bool, typer.Option("--force", help="Replace the folder if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result document to standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; read no weights, write nothing.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Precision that models are loaded in.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, or balanced (spread over all GPUs).")]
BatchTokens = Annotated[int, typer.Option(help="Tokens in one forward pass.", min=1)]
ScanBatch = Annotated[
    int | None,
    typer.Option("--batch-tokens", help="Tokens in one forward pass.", min=1, show_default="4096, on a GPU 16384"),
]
Holdout = Annotated[float, typer.Option(help="Share of the tokens, from the end, that no map is fitted on.")]
SinkMultiple = Annotated[float, typer.Option(help="A token is a sink above this many median stream norms.", min=1.0)]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask.")
]
LayersPath = Annotated[
    str | None, typer.Option(help="Dotted path of the decoder stack, where it is not found by itself.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]


def given(context: typer.Context, *names: str) -> list[str]:
    """Return those of the parameters `names` that stand on the command line, as options."""
    found = ((name, context.get_parameter_source(name)) for name in names)
    return ["--" + name.replace("_", "-") for name, source in found if source and source.name == "COMMANDLINE"]


def check_either(force: bool, resume: bool) -> None:
    """Raise RectilinearError where a command is to start again and to go on."""
    if force and resume:
        raise RectilinearError("expected --force, which starts again, or --resume, which goes on: got both")


def token_budget(value: str | None) -> int | Literal["all"] | None:
    """Return --tokens as a number, "all", or None where it is not given; raises TextError for anything else."""
    if value is None:
        return None
    if value == "all":
        return "all"
    number = value.replace("_", "").replace(",", "")
    if not number.isdecimal() or int(number) == 0:
        raise TextError(f"expected --tokens as a number above 0 or 'all', got {value!r}")
    return int(number)


def share_of(value: str) -> tuple[int, int]:
    """Return --shard I/N as two numbers, I from 1 to N; raises TextError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise TextError(f"expected --shard as I/N with I from 1 to N, like 2/8, got {value!r}")
    return int(match[1]), int(match[2])


def interval(value: str) -> tuple[float, Literal["minutes", "tokens"]]:
    """Return 10, 10min or 5_000_000tokens as a number and its unit; raises RectilinearError for anything else."""
    match = re.fullmatch(r"([\d_]*\.?\d+)\s*(min|minutes|tokens)?", value.strip())
    if match is None or float(match[1]) == 0:
        raise RectilinearError(f"expected minutes or tokens, as 10min or 5_000_000tokens, got {value!r}")
    return float(match[1]), "tokens" if match[2] == "tokens" else "minutes"


def slug(model: str) -> str:
    """Return a model's name as it can stand in a file's."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", model.rstrip("/").split("/")[-1]).strip("-.") or "model"


def share(value: str | None) -> float | None:
    """Return "5%" or "0.05" as 0.05, None as it is; raises RectilinearError for anything else."""
    if value is None:
        return None
    text = value.strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise RectilinearError(f"expected a share above 0 like 5% or 0.05, got {value!r}")
    return number
