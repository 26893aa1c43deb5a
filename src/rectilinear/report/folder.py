"""Result folders: written whole or not at all, read back without torch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from rectilinear.digests import write_sums
from rectilinear.errors import ResultError
from rectilinear.files import into
from rectilinear.reading import read_json
from rectilinear.report.lock import locked
from rectilinear.report.swap import held_aside, neighbour, swap
from rectilinear.results import MOMENTS, MOMENTS_DOCUMENT, ScanResult
from rectilinear.results.document import link_files

if TYPE_CHECKING:
    from rectilinear.report.shapes import Drawing

DOCUMENT, ARRAYS, TABLE, PAGE, PLOTS = "result.json", "arrays.safetensors", "layers.csv", "report.html", "plots"
PREFIXES = {"sinks": "sink_", "tails": "tail_", "spectrum": ""}  # of CSV columns, where not the field's name


def save(result: ScanResult, out: Path, *, force: bool = False) -> Path:
    """Write result.json, arrays.safetensors, layers.csv, plots and report.html to the folder `out`; return it.

    Raises ResultError where it exists and `force` is False, or cannot be written; nothing half-written stays.
    """
    return write_folder(out, lambda folder: fill(result, folder), force=force, marker=DOCUMENT)


def fill(result: ScanResult, folder: Path, *, png: bool = True) -> None:
    """Write the files of a scan into an existing folder, the plots as SVG and PNG; raises OSError where that fails."""
    (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
    # Bytes first: safetensors' own writer hides a full disk behind its own error. C order: it ignores strides.
    arrays = {name: np.asarray(array, order="C") for name, array in result.arrays.items()}
    (folder / ARRAYS).write_bytes(safetensors.numpy.save(arrays))
    if result.moments is not None:
        link_files(result.moments, folder / MOMENTS)
    _draw(result, folder, png=png)


def load(path: str | Path) -> ScanResult:
    """Read a folder written by `save`, or its result.json.

    Raises ResultError where it is missing, damaged or of another schema.
    """
    file, document = read_document(path, DOCUMENT, "scan")
    arrays, moments = file.with_name(ARRAYS), file.with_name(MOMENTS)
    try:
        result = ScanResult.from_dict(document, safetensors.numpy.load_file(arrays) if arrays.exists() else {})
    except (safetensors.SafetensorError, OSError) as error:
        raise ResultError(f"cannot read {arrays}: {error}; scan again") from error
    return replace(result, moments=moments) if (moments / MOMENTS_DOCUMENT).is_file() else result


def read_document(path: str | Path, name: str, command: str) -> tuple[Path, dict[str, Any]]:
    """Return the document `name` that a command wrote to a folder, given the folder or the file, and where it is.

    Raises ResultError where it is missing or damaged.
    """
    file = Path(path) if Path(path).is_file() else Path(path) / name
    if not file.exists():
        raise ResultError(f"expected a folder written by `rectilinear {command}`, got {path}: no {name} there")
    return file, read_json(file, f"{command} again")


def render(result: ScanResult, out_dir: Path, *, png: bool = False) -> None:
    """Write the table, the plots and the page of a result into an existing folder; its data stay as they are.

    The plots are SVG and, with `png`, PNG too, which takes seconds. Raises ResultError where the folder cannot be
    written.
    """
    with into(out_dir) as part:
        _draw(result, part, png=png)


def _draw(result: ScanResult, folder: Path, *, png: bool) -> None:
    from rectilinear.report.html import scan_page
    from rectilinear.report.plots import scan_figures

    figures = scan_figures(result)
    write_figures(figures, folder / PLOTS, png=png)
    (folder / TABLE).write_text(layers_csv(result), encoding="utf-8")
    (folder / PAGE).write_text(scan_page(result, figures), encoding="utf-8")


def write_figures(
    figures: dict[str, Drawing], folder: Path, *, png: bool, titles: Mapping[str, str] | None = None
) -> None:
    """Write each figure as SVG, under its title in `titles` or that of its kind, and, if asked, as PNG."""
    from rectilinear.report.html import CAPTIONS
    from rectilinear.report.svg import svg

    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        (folder / f"{name}.svg").write_text(
            svg(figure, CAPTIONS[name][0] if titles is None else titles[name]), encoding="utf-8"
        )
    if png:
        _write_pngs(figures, folder)


def _write_pngs(figures: dict[str, Drawing], folder: Path) -> None:
    """Write each figure as PNG: while one is painted, the one before is encoded."""
    from rectilinear.report.png import encoded, figure, pixels

    with ThreadPoolExecutor(1) as pool:
        images = [(name, pool.submit(encoded, pixels(figure(drawing)))) for name, drawing in figures.items()]
        for name, image in images:
            (folder / f"{name}.png").write_bytes(image.result())


def layer_rows(result: ScanResult) -> list[dict[str, Any]]:
    """Return one row a layer, nested fields flattened (`score_paper`, `sink_count`), lists left out."""
    return [flat(layer) for layer in result.to_dict()["layers"]]


def layers_csv(result: ScanResult) -> str:
    """Return one line a layer."""
    return table_csv(layer_rows(result))


def table_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows of the same keys as CSV, the keys first; None is empty."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def check_writable(out: Path, force: bool, marker: str = DOCUMENT) -> None:
    """Raise ResultError where `out` must not or cannot be written: before a long scan, not after it.

    An empty folder may be filled; only a folder that holds `marker` is ever replaced, and only with `force`.
    """
    there = held_aside(out) or out  # which a kill may have left aside: it comes back as soon as `out` is held
    if there.exists() and not (there.is_dir() and not any(there.iterdir())):
        if not force:
            raise ResultError(f"{out} exists; add --force to replace it or choose another --out")
        if not (there / marker).is_file():
            raise ResultError(f"{out} holds no {marker}, so it is not replaced; choose another --out")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ResultError(f"cannot write {out}: {above} is no folder you may write to; choose another --out")


def write_folder(out: Path, fill: Callable[[Path], None], *, force: bool, marker: str) -> Path:
    """Let `fill` write into a temporary neighbour of `out`, add checksums, then put it in its place.

    Raises ResultError where `out` must not be replaced, another process writes it or the disk refuses; the neighbour
    never stays.
    """
    with locked(out):
        check_writable(out, force, marker)
        try:
            with neighbour(out) as part:
                fresh = part / "new"
                fresh.mkdir()  # not `part` itself, which only its owner may read
                fill(fresh)
                write_sums(fresh)
                swap(fresh, out, part)
        except OSError as error:
            raise ResultError(f"cannot write {out}: {error.strerror or error}; nothing was kept") from error
    return out


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, keys joined by `_`; lists are left out."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found |= flat(item, PREFIXES.get(key, f"{key}_"))
        elif not isinstance(item, list):
            found[key if key.startswith(prefix) else prefix + key] = item
    return found
