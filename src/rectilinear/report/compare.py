"""Several scans side by side."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rectilinear.report.folder import PLOTS, write_figures, write_folder
from rectilinear.report.html import compare_page
from rectilinear.report.plots import depth, overlay
from rectilinear.results import SCHEMA, ScanResult, clean

DOCUMENT = "compare.json"


def compare(results: Sequence[ScanResult], labels: Sequence[str]) -> dict[str, Any]:
    """Return the comparison as a document: means, differences to the first, curves over normalised depth."""
    first = results[0].summary()
    models = []
    for result, label in zip(results, labels, strict=True):
        summary = result.summary()
        delta = {
            name: {k: _difference(summary[name][k], first[name][k]) for k in first[name]}
            for name in ("score", "increment")
        }
        curves = {name: [getattr(layer, name).heldout for layer in result.layers] for name in ("score", "increment")}
        curves["depth"] = depth(result.layers)
        curves["norm_ratio"] = [layer.norm_ratio for layer in result.layers]
        models.append({"label": label, "summary": summary, "delta": delta, "curves": curves})
    return clean({"schema": SCHEMA, "kind": "compare", "models": models})


def save_compare(
    results: Sequence[ScanResult], labels: Sequence[str], out: Path, *, force: bool = False, png: bool = False
) -> Path:
    """Write compare.json, compare.csv, plots and compare.html to the folder `out`, whole or not at all.

    The plots are SVG and, with `png`, PNG too, which takes seconds. Raises ResultError as `folder.save` does.
    """

    def fill(folder: Path) -> None:
        document = compare(results, labels)
        (folder / DOCUMENT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        with (folder / "compare.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["model", "layer", "depth", "score_heldout", "increment_heldout", "norm_ratio"])
            for model in document["models"]:
                curves = model["curves"]
                columns = (curves["depth"], curves["score"], curves["increment"], curves["norm_ratio"])
                for index, row in enumerate(zip(*columns, strict=True)):
                    writer.writerow([model["label"].encode("utf-8", "replace").decode(), index, *row])
        figures = {"overlay": overlay(results, labels)}
        write_figures(figures, folder / PLOTS, png=png)
        (folder / "compare.html").write_text(compare_page(results, labels, figures), encoding="utf-8")

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base
