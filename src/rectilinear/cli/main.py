"""The command: one thin function each, heavy imports inside, errors as one line with exit code 2."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from rectilinear.cli import (
    delta,
    evaluate,
    explore,
    finetune,
    heal,
    judge,
    merge,
    pretrain,
    probe,
    prune,
    report,
    reproduce,
    scan,
    tokens,
    trace,
    verify,
)
from rectilinear.cli.console import Console, plain
from rectilinear.cli.hold import holding
from rectilinear.errors import RectilinearError
from rectilinear.report.text import visible

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
        "finetune": (finetune.finetune, finetune.EPILOG),
    },
    "Judge": {
        "eval": (evaluate.evaluate, evaluate.EPILOG),
        "judge": (judge.judge, judge.EPILOG),
    },
    "Prove": {
        "reproduce": (reproduce.reproduce, reproduce.EPILOG),
    },
    "Show": {
        "explore": (explore.explore, explore.EPILOG),
        "report": (report.report, report.REPORT_EPILOG),
        "compare": (report.compare, report.COMPARE_EPILOG),
        "verify": (verify.verify, verify.EPILOG),
    },
}
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # faults that are no mistake of the command


def _flowing(text: str | None) -> str:
    """Return a docstring with each paragraph on a line of its own: a terminal of any width then wraps it itself."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n"))


for panel, commands in COMMANDS.items():
    for name, (command, epilog) in commands.items():
        app.command(name, help=_flowing(command.__doc__), epilog=epilog, rich_help_panel=panel)(command)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        Console().print(f"rectilinear {version('rectilinear')}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    unadorned: Annotated[
        bool,
        typer.Option(
            "--plain", help="No colours, no progress bar, tables in ASCII; NO_COLOR=1 takes the colours only."
        ),
    ] = False,
) -> None:
    context.with_resource(holding())
    if unadorned:
        context.with_resource(plain())


def main() -> None:
    """Run the command; user mistakes and full disks leave one line on standard error and exit code 2.

    Signals that end a process end it with 128 and their number, as a shell tells it, after what is temporary is gone:
    Ctrl-C 130, SIGTERM 143, a terminal that closes 129. Any other exception is a fault of the program: exit code 1, and
    a traceback in which text from data is made visible.
    """
    try:
        _run()
    except Exception:
        told = traceback.format_exc()
        sys.stderr.write("\n".join(visible(line) for line in told.split("\n")))
        sys.exit(1)


def _run() -> None:
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup's is to be ignored
            signal.signal(number, _end)
    try:
        try:
            app(standalone_mode=True)
        finally:
            sys.stdout.flush()  # a full disk is said here, not by the interpreter as it ends
    except RectilinearError as error:
        fail(str(error))
    except BrokenPipeError:
        # The reader (head, less) has gone: nobody is left to tell.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno not in DISK:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what could not be written is not tried again
        fail(f"cannot write {error.filename or 'the output'}: {error.strerror}")


def _end(number: int, _frame: FrameType | None) -> None:
    """End the command as an error would, whatever it is at, so that it cleans up; another such signal is not heard."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def fail(message: str) -> None:
    """Print one red line on standard error and leave with exit code 2."""
    line = visible(" ".join(message.split()))
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(line)}")
    sys.exit(2)
