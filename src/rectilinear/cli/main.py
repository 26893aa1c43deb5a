"""The command: one thin function each, heavy imports inside, errors as one line with exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from rectilinear.cli import (
    delta,
    evaluate,
    heal,
    judge,
    merge,
    pretrain,
    probe,
    prune,
    report,
    scan,
    tokens,
    trace,
    verify,
)
from rectilinear.errors import RectilinearError

app = typer.Typer(
    name="rectilinear",
    help="Measure, train and exploit the hidden linearity of transformer decoders.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS: dict[str, dict[str, tuple[Callable[..., None], str | None]]] = {  # by panel of the help
    "Measure": {
        "scan": (scan.scan, scan.EPILOG),
        "merge": (merge.merge, merge.EPILOG),
        "tokens": (tokens.tokens, tokens.EPILOG),
        "trace": (trace.trace, trace.EPILOG),
        "delta": (delta.delta, delta.EPILOG),
        "probe": (probe.probe, probe.EPILOG),
    },
    "Cut depth": {
        "prune": (prune.prune, prune.EPILOG),
        "heal": (heal.heal, heal.EPILOG),
    },
    "Train": {
        "pretrain": (pretrain.pretrain, pretrain.EPILOG),
    },
    "Judge": {
        "eval": (evaluate.evaluate, evaluate.EPILOG),
        "judge": (judge.judge, judge.EPILOG),
    },
    "Show": {
        "report": (report.report, None),
        "compare": (report.compare, None),
        "verify": (verify.verify, None),
    },
}
for panel, commands in COMMANDS.items():
    for name, (command, epilog) in commands.items():
        app.command(name, epilog=epilog, rich_help_panel=panel)(command)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        Console().print(f"rectilinear {version('rectilinear')}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; user mistakes leave one line on standard error and exit code 2, Ctrl-C exit code 130."""
    try:
        app(standalone_mode=True)
    except RectilinearError as error:
        fail(str(error))
    except BrokenPipeError:
        # The reader (head, less) has gone: nobody is left to tell.
        sys.stderr.close()
        sys.exit(141)


def fail(message: str) -> None:
    """Print one red line on standard error and leave with exit code 2."""
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(line)}")
    sys.exit(2)
