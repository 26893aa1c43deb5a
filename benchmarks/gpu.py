"""What a scan costs on a GPU over a bare forward pass, for a 7B-shaped llama of random weights in bfloat16.

    python benchmarks/gpu.py [--layers 32] [--tokens 1048576] [--batch-tokens 16384] [--repeats 3]
    python benchmarks/gpu.py --error [--model demo] [--text FILE] [--tokens 65536]

One JSON line a case. A scan's time is that of the pass over the tokens and of what comes after it, the solves, which
does not grow with the tokens; floors are operations over this GPU's own matrix rate, measured first. The second form
gives the largest error of the scores of a real model in bfloat16 against float64 products of the same streams.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import pairwise

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

import rectilinear
from rectilinear.core.linear import scores
from rectilinear.core.moments import Moments
from rectilinear.data.text import read_text
from rectilinear.models.stack import decoder_stack, forward, watch

D, MLP, WINDOW, HELD = 4096, 11_008, 512, 0.25


def model_7b(layers: int) -> PreTrainedModel:
    """Return a llama of 7B's shape with random weights, `layers` of its 32 layers."""
    config = LlamaConfig(hidden_size=D, intermediate_size=MLP, num_hidden_layers=layers, num_attention_heads=32)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return AutoModelForCausalLM.from_config(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def seconds_of(work: object) -> float:
    """Return the seconds that `work` takes, the GPU's part included."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()  # type: ignore[operator]
    torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_rate() -> float:
    """Return this GPU's bfloat16 operations a second on large matrices."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    torch.mm(a, b)
    return 20 * 2 * 8192**3 / seconds_of(lambda: [torch.mm(a, b) for _ in range(20)])


def bare(model: PreTrainedModel, ids: torch.Tensor, windows: int) -> float:
    """Return the seconds of a forward pass without the head."""
    stack = decoder_stack(model)

    def run() -> None:
        with torch.inference_mode():
            for part in ids.split(windows):
                forward(model, stack, part.cuda(), None)

    return seconds_of(run)


def scanned(model: PreTrainedModel, ids: torch.Tensor, batch_tokens: int) -> tuple[float, float]:
    """Return the seconds of a scan's pass, the fit of its maps included, and of what comes after it."""
    ends: list[float] = []
    start = time.perf_counter()

    def gathered(_: object) -> None:
        torch.cuda.synchronize()
        ends.append(time.perf_counter())

    rectilinear.scan(model, input_ids=ids, holdout=HELD, batch_tokens=batch_tokens, on_gathered=gathered)
    torch.cuda.synchronize()
    return ends[0] - start, time.perf_counter() - ends[0]


def cost(options: argparse.Namespace) -> None:
    """Time passes and scans of all tokens and of a quarter in turn: the difference is what a token costs."""
    model = model_7b(options.layers)
    windows = options.batch_tokens // WINDOW
    ids = torch.randint(0, model.config.vocab_size, (options.tokens // WINDOW, WINDOW))
    few = ids[: len(ids) // 4]
    rate = matrix_rate()
    bare(model, ids[:windows], windows)
    scanned(model, ids[: 8 * windows], options.batch_tokens)
    torch.cuda.reset_peak_memory_stats()
    turns: list[tuple[float, ...]] = []
    for _ in range(options.repeats):
        found = [(bare(model, each, windows), scanned(model, each, options.batch_tokens)) for each in (few, ids)]
        (forward_few, (gathering_few, _)), (forward_all, (gathering, solving)) = found
        marginal = (gathering - gathering_few) / (forward_all - forward_few)
        turns.append((forward_all, gathering, solving, marginal, (gathering + solving) / forward_all))
        tell("one turn", **dict(zip(("forward", "gathering", "solving", "ratio", "whole"), turns[-1], strict=True)))
    forwarding, gathering, solving, marginal, whole = (statistics.median(column) for column in zip(*turns, strict=True))
    weights = sum(p.numel() for p in decoder_stack(model).parameters())
    attention = WINDOW * D * options.layers  # scores and values, half a window a token
    products = options.layers * D * D * (1 + 5 / 8 + 2 * HELD)  # of x and z; of x, its strips; two halves of a map
    floor, own_floor = (2 * part * ids.numel() / rate for part in (weights + attention, products))
    tell("matrix rate", teraflops=rate / 1e12)
    tell("forward without head", tokens=ids.numel(), layers=options.layers, seconds=forwarding, floor=floor)
    tell("gathering, by token", ratio=marginal, floor=1 + own_floor / forwarding)
    tell("maps and solves, whatever the tokens", seconds=gathering + solving - marginal * forwarding)
    tell("scan", seconds=gathering + solving, ratio=whole)
    tell("peak memory", GiB=torch.cuda.max_memory_allocated() / 2**30)


def error(options: argparse.Namespace) -> None:
    """Compare a scan's scores with those of float64 products; sinks are set apart in neither."""
    model, tokenizer = rectilinear.load(options.model, device="cuda", dtype="bfloat16")
    found: list[int] = []
    for document in read_text(options.text).documents():
        found += tokenizer(document, verbose=False)["input_ids"]
        if len(found) >= options.tokens:
            break
    ids = torch.tensor(found[: min(options.tokens, len(found)) // WINDOW * WINDOW]).view(-1, WINDOW)
    result = rectilinear.scan(model, input_ids=ids, holdout=HELD, batch_tokens=options.batch_tokens)
    stack = decoder_stack(model)
    kept: list[list[torch.Tensor]] = [[] for _ in range(len(stack) + 1)]

    def keep(index: int, x: torch.Tensor, y: torch.Tensor) -> None:
        kept[index].append(x.flatten(0, 1))
        if index == len(stack) - 1:
            kept[-1].append(y.flatten(0, 1))

    with torch.inference_mode(), watch(stack, keep):
        for part in ids.split(options.batch_tokens // WINDOW):
            forward(model, stack, part.cuda(), None)
    worst = worst_increment = 0.0
    for (below, above), layer in zip(pairwise(kept), result.layers, strict=True):
        x, y = torch.cat(below).double(), torch.cat(above).double()
        moments = Moments.empty(x.shape[1], x.shape[1], x.device)
        moments.update(x, y - x)
        exact = scores(moments)
        worst = max(worst, abs(exact.score - layer.score.paper))
        worst_increment = max(worst_increment, abs(exact.increment - layer.increment.paper))
    tell("error of bfloat16 products", model=options.model, tokens=ids.numel(), score=worst, increment=worst_increment)


def tell(case: str, **values: object) -> None:
    """Print one case as a line of JSON, at once."""
    short = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"case": case, **short}), flush=True)


def main() -> None:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--batch-tokens", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--error", action="store_true")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--text")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "expected a CUDA GPU, got none: run this where there is one\n")
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__}))
    (error if options.error else cost)(options)


if __name__ == "__main__":
    main()
