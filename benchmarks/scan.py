"""What a scan costs over a bare forward pass, on the demo model: one JSON line a case, ratios from one run.

    python benchmarks/scan.py [--tokens 16384] [--text FILE]

floor: the seconds that the operations of a case take at the rate of a large float32 product.

Peak memory is measured by the second form, each size in a process of its own:

    python benchmarks/scan.py --memory
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path

import torch

import rectilinear
from performance import Bench
from rectilinear.data.text import read_text
from rectilinear.models.stack import decoder_stack, forward, watch, width

WINDOW, BATCH = 512, 8


def windows(tokenizer: object, text: str | None, tokens: int) -> torch.Tensor:
    """Return [n, 512] token ids, the text repeated where it is too short."""
    ids: list[int] = []
    while len(ids) < tokens:
        for document in islice(read_text(text).documents(), 1000):
            ids += tokenizer(document, verbose=False)["input_ids"]  # type: ignore[operator]
            if len(ids) >= tokens:
                break
    return torch.tensor(ids[: tokens // WINDOW * WINDOW]).view(-1, WINDOW)


def bare(model: object, ids: torch.Tensor) -> float:
    """Return the seconds of a forward pass without the head."""
    stack = decoder_stack(model)
    start = time.perf_counter()
    with torch.inference_mode():
        for part in ids.split(BATCH):
            forward(model, stack, part, None)
    return time.perf_counter() - start


def scanned(model: object, tokenizer: object, ids: torch.Tensor) -> float:
    """Return the seconds of a whole scan, report included."""
    start = time.perf_counter()
    result = rectilinear.scan(model, tokenizer, input_ids=ids)
    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder) / "scan")
    return time.perf_counter() - start


def two_pass(model: object, ids: torch.Tensor) -> float:
    """Return the seconds of both scores of all layers by SVD, activations kept, forward pass included."""
    stack = decoder_stack(model)
    kept: list[list[torch.Tensor]] = [[] for _ in range(len(stack) + 1)]

    def keep(index: int, x: torch.Tensor, y: torch.Tensor) -> None:
        kept[index].append(x.reshape(-1, x.shape[-1]))
        if index == len(stack) - 1:
            kept[-1].append(y.reshape(-1, y.shape[-1]))

    start = time.perf_counter()
    with torch.inference_mode(), watch(stack, keep):
        for part in ids.split(BATCH):
            forward(model, stack, part, None)
    for below, above in pairwise(kept):
        x, y = torch.cat(below), torch.cat(above)
        for target in (y, y - x):
            basis = torch.linalg.svd(x - x.mean(0), full_matrices=False).U
            centred = target - target.mean(0)
            float((centred - basis @ (basis.T @ centred)).square().sum() / centred.square().sum())
    return time.perf_counter() - start


def memory(tokens: int) -> int:
    """Return the peak resident MiB of a scan of `tokens` in this process."""
    model, tokenizer = rectilinear.load("demo")
    rectilinear.scan(model, tokenizer, input_ids=windows(tokenizer, None, tokens))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def compare_memory(repeats: int) -> None:
    """Tell the peak of scans of two sizes in turn, and that of the larger over that of the smaller at the median."""
    peaks: dict[int, list[int]] = {16_384: [], 65_536: []}
    for _ in range(repeats):
        for tokens, found in peaks.items():
            done = subprocess.run([sys.executable, __file__, "--peak", str(tokens)], capture_output=True, check=True)
            found.append(int(done.stdout))
            tell(case="peak memory", tokens=tokens, MiB=found[-1])
    small, large = (statistics.median(found) for found in peaks.values())
    tell(case="peak memory, larger over smaller", ratio=round(large / small, 3))


def main() -> None:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--text")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--svd", action=argparse.BooleanOptionalAction, default=True, help="takes minutes")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(memory(options.peak))
        return
    if options.memory:
        compare_memory(options.repeats)
        return
    model, tokenizer = rectilinear.load("demo")
    ids = windows(tokenizer, options.text, options.tokens)
    bare(model, ids[:BATCH])  # the first pass pays for allocation
    forwards, scans = [], []
    for _ in range(options.repeats):  # in turn, so that a drifting machine speeds or slows both
        forwards.append(bare(model, ids))
        scans.append(scanned(model, tokenizer, ids))
        tell(case="one turn", forward=round(forwards[-1], 2), scan=round(scans[-1], 2))
    bench = Bench("demo", options.tokens, 1)
    passed, scan_floor = (work / bench.rate for work in (bench.pass_operations, bench.scan_operations))
    base = statistics.median(forwards)
    ratio = statistics.median(scan / pass_ for scan, pass_ in zip(scans, forwards, strict=True))
    tell(case="forward without head", tokens=ids.numel(), seconds=round(base, 2), floor=round(passed, 2), ratio=1.0)
    taken = round(statistics.median(scans), 2)
    tell(case="scan and report", seconds=taken, floor=round(scan_floor, 2), ratio=round(ratio, 3))
    if options.svd:
        seconds = two_pass(model, ids)
        # Of each score at the least: the product that a basis comes from, the basis, what it gives and takes back.
        work = 2 * 8 * ids.numel() * width(model) ** 2 * len(decoder_stack(model)) / bench.rate
        told = {"seconds": round(seconds, 2), "floor": round(passed + work, 2), "ratio": round(seconds / base, 3)}
        tell(case="two-pass SVD of both scores", **told)


def tell(**case: object) -> None:
    """Print one case as a line of JSON, at once."""
    print(json.dumps(case), flush=True)


if __name__ == "__main__":
    main()
