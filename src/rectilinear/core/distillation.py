"""How far a student is from its teacher, token by token, with gradients: logit KL, its top-k form, stream errors.

Softmaxes are taken in float32 (float64 for float64 logits), a chunk of rows at a time, and again in the backward pass:
beside the logits themselves only the student's gradient, in its own type, is as large as [n, v].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rectilinear.core.prediction import row_chunks


@dataclass(frozen=True)
class TopK:
    """A teacher's likeliest tokens: log-probabilities [n, k] at some temperature, their tokens [n, k], the rest's [n].

    rest: the log-probability of all other tokens together, -inf where k is the whole vocabulary.
    """

    values: Tensor
    indices: Tensor
    rest: Tensor


def top_k(logits: Tensor, k: int, temperature: float = 1.0) -> TopK:
    """Return the k likeliest tokens of each row of logits [n, v]; k above v counts as v."""
    n, v = logits.shape
    values = torch.empty(n, min(k, v), dtype=_wide(logits.dtype), device=logits.device)
    indices = torch.empty(n, min(k, v), dtype=torch.long, device=logits.device)
    rest = torch.empty(n, dtype=values.dtype, device=logits.device)
    for part in row_chunks(n, v):
        scaled = _scaled(logits[part], temperature)
        total = scaled.logsumexp(1)
        found = scaled.topk(values.shape[1], dim=1)
        values[part], indices[part] = found.values - total[:, None], found.indices
        # Over the others themselves: one minus the sum of the k would round to nothing.
        rest[part] = scaled.scatter_(1, found.indices, -torch.inf).logsumexp(1) - total
    return TopK(values, indices, rest)


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(teacher || student) [n] in nats, both softened by the temperature T (Hinton et al., 2015).

    student, teacher: logits [n, v] of any float types. Only the student gets a gradient. The paper heals by layerwise
    MSE; this loss is ours, after LinearPatch, where it does better on the same parameters.
    """
    return _KL.apply(student, teacher, temperature)


def kl_top_k(student: Tensor, teacher: TopK, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL [n] over the teacher's k likeliest tokens and all others as one: at most `kl`, equal at k = v.

    student: logits [n, v]. teacher: taken at the same temperature. As one bucket the others' mass still counts; which
    of them is likelier does not.
    """
    return _TopKL.apply(student, teacher.values, teacher.indices, teacher.rest, temperature)


def stream_errors(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the squared error [b, w] of each token, its mean over layers and the d numbers of the stream.

    student, teacher: streams [b, w, d], layer by layer in pairs. The paper's distillation (section on depth pruning) is
    layerwise MSE between the cut and the dense model, of the linear blocks only or of all parameters. Ours: each
    layer's output is compared with the dense stream at the position it stands for, so where layers were taken out,
    after them; and all layers weigh alike.
    """
    errors = [(s.float() - t.to(s.device).float()).square().mean(-1) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(errors).mean(0)


class _KL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(student, teacher)
        ctx.temperature = temperature
        out = torch.empty(len(student), dtype=_wide(student.dtype), device=student.device)
        for part in row_chunks(*student.shape):
            log_q = _scaled(student[part], temperature).log_softmax(1)
            log_p = _scaled(teacher[part], temperature).to(log_q).log_softmax(1)
            p = log_p.exp()
            # 0 log 0 is 0: a token that both rule out would make NaN.
            out[part] = log_p.sub_(log_q).mul_(p).masked_fill_(p == 0, 0).sum(1)
        return out * temperature**2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        student, teacher = ctx.saved_tensors
        (upstream,) = grads
        grad = torch.empty_like(student)
        for part in row_chunks(*student.shape):
            q = _scaled(student[part], ctx.temperature).softmax(1)
            p = _scaled(teacher[part], ctx.temperature).to(q).softmax(1)
            grad[part] = q.sub_(p).mul_(upstream[part, None] * ctx.temperature)
        return grad, None, None


class _TopKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, values: Tensor, indices: Tensor, rest: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(student, values, indices, rest)
        ctx.temperature = temperature
        out = torch.empty(len(student), dtype=_wide(student.dtype), device=student.device)
        for part in row_chunks(*student.shape):
            scaled = _scaled(student[part], temperature)
            total, tokens, log_p = scaled.logsumexp(1), indices[part], values[part]
            log_q = scaled.gather(1, tokens) - total[:, None]
            others = scaled.scatter(1, tokens, -torch.inf).logsumexp(1) - total
            p, p_rest = log_p.exp(), rest[part].exp()
            kept = ((log_p - log_q) * p).masked_fill(p == 0, 0).sum(1)
            out[part] = kept + ((rest[part] - others) * p_rest).masked_fill(p_rest == 0, 0)
        return out * temperature**2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        student, values, indices, rest = ctx.saved_tensors
        (upstream,) = grads
        grad = torch.empty_like(student)
        for part in row_chunks(*student.shape):
            scaled, tokens = _scaled(student[part], ctx.temperature), indices[part]
            q = scaled.softmax(1)
            # Among the others the bucket's mass is spread as the student spreads its own.
            change = q - scaled.scatter(1, tokens, -torch.inf).softmax(1) * rest[part].exp()[:, None]
            change.scatter_(1, tokens, q.gather(1, tokens) - values[part].exp().to(q))
            grad[part] = change.mul_(upstream[part, None] * ctx.temperature)
        return grad, None, None, None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """Return a wide copy of logits over the temperature, never a view."""
    return logits.to(_wide(logits.dtype)) / temperature
