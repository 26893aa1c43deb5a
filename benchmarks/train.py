"""What a penalty and a profile add to training: one JSON line a case, all in one run.

    python benchmarks/train.py [--size mini] [--repeats 16] [--batch 4]

Steps with and without each penalty alternate, each first in turn, on one model and one batch, in processor time:
`added` is the median of the ratios of neighbours less one, with quartiles. `alone` is the time of the penalty by
itself, forward and backward on the stream of such a step, over that of a step, the least of each: steadier on a machine
with other work. The callback's share is arithmetic: one measured profile over `EVERY` measured steps of the size's own
batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from rectilinear.data.pieces import from_ids
from rectilinear.models.stack import decoder_stack, recorded
from rectilinear.ops.pretrain import new_model
from rectilinear.ops.pretraining.corpus import Collate
from rectilinear.ops.pretraining.recipe import Recipe
from rectilinear.ops.training.callback import EVERY
from rectilinear.ops.training.penalty import Penalty
from rectilinear.ops.training.profile import HOLDOUT, LEAST, PER_D, profile

PENALTIES = {
    "cosine": Penalty("cosine", 0.5),
    "mse": Penalty("mse", 0.5),
    "increment": Penalty("increment", 0.5, target=0.2),
}


def main() -> None:
    """Time steps with and without each penalty, and one profile."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="mini")
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    asked = parser.parse_args()

    recipe = Recipe(("demo",), asked.size, batch=asked.batch)
    shape = recipe.shape
    model = new_model(recipe, shape.vocab, 0).train()
    stack = decoder_stack(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    torch.manual_seed(0)
    # One token in 200 starts a document, as in TinyStories.
    ids = torch.randint(1, shape.vocab, (shape.batch, shape.window))
    ids[torch.rand(ids.shape) < 1 / 200] = 0
    batch = Collate(0)(list(ids.numpy()))

    def step(penalty: Penalty | None) -> float:
        start = time.process_time()
        with recorded(stack) as positions:
            loss = model(**batch, use_cache=False).loss
            if penalty is not None:
                loss = loss + penalty.weight * penalty(positions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    step(None)
    with recorded(stack) as stream, torch.no_grad():
        model(**batch, use_cache=False)
    a, copied = torch.zeros(2**24), torch.empty(2**24)
    bandwidth = 2 * a.nbytes / min(_timed(lambda: copied.copy_(a)) for _ in range(5))
    moving = 3 * sum(x.nbytes for x in stream) / bandwidth
    facts = {"size": asked.size, "tokens": ids.numel(), "threads": torch.get_num_threads()}
    plain = []
    for name, penalty in PENALTIES.items():
        ratios = []
        for i in range(asked.repeats):
            first, second = (penalty, None) if i % 2 else (None, penalty)
            seconds = {bool(p): step(p) for p in (first, second)}
            ratios.append(seconds[True] / seconds[False])
            plain.append(seconds[False])
        low, median, high = (round(q - 1, 4) for q in statistics.quantiles(ratios, n=4))
        alone = min(_timed(partial(_by_itself, penalty, stream)) for _ in range(5)) / min(plain)
        told = {"case": f"penalty {name}", **facts, "added": median, "quartiles": [low, high]}
        print(json.dumps({**told, "alone": round(alone, 4), "floor": round(moving / min(plain), 4)}), flush=True)

    tokens = max(LEAST, PER_D * shape.width)
    text = torch.randint(1, shape.vocab, (tokens // shape.window, shape.window)).numpy()
    pieces = from_ids(text, None, holdout=HOLDOUT)
    profiled = min(_timed(lambda: profile(model, pieces)) for _ in range(3))
    own = Recipe(("demo",), asked.size).step_tokens
    one = statistics.median(plain) * own / ids.numel()
    print(json.dumps({
        "case": "callback",
        "size": asked.size,
        "profile_tokens": pieces.tokens,
        "profile_seconds": round(profiled, 3),
        "step_tokens": own,
        "step_seconds": round(one, 3),
        "every": EVERY,
        "share": round(profiled / (EVERY * one), 5),
    }))  # fmt: skip


def _by_itself(penalty: Penalty, stream: list[torch.Tensor]) -> None:
    penalty([x.detach().requires_grad_() for x in stream]).backward()


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
