"""How long the explorer takes to answer: one JSON line, in seconds.

    python benchmarks/explore.py SCANS NAME [MODEL]

SCANS: a folder of scans with kept moments; NAME: the one to take maps from. start: model, maps and an answer, which
`rectilinear explore` has done before it gives the address. prompt: all that the page shows for a prompt of 49 tokens
that is new (heat map, both lenses, the scan's triggers, completion and perplexity). what_if: three layers made linear.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rectilinear.app.engine import Engine, Question
from rectilinear.app.views import prompt_view

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

    cases: tuple[Callable[[], object], ...] = (prompt, what_if)
    taken = {"start": _seconds(lambda: look("Well,"))} | {case.__name__: _seconds(case) for case in cases}
    print(json.dumps({"model": model, **taken}))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 2)


if __name__ == "__main__":
    main(*sys.argv[1:])
