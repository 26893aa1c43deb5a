"""Draw saved results again: one entry for each kind, by the document that its folder holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from rectilinear.errors import ResultError
from rectilinear.report import delta, finetuning, folder, probe, reproduction, tokens, trace
from rectilinear.report.terminal import layers_table


@dataclass(frozen=True)
class Kind:
    """How results of one kind are shown.

    page: the name of their page. load: from a folder or its document; render: page and figures into an existing folder,
    PNG as well with `png`; table: what a terminal shows.
    """

    page: str
    load: Callable[[Path], Any]
    render: Callable[..., None]
    table: Callable[[Any], RenderableType]


KINDS = {
    folder.DOCUMENT: Kind(folder.PAGE, folder.load, folder.render, layers_table),
    tokens.DOCUMENT: Kind(tokens.PAGE, tokens.load_tokens, tokens.render_tokens, tokens.tokens_table),
    trace.DOCUMENT: Kind(trace.PAGE, trace.load_trace, trace.render_trace, trace.trace_table),
    delta.DOCUMENT: Kind(delta.PAGE, delta.load_delta, delta.render_delta, delta.delta_table),
    probe.DOCUMENT: Kind(probe.PAGE, probe.load_probe, probe.render_probe, probe.probe_table),
    finetuning.DOCUMENT: Kind(
        finetuning.PAGE, finetuning.load_finetune, finetuning.render_finetune, finetuning.finetune_table
    ),
    reproduction.DOCUMENT: Kind(
        reproduction.PAGE,
        reproduction.load_reproduction,
        reproduction.render_reproduction,
        reproduction.reproduction_table,
    ),
}


def kind_of(path: Path) -> Kind:
    """Return the kind of result that a folder holds, or that a document is; raises ResultError where it is none."""
    for name, kind in KINDS.items():
        if (path.is_file() and path.name == name) or (path / name).is_file():
            return kind
    raise ResultError(f"expected a folder with one of {', '.join(KINDS)}, got {path}: none of them there")
