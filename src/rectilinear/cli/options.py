"""Options that commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rectilinear.errors import TextError

Force = Annotated[bool, typer.Option("--force", help="Replace the folder if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result document to standard output.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Precision that models are loaded in.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, or balanced (spread over all GPUs).")]
BatchTokens = Annotated[int, typer.Option(help="Tokens in one forward pass.", min=1)]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask.")
]


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
