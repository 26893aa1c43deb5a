"""Result folders: written whole or not at all, read back without torch."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rectilinear.errors import ResultError
from rectilinear.results import ScanResult, clean

DOCUMENT, ARRAYS, TABLE, PAGE, PLOTS = "result.json", "arrays.safetensors", "layers.csv", "report.html", "plots"


def save(result: ScanResult, out: Path, *, force: bool = False) -> Path:
    """Write result.json, arrays.safetensors, layers.csv, plots and report.html to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        save_file({name: np.ascontiguousarray(a) for name, a in result.arrays.items()}, folder / ARRAYS)
        render(result, folder)

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def load(path: str | Path) -> ScanResult:
    """Read a folder written by `save`; raises ResultError where it is missing, damaged or of another schema."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    file = folder / DOCUMENT
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultError(
            f"expected a folder written by `rectilinear scan`, got {path}: it has no {DOCUMENT}"
        ) from error
    except (ValueError, OSError) as error:
        raise ResultError(f"cannot read {file}: {error}; scan again") from error
    if not isinstance(document, dict):
        raise ResultError(f"expected a result document in {file}, got {type(document).__name__}")
    try:
        arrays = load_file(folder / ARRAYS) if (folder / ARRAYS).exists() else {}
    except (SafetensorError, OSError) as error:
        raise ResultError(f"cannot read {folder / ARRAYS}: {error}; scan again") from error
    return ScanResult.from_dict(document, arrays)


def render(result: ScanResult, folder: Path) -> None:
    """Write the table, the plots and the page of a result into an existing folder."""
    from rectilinear.report.html import scan_page
    from rectilinear.report.plots import scan_figures

    figures = scan_figures(result)
    write_figures(figures, folder / PLOTS)
    (folder / TABLE).write_text(layers_csv(result), encoding="utf-8")
    (folder / PAGE).write_text(scan_page(result, figures), encoding="utf-8")


def write_figures(figures: dict[str, Figure], folder: Path) -> None:
    """Write each figure as PNG and SVG."""
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=130)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def layers_csv(result: ScanResult) -> str:
    """Return one line a layer, nested fields flattened with underscores, lists left out."""
    rows = [_flat(layer) for layer in result.to_dict()["layers"]]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def check_writable(out: Path, force: bool, marker: str = DOCUMENT) -> None:
    """Raise ResultError where `out` must not be written: before a long scan, not after it."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not force:
        raise ResultError(f"{out} exists: add --force to replace it, or choose another --out")
    if out.exists() and not (out / marker).is_file():
        raise ResultError(
            f"{out} exists and is no result folder (no {marker}): it is not replaced; choose another --out"
        )


def write_folder(out: Path, fill: Callable[[Path], None], *, force: bool, marker: str) -> Path:
    """Let `fill` write into a temporary neighbour of `out`, then put it in its place.

    Raises ResultError where `out` must not be replaced or the disk refuses; the neighbour never stays.
    """
    check_writable(out, force, marker)
    part = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        part.chmod(0o755)
        fill(part)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
            out.replace(old / "was")
            part.replace(out)
            shutil.rmtree(old)
        else:
            part.replace(out)
    except OSError as error:
        raise ResultError(f"cannot write {out}: {error.strerror or error}; nothing was kept") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return out


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in clean(value).items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}_")
        elif not isinstance(item, list):
            flat[prefix + key] = item
    return flat
