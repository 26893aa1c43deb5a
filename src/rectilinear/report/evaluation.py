"""The folder of an evaluation: its document, one line a model, and a page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from rectilinear.report.folder import flat, write_folder
from rectilinear.report.html import eval_page
from rectilinear.results import EvalResult, ModelResult, clean

DOCUMENT = "eval.json"


def save_eval(result: EvalResult, out: Path, *, force: bool = False) -> Path:
    """Write eval.json, eval.csv and eval.html to the folder `out`, whole or not at all; return it.

    Raises ResultError as `folder.save` does.
    """

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        (folder / "eval.csv").write_text(eval_csv(result), encoding="utf-8")
        (folder / "eval.html").write_text(eval_page(result), encoding="utf-8")

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def eval_rows(result: EvalResult) -> list[dict[str, Any]]:
    """Return one row a model, the reference first, nested fields flattened (`text_perplexity`, `divergence_kl`).

    Of tasks the values and their errors (`arc_easy_acc`, `arc_easy_acc_stderr`).
    """
    return [flat(clean(row)) | _tasks(row) for row in result.rows]


def eval_csv(result: EvalResult) -> str:
    """Return one line a model, the reference first."""
    rows = eval_rows(result)
    columns = dict.fromkeys(key for row in rows for key in row)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # A lone surrogate, as in a file's name, is no text that could be written.
        writer.writerow({k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in row.items()})
    return stream.getvalue()


def _tasks(row: ModelResult) -> dict[str, float | None]:
    return clean(
        {
            f"{score.task}_{score.metric}{end}": value
            for score in row.tasks or ()
            for end, value in (("", score.value), ("_stderr", score.stderr))
        }
    )
