"""`rectilinear explore`."""

from __future__ import annotations

import socket
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.options import Device, Dtype, LayersPath, TrustRemoteCode
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import note
from rectilinear.errors import RectilinearError, ResultError

EPILOG = """Examples:

rectilinear explore

rectilinear scan demo --keep-moments --out scans/wiki --text wiki.txt && rectilinear explore demo --scans scans

rectilinear explore demo ./small --scans scans --port 8000"""


def explore(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models to choose from: Hub ids, local folders, .gguf files, or 'demo'.",
            metavar="[MODEL]...",
            show_default="demo",
        ),
    ] = None,
    scans: Annotated[
        Path,
        typer.Option(help="A folder of folders of `scan --keep-moments` or `tokens`: their maps can be chosen."),
    ] = Path(),
    port: Annotated[int, typer.Option(help="Where to serve, on this machine only.", min=1, max=65535)] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Give the page a public address too; needs --publicly as well.")
    ] = False,
    publicly: Annotated[
        bool, typer.Option("--publicly", help="Confirm --share: anyone with the address can use this machine's models.")
    ] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    layers_path: LayersPath = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Look at prompts on a local page: where layers are not linear, and what if some were removed or linear.

    Serves on a loopback address of this machine until Ctrl-C. Nothing leaves the machine: no telemetry, no fonts or
    scripts from elsewhere. Needs the extra `app`.
    """
    if share != publicly:
        raise RectilinearError(
            "expected --share and --publicly together: they let anyone with the address use this machine's models, "
            "through Gradio's servers; leave both out to stay on this machine"
        )
    if find_spec("gradio") is None:
        raise RectilinearError("expected Gradio for the page, it is not installed: pip install 'rectilinear[app]'")
    if not scans.is_dir():
        raise ResultError(f"expected a folder of scans, got {scans}: name one with --scans")
    _check_free(port)  # before a model is loaded
    names = models or ["demo"]
    with progress_bar(Console(stderr=True)) as show:
        show(f"loading {names[0]}", 0, None, "")
        from rectilinear.app.engine import Engine
        from rectilinear.app.page import serve

        options = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
        page = serve(Engine(names, scans, layers_path=layers_path, **options), port=port, share=share)
    for address in [page.local_url, page.share_url] if share else [page.local_url]:
        note(f"Page: {address} (Ctrl-C ends it)")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.close(verbose=False)


def _check_free(port: int) -> None:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError as error:
            raise RectilinearError(f"cannot serve on port {port}: it is in use; name another with --port") from error
