"""Next-token prediction from logits: nats, hits, and the divergence of one model from another.

Logits are raised to float32 a chunk of rows at a time: with large vocabularies a whole batch would not fit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 1 << 23  # logits held in float32 at a time: 32 MiB a copy


def predictions(logits: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return nats [n] float64 of the targets, and whether each is the most likely token [n] bool.

    logits: [m, v], any float type. rows: [n], which rows of it predict. targets: [n], the tokens that came.
    """
    nats = torch.empty(len(rows), dtype=torch.float64)
    hits = torch.empty(len(rows), dtype=torch.bool)
    for part in row_chunks(len(rows), logits.shape[1]):
        chunk, target = logits[rows[part]], targets[part]
        hits[part] = chunk.argmax(1) == target
        chunk = chunk.float()
        nats[part] = (chunk.logsumexp(1) - chunk.gather(1, target[:, None])[:, 0]).cpu().double()
    return nats, hits


def divergences(logits: Tensor, reference: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(reference || model) [n] float64 in nats, and whether both find the same token most likely [n] bool.

    logits, reference: [m, v], any float type, on any device. rows: [n], which rows to compare.
    """
    divergence = torch.empty(len(rows), dtype=torch.float64)
    agree = torch.empty(len(rows), dtype=torch.bool)
    for part in row_chunks(len(rows), logits.shape[1]):
        model, other = logits[rows[part]], reference[rows[part].to(reference.device)].to(logits.device)
        agree[part] = model.argmax(1) == other.argmax(1)
        log_p, log_q = other.float().log_softmax(1), model.float().log_softmax(1)
        p = log_p.exp()
        # 0 log 0 is 0: a token that both models rule out would make NaN.
        terms = log_p.sub_(log_q).mul_(p).masked_fill_(p == 0, 0)
        wide = torch.float32 if terms.device.type == "mps" else torch.float64  # which it has not
        divergence[part] = terms.sum(1, dtype=wide).cpu().double()
    return divergence, agree


def leading(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the most likely token of each row and its probability, both [n]; logits [n, v], any float type."""
    values = logits.float()
    most, token = values.max(1)
    return token, (most - values.logsumexp(1)).exp()


def standing(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank (1 is the most likely) and the probability of the tokens `targets` [n], both [n].

    logits: [n, v], any float type.
    """
    values = logits.float()
    own = values.gather(1, targets[:, None])
    return 1 + (values > own).sum(1), (own[:, 0] - values.logsumexp(1)).exp()


def row_chunks(count: int, vocabulary: int) -> Iterator[slice]:
    """Yield slices of `count` rows of logits, as many rows each as CHUNK allows."""
    step = max(1, CHUNK // vocabulary)
    for start in range(0, count, step):
        yield slice(start, start + step)
