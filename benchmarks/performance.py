"""What commands cost against the least they could: one JSON line a case, all in one run.

    python benchmarks/performance.py [--model demo] [--tokens 8192]        # minutes; the table of docs/performance.md
    python benchmarks/performance.py --short [--check | --store]           # `make bench`

arithmetic: seconds that the case's operations take at the rate of a large float32 product timed in this run; moving:
those that the bytes it cannot but read and write take at the rate of a copy; floor: the larger of both; distance:
seconds over floor. ratio: seconds over those of the forward pass (without head) of the same tokens that was timed
beside it, or over a bare start: of Python, or of Python with what transformers loads models by; the median of
`--repeats` turns. passes: what a cut cost, in forward passes. --check compares the ratios with those in
benchmarks/ratios.json, of the same model and tokens, and fails where one is more than 10 % above; --store keeps them
there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import rectilinear
from rectilinear.cli.main import COMMANDS
from rectilinear.core.spectra import two_nn
from rectilinear.data.text import read_text
from rectilinear.models.siblings import default_text
from rectilinear.models.stack import decoder_stack, forward, width
from rectilinear.ops.cut.registry import SELECTORS

STORED = Path(__file__).with_name("ratios.json")
WORSE = 1.10  # of a ratio over the stored one
WINDOW, BATCH = 512, 8
LONG = ("kl", "loss", "reverse")  # selectors that try set after set: timed once
FLOAT, DOUBLE = 4, 8  # bytes
ADAM = 7 * FLOAT  # a parameter: weight, gradient and both moments read, all but the gradient written
BARE, TORCH = "", "from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel"  # loaded when named
STARTS = (["--version"], ["--help"], *([name, "--help"] for panel in COMMANDS.values() for name in panel))
READING = (["report", "SCAN"], ["compare", "SCAN", "SCAN", "--force"], ["verify", "SCAN"], ["reproduce", "--list"])
LOADING = (
    ["scan", "demo:tiny", "--tokens", "1024"],
    ["tokens", "demo:tiny", "--maps", "SCAN", "--prompt", "Once upon a time"],
    ["prune", "demo:tiny", "--remove", "1", "--effort", "one-shot", "--tokens", "1024"],
    ["eval", "demo:tiny", "--tokens", "1024"],
)


@dataclass
class Bench:
    """A model, a text of it, and the machine's speeds."""

    name: str
    tokens: int
    repeats: int

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer."""
        return rectilinear.load(self.name, dtype="float32")

    @cached_property
    def texts(self) -> list[str]:
        """The documents that all cases read."""
        return list(read_text(default_text(self.name)).documents())

    @cached_property
    def ids(self) -> torch.Tensor:
        """Windows [n, 512]."""
        found: list[int] = []
        while len(found) < self.tokens:
            for document in self.texts:
                found += self.loaded[1](document, verbose=False)["input_ids"]
        return torch.tensor(found[: self.tokens // WINDOW * WINDOW]).view(-1, WINDOW)

    @cached_property
    def rate(self) -> float:
        """Operations a second of a float32 product as large as a layer's."""
        a, b = torch.randn(4096, 1536), torch.randn(1536, 1536)
        return 2 * 4096 * 1536 * 1536 / min(seconds(lambda: a @ b) for _ in range(10))

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second of a copy, those read and those written."""
        a = torch.zeros(64 * 2**20)
        b = torch.empty_like(a)
        return 2 * a.nbytes / min(seconds(lambda: b.copy_(a)) for _ in range(5))

    @cached_property
    def pass_operations(self) -> float:
        """Operations of a forward pass over all tokens, without the head."""
        stack = decoder_stack(self.loaded[0])
        weights = sum(p.numel() for p in stack.parameters() if p.dim() == 2)
        attention = 2 * WINDOW * width(self.loaded[0]) * len(stack)  # half of the scores, and half of their use
        return (2 * weights + attention) * self.ids.numel()

    @cached_property
    def scan_operations(self) -> float:
        """Operations of a scan: the pass, both products of each layer, and its held-out maps on a quarter."""
        d, layers = width(self.loaded[0]), len(decoder_stack(self.loaded[0]))
        return self.pass_operations + (3.2 + 2 * 0.25) * d * d * layers * self.ids.numel()

    @cached_property
    def batches(self) -> int:
        """Batches of a pass: each reads all weights."""
        return -(-len(self.ids) // BATCH)

    @cached_property
    def pass_bytes(self) -> float:
        """Bytes of a forward pass: the weights once a batch, and the stream into and out of each layer."""
        stack = decoder_stack(self.loaded[0])
        weights = sum(p.numel() for p in stack.parameters())
        return FLOAT * (weights * self.batches + 2 * self.ids.numel() * width(self.loaded[0]) * len(stack))

    def bare(self) -> None:
        """Pass all tokens through the model, without the head."""
        model = self.loaded[0]
        stack = decoder_stack(model)
        with torch.inference_mode():
            for part in self.ids.split(BATCH):
                forward(model, stack, part, None)

    def against_forward(self, case: Callable[[], object], repeats: int | None = None) -> tuple[float, float, float]:
        """Return the median seconds of a case, of the forward pass in turn with it, and the median of their ratio."""
        pairs = [(seconds(self.bare), seconds(case)) for _ in range(repeats or self.repeats)]
        ratio = statistics.median(taken / base for base, taken in pairs)
        return statistics.median(taken for _, taken in pairs), statistics.median(base for base, _ in pairs), ratio

    def case(self, name: str, taken: float, operations: float, moved: float, **more: float) -> dict[str, Any]:
        """Return a case with its floor, from the operations and the bytes that it cannot do without."""
        arithmetic, moving = operations / self.rate, moved / self.bandwidth
        floors = {"arithmetic": arithmetic, "moving": moving, "floor": max(arithmetic, moving)}
        return {"case": name, "seconds": taken, **floors, **more}


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def scanning(bench: Bench, short: bool) -> Iterator[dict[str, Any]]:
    """Time the forward pass, the scan with its report, and with all pairs of positions."""
    model, tokenizer = bench.loaded
    layers, d, count = len(decoder_stack(model)), width(model), bench.ids.numel()

    def scan(**options: Any) -> None:
        result = rectilinear.scan(model, tokenizer, input_ids=bench.ids, **options)
        with tempfile.TemporaryDirectory() as folder:
            result.save(Path(folder) / "scan")

    taken, base, ratio = bench.against_forward(scan)
    yield bench.case("forward without head", base, bench.pass_operations, bench.pass_bytes, ratio=1.0)
    # Each batch reads the stream again and adds to the float64 products: read and written, of x only their triangle.
    moved = layers * (FLOAT * 2 * d * count + DOUBLE * 2 * 1.5 * d * d * bench.batches)
    operations, moved = bench.scan_operations, bench.pass_bytes + moved
    yield bench.case("scan and report", taken, operations, moved, ratio=ratio)
    if not short:
        products = layers * (layers + 1) / 2 * 2 * d * d * count
        summed = layers * (layers + 1) / 2 * DOUBLE * 2 * d * d * bench.batches
        taken, _, ratio = bench.against_forward(lambda: scan(pairs=True), 1)
        yield bench.case("scan with all pairs", taken, operations + products, moved + summed, ratio=ratio)
    points = torch.randn(4096, d)
    taken = min(seconds(lambda: two_nn(points)) for _ in range(bench.repeats))
    yield bench.case("intrinsic dimension of 4,096 points", taken, 2 * 4096**2 * d, FLOAT * 4096 * (d + 4096))


def judging(bench: Bench, short: bool) -> Iterator[dict[str, Any]]:
    """Time perplexity, which needs the head on every token."""
    model, tokenizer = bench.loaded
    text = [tokenizer.decode(bench.ids.flatten())]
    vocabulary = model.config.vocab_size
    head = 2 * bench.ids.numel() * width(model) * vocabulary

    def judge() -> None:
        rectilinear.perplexity(model, tokenizer, text, window=WINDOW, tokens=bench.ids.numel())

    taken, _, ratio = bench.against_forward(judge)
    moved = bench.pass_bytes + FLOAT * vocabulary * width(model) * bench.batches
    yield bench.case("perplexity", taken, bench.pass_operations + head, moved, ratio=ratio)


def cutting(bench: Bench, short: bool) -> Iterator[dict[str, Any]]:
    """Time a cut of two layers by each selector, refitted, and steps of healing it."""
    model, tokenizer = bench.loaded
    for select in ("linearity",) if short else SELECTORS:
        cuts = []

        def cut(select: str = select, cuts: list[Any] = cuts) -> None:
            cuts.append(
                rectilinear.prune(model, tokenizer, texts=bench.texts, remove=2, select=select, tokens=bench.tokens)
            )

        taken, _, ratio = bench.against_forward(cut, 1 if select in LONG else None)
        passes = cuts[-1].result.passes
        costs = passes * bench.pass_operations, passes * bench.pass_bytes
        yield bench.case(f"prune --select {select}", taken, *costs, ratio=ratio, passes=passes)
    if short:
        return
    last, steps = cuts[-1], 4
    weights, head = (sum(p.numel() for p in decoder_stack(last.model).parameters()), model.lm_head.weight.numel())
    turns = []
    for _ in range(bench.repeats):
        base = seconds(bench.bare) * WINDOW / bench.ids.numel()  # of as many tokens as a step has
        options: dict[str, Any] = {"plan": last.plan, "steps": steps, "holdout": 2, "read": 16 * WINDOW}
        healed = rectilinear.heal(last.model, model, tokenizer, texts=bench.texts, **options)
        taken = healed.result.seconds / steps
        turns.append((taken, taken / base))
    taken, ratio = (statistics.median(column) for column in zip(*turns, strict=True))
    # Operations: of the teacher forward, of the student forward and back. AdamW touches every number.
    operations = (8 * weights + 8 * head) * WINDOW
    yield bench.case("a step of heal", taken, operations, ADAM * (weights + head), ratio=ratio)


def starting(bench: Bench, short: bool) -> Iterator[dict[str, Any]]:
    """Time commands from the shell's prompt and back to it, against the start of what they cannot do without."""
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "scan"
        tiny, tokenizer = rectilinear.load("demo:tiny")
        stories = read_text(default_text("demo:tiny")).documents()
        rectilinear.scan(tiny, tokenizer, stories, tokens=2048, keep_moments=Path(folder) / "moments").save(scan)
        cases = [(words, BARE) for words in (*STARTS, *READING)] + [(words, TORCH) for words in LOADING]
        for words, least in cases[:2] if short else cases:
            command = [sys.executable, "-m", "rectilinear", *(str(scan) if word == "SCAN" else word for word in words)]
            out = (
                ["--out", str(Path(folder) / f"out-{words[0]}"), "--force"]
                if words in LOADING and "eval" not in words
                else []
            )

            def run(command: list[str] = [*command, *out]) -> None:  # noqa: B006  bound at once, never changed
                subprocess.run(command, capture_output=True, check=True, cwd=folder)

            def bare(least: str = least) -> None:
                run([sys.executable, "-c", least])

            pairs = [(seconds(bare), seconds(run)) for _ in range((3 if least == BARE else 1) * bench.repeats)]
            taken, floor = min(pair[1] for pair in pairs), min(pair[0] for pair in pairs)
            yield {"case": f"rectilinear {' '.join(words)}", "seconds": taken, "floor": floor, "ratio": taken / floor}


def compared(found: dict[str, float], key: str) -> list[str]:
    """Return the cases whose ratio has grown by more than a tenth."""
    stored = json.loads(STORED.read_text(encoding="utf-8")).get(key)
    if stored is None:
        sys.exit(f"expected ratios of {key} in {STORED}, got none: --store them first")
    return [
        f"{case}: {ratio:.3f}, stored {stored[case]:.3f}"
        for case, ratio in found.items()
        if case in stored and ratio > WORSE * stored[case]
    ]


def main() -> None:
    """Run the cases, and compare or keep their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--store", action="store_true")
    asked = parser.parse_args()
    bench = Bench(asked.model, asked.tokens, asked.repeats)
    bench.bare()  # the first pass pays for allocation
    tell({"case": "machine", "operations_a_second": bench.rate, "bytes_a_second": bench.bandwidth})
    found: dict[str, float] = {}
    for cases in (scanning, judging, cutting, starting):
        for case in cases(bench, asked.short):
            tell({**case, "distance": case["seconds"] / case["floor"]})
            if case.get("ratio", 1.0) != 1.0:
                found[case["case"]] = round(case["ratio"], 3)
    key = f"{asked.model}, {asked.tokens} tokens"
    if asked.store:
        kept = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
        kept[key] = kept.get(key, {}) | found  # a short run leaves the cases of a long one
        STORED.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if asked.check and (worse := compared(found, key)):
        sys.exit("slower than stored by more than 10 %: " + "; ".join(worse))


def tell(case: dict[str, Any]) -> None:
    """Print one case as a line of JSON, at once."""
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in case.items()}), flush=True)


if __name__ == "__main__":
    main()
