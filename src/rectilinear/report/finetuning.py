"""Fine-tuning over seeds: the folder, the figure, and the table in the form of Table 1 of the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rectilinear.digests import write_sums
from rectilinear.files import into, write_whole, writing
from rectilinear.report.chart import Curve, Panel, stacked
from rectilinear.report.folder import PAGE, PLOTS, TABLE, read_document, table_csv, write_figures, write_folder
from rectilinear.report.html import finetune_page
from rectilinear.report.plots import DASHED, values_of
from rectilinear.report.shapes import BLUE, ORANGE, SOFT, Drawing
from rectilinear.report.text import between, plain, plus_minus, share, signed, sparkline, visible
from rectilinear.results import FinetuneResult, SeedResult

DOCUMENT = "finetune.json"
LABELS = {"paper": "paper, in-sample", "heldout": "held-out", "ordinary": "ordinary"}
TITLES = {"increment": "Change of the increment score", "score": "Change of the score"}
COLOURS = {"paper": SOFT, "heldout": BLUE, "ordinary": ORANGE}
MARKERS = {"paper": "", "heldout": "dot", "ordinary": "square"}
WIDE = 12  # of the small curve of losses


def save_finetune(result: FinetuneResult, out: Path, *, force: bool = False) -> Path:
    """Write finetune.json, layers.csv, the plot and report.html to the folder `out`; return it.

    Raises ResultError as `folder.save` does.
    """

    def fill(folder: Path) -> None:
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        _draw(result, folder, png=True)

    return write_folder(out, fill, force=force, marker=DOCUMENT)


def keep_seed(
    result: FinetuneResult,
    seed: int,
    out: Path,
    weights: Callable[[Path], None] | None,
    *,
    fresh: bool,
    force: bool = False,
) -> None:
    """Write the model of a seed to seed-N, where `weights` writes one, then finetune.json, each whole or not at all.

    `fresh`: this is the first seed, and `out` is made, or with `force` replaced. Raises ResultError as `save_finetune`.
    """
    place = f"seed-{seed}"

    def write(folder: Path) -> None:
        if weights is not None:
            (folder / place).mkdir()
            weights(folder / place)
        (folder / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")

    if fresh:
        write_folder(out, write, force=force, marker=DOCUMENT)
        return
    if weights is not None:
        write_folder(out / place, weights, force=True, marker="config.json")
    with writing(out / DOCUMENT):
        write_whole(out / DOCUMENT, f"{result.to_json()}\n".encode())
        write_sums(out)


def load_finetune(path: str | Path) -> FinetuneResult:
    """Read a folder written by `save_finetune` or `keep_seed`, or its finetune.json.

    Raises ResultError where it is missing, damaged or of another schema.
    """
    return FinetuneResult.from_dict(read_document(path, DOCUMENT, "finetune")[1])


def render_finetune(result: FinetuneResult, folder: Path, *, png: bool = False) -> None:
    """Write table, plot and page into an existing folder; raises ResultError where that fails."""
    with into(folder) as part:
        _draw(result, part, png=png)


def _draw(result: FinetuneResult, folder: Path, *, png: bool) -> None:
    figures = {"finetune": finetune_figure(result)}
    write_figures(figures, folder / PLOTS, png=png)
    (folder / TABLE).write_text(finetune_csv(result), encoding="utf-8")
    (folder / PAGE).write_text(
        finetune_page(result, figures, LABELS, {seed.seed: losses(seed) for seed in result.seeds}), encoding="utf-8"
    )


def finetune_csv(result: FinetuneResult) -> str:
    """Return one line a layer: mean and standard deviation over seeds of each change (`increment_heldout_std`)."""
    columns = {f"{name}_{kind}": result.layer_changes(name, kind) for name in TITLES for kind in LABELS}
    return table_csv(
        [
            {
                "layer": layer.layer,
                **{f"{name}_{part}": value for name, c in columns.items() for part, value in asdict(c[i]).items()},
            }
            for i, layer in enumerate(result.seeds[0].delta.layers)
        ]
    )


def finetune_figure(result: FinetuneResult) -> Drawing:
    """Draw the change of both scores in every layer: mean over seeds, and a standard deviation around it."""
    x = np.array([layer.layer for layer in result.seeds[0].delta.layers])
    zero = Curve(x, np.zeros(len(x)), SOFT, marker="")
    panels = []
    for name, title in TITLES.items():
        curves = []
        for kind, label in LABELS.items():
            spreads = result.layer_changes(name, kind)
            mean, std = (values_of(getattr(spread, part) for spread in spreads) for part in ("mean", "std"))
            dash = DASHED if kind == "paper" else ()
            curves.append(Curve(x, mean, COLOURS[kind], label, MARKERS[kind], dash, (mean - std, mean + std)))
        panels.append(Panel(title, [zero, *curves]))
    return stacked(panels, "layer", (x[0] - 0.5, x[-1] + 0.5), 240, legend=curves)


def finetune_table(result: FinetuneResult) -> RenderableType:
    """Return what was trained, the changes over seeds, and one row a seed."""
    task, recipe = result.task, result.recipe
    changes = _table("mean over layers", *LABELS.values())
    for name, title in TITLES.items():
        changes.add_row(title, *(plus_minus(result.change(name, kind)) for kind in LABELS))
    seeds = _table("seed", "before", "after", "held-out", "95 %", "ordinary", "loss")
    for seed in result.seeds:
        increment = seed.delta.mean["increment"]
        seeds.add_row(
            str(seed.seed),
            f"{seed.accuracy_before:.3f}",
            f"{seed.accuracy_after:.3f}",
            signed(increment.heldout.delta),
            between(increment.heldout.low, increment.heldout.high),
            signed(increment.ordinary.delta),
            losses(seed),
        )
    usual = "" if task["majority"] is None else f"; the more frequent class alone gets {task['majority']:.3f}"
    return Group(
        Text.assemble(
            (f"{plain(result.provenance.get('model'))} on {visible(task['name'])}", "bold"),
            f": {recipe['method']} fine-tuning, {len(result.seeds)} seed{'s' if len(result.seeds) != 1 else ''}",
        ),
        Text(
            f"{recipe['steps']:,} steps of {recipe['batch'] * recipe['accumulate']} examples at {recipe['rate']:g} · "
            f"{result.trained:,} numbers trained\n",
            "dim",
        ),
        Text(
            f"accuracy on {task['test']:,} test examples {plus_minus(result.before, share)} → "
            f"{plus_minus(result.after, share)}{usual}\n"
        ),
        changes,
        Text(
            f"± standard deviation over seeds; more than noise by the documents: held-out {_moved(result, 'heldout')}, "
            f"ordinary {_moved(result, 'ordinary')} (increment score)\n",
            "dim",
        ),
        Text("Each seed: accuracy before and after, change of the increment score, losses", "bold"),
        seeds,
        *(Text(f"! {visible(note)}", style="yellow") for note in result.warnings),
    )


def losses(seed: SeedResult) -> str:
    """Return the losses of a training as a small curve between the first and the last."""
    values = [point.loss for point in seed.history]
    if not values:
        return "–"
    low, high = min(values), max(values)
    curve = sparkline([(value - low) / (high - low or 1.0) for value in values], WIDE)
    return f"{values[0]:.2f} {curve} {values[-1]:.2f}"


def _moved(result: FinetuneResult, kind: str) -> str:
    return f"{result.moved('increment', kind)} of {len(result.seeds)}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1), collapse_padding=True)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table
