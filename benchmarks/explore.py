"""How long the explorer takes to answer: one JSON line, in seconds.

    python benchmarks/explore.py SCANS NAME [MODEL]

SCANS: a folder of scans with kept moments; NAME: the one to take maps from. start: model, maps and an answer, which
`rectilinear explore` has done before it gives the address. prompt: all that the page shows for a prompt of 49 tokens
that is new (heat map, both lenses, the scan's triggers, completion and perplexity). what_if: three layers made linear.
floor: of a prompt, what two passes, the maps and the lenses of every position take at the rate of a large product.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import rectilinear
from rectilinear.app.engine import Engine, Question
from rectilinear.app.views import prompt_view
from rectilinear.models.stack import decoder_stack, width

WORDS = " the capital of France is Paris and the capital of Germany is" * 4


def main(scans: str, name: str, model: str = "demo") -> None:
    """Print the line."""
    engine = Engine([model], Path(scans))

    def look(word: str) -> Question:
        asked = Question(model, name, word + WORDS[:-1])
        prompt_view(engine.look(asked))
        engine.scan(asked)
        return asked

    def prompt() -> None:
        engine.read(look("Now,"))

    def what_if() -> None:
        engine.read(look("Now,"), linear=(12, 13, 14))

    loaded = rectilinear.load(model)
    weights, head = (sum(p.numel() for p in decoder_stack(loaded[0]).parameters()), loaded[0].lm_head.weight.numel())
    d, positions = width(loaded[0]), len(decoder_stack(loaded[0])) + 1
    count = len(loaded[1]("Now," + WORDS[:-1])["input_ids"])
    # A pass for the heat map and one for the perplexity; a head for each of two lenses at each position.
    work = 2 * count * (2 * (weights + head) + positions * (d * d + 2 * head))
    a, b = torch.randn(4096, 1536), torch.randn(1536, 1536)
    rate = 2 * 4096 * 1536 * 1536 / min(_seconds(lambda: a @ b, 6) for _ in range(10))

    cases: tuple[Callable[[], object], ...] = (prompt, what_if)
    taken = {"start": _seconds(lambda: look("Well,"))} | {case.__name__: _seconds(case) for case in cases}
    print(json.dumps({"model": model, **taken, "floor": round(work / rate, 3)}))


def _seconds(work: Callable[[], object], digits: int = 2) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, digits)


if __name__ == "__main__":
    main(*sys.argv[1:])
