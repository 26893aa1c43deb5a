"""Our default against the published ways to cut depth, on the demo model: one JSON line a case, all in one run.

    python benchmarks/prune.py --calibrate wikitext2_valid.txt.gz --judge wiki.test.raw --stories stories.txt
        --lambada lambada.jsonl [--cuts 3,6,9] [--tokens 32768] [--journal tried.jsonl]

Every row is fitted on the same windows and judged by `rectilinear.evaluate` as a model of its own. `--journal` keeps
the sets of layers that selectors tried, so that a second run with the same text need not try them again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import rectilinear
from rectilinear.data.lambada import read_passages
from rectilinear.data.text import read_text
from rectilinear.models.surgery import cut_
from rectilinear.ops.cut.bench import Bench, Options, evaluating
from rectilinear.ops.cut.registry import REPAIRS
from rectilinear.ops.cut.repairs import repaired
from rectilinear.ops.cut.streams import Teacher

ROWS = {
    "ours": ("kl", "refit"),
    "one-shot refit": ("linearity", "refit"),
    "paper: removing": ("linearity", "none"),
    "paper: linear replacement": ("linearity", "linear"),
    "ShortGPT": ("bi", "none"),
    "UIDL window": ("angular", "none"),
    "SLEB": ("loss", "none"),
    "Prune&Comp on SLEB": ("loss", "scalar"),
    "LinearPatch-like on SLEB": ("loss", "patch"),
    "ReplaceMe LS": ("angular", "fold"),
    "ReplaceMe cosine": ("angular", "fold-cosine"),
    "LinearPatch-like on window": ("angular", "patch"),
}


def paths(bench: Bench, rows: list[str], most: int) -> dict[str, dict[int, tuple[int, ...]]]:
    """Return the choice of every row's selector for each number of layers up to `most`."""
    found = {}
    for select in dict.fromkeys(ROWS[row][0] for row in rows):
        start = time.perf_counter()
        bench.options = replace(bench.options, select=select)
        found[select], tried = bench.path(most)
        seconds = round(time.perf_counter() - start, 1)
        print(json.dumps({"case": f"select {select}", "seconds": seconds, "tried": len(tried)}), flush=True)
    return found


def figures(model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, float]:
    """Return the perplexities of a model on the judging texts."""
    found = {}
    for name, source, tokens in (("wikitext2", options.judge, 8192), ("stories", options.stories, 4096)):
        found[name] = rectilinear.perplexity(model, tokenizer, read_text(source).documents(), window=512, tokens=tokens)
    passages = tuple(islice(read_passages(options.lambada), options.passages))
    words = rectilinear.evaluate(model, tokenizer, passages=passages).models[0].lambada
    assert words is not None
    return {
        k: round(v, 3) for k, v in {**found, "lambada": words.perplexity, "lambada_accuracy": words.accuracy}.items()
    }


def main() -> None:
    """Run every row at every cut."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--stories", required=True)
    parser.add_argument("--lambada", required=True)
    parser.add_argument("--passages", type=int, default=60)
    parser.add_argument("--cuts", default="3,6,9")
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--effort", default="balanced")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--journal", type=Path)
    options = parser.parse_args()
    model, tokenizer = rectilinear.load("demo")
    settings = Options(tokens=options.tokens, effort=options.effort)
    bench = Bench(model, tokenizer, read_text(options.calibrate).documents(), settings, journal=options.journal)
    rows = options.rows.split(",")
    cuts = [int(cut) for cut in options.cuts.split(",")]
    with evaluating(model):
        chosen = paths(bench, rows, max(cuts))
        bench.release()
        print(json.dumps({"case": "dense", **figures(model, tokenizer, options)}), flush=True)
        teacher = Teacher(bench.runner, bench.ids, batch=bench.batch, keep=True)
        for cut in cuts:
            for name in rows:
                select, repair = ROWS[name]
                bench.options = replace(settings, select=select, repair=repair)
                work = bench.work(teacher, chosen[select][cut])
                start = time.perf_counter()
                repaired(work, REPAIRS[repair], after=bench.refit_after)
                seconds = round(time.perf_counter() - start, 1)
                made = copy.deepcopy(model)
                work.undo()
                cut_(made, None, [i for i in work.removed if i not in work.blocks], work.blocks)
                line = {"case": name, "changed": cut, "layers": sorted(work.removed), "repair_seconds": seconds}
                print(json.dumps({**line, **figures(made, tokenizer, options)}), flush=True)


if __name__ == "__main__":
    main()
