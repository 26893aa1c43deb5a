"""Penalties on how far a layer moves the stream: gradients that make consecutive positions alike.

After arXiv 2405.12250, section 4: L_cos = weight * sum over layers of 1 - cos(x_i, x_(i-1)) and L_MSE = weight * sum
over layers of ||x_i - x_(i-1)||^2. The paper says nothing of tokens: here, the sum over layers is averaged over the
real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cosine_penalty(
    positions: Sequence[Tensor], mask: Tensor | None = None, *, layers: Sequence[int] | None = None
) -> Tensor:
    """Return the mean over real tokens of the sum over layers of 1 - cos(x_i, x_(i-1)), a scalar with a gradient.

    positions: the stream 0..L, each [b, w, d]. mask [b, w]: 1 at real tokens, None where all are. layers: those that
    count (layer i lies between positions i and i + 1), None for all. Computed in float32 (float64 stays) whatever the
    stream's type; a row of zeros has the cosine 0 and no gradient.
    """
    return token_mean(row_sums(positions, "cosine", layers), mask)


def mse_penalty(
    positions: Sequence[Tensor], mask: Tensor | None = None, *, layers: Sequence[int] | None = None
) -> Tensor:
    """Return the mean over real tokens of the sum over layers of ||x_i - x_(i-1)||^2, a scalar with a gradient.

    Arguments as for `cosine_penalty`. The norm is over all d numbers of the stream, not their mean.
    """
    return token_mean(row_sums(positions, "mse", layers), mask)


def token_mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of rows [b, w] over real tokens, 0 where there are none."""
    if mask is None:
        return rows.mean()
    return rows.masked_fill(mask == 0, 0).sum() / mask.sum().clamp(min=1)


def row_sums(positions: Sequence[Tensor], kind: str, layers: Sequence[int] | None = None) -> Tensor:
    """Return each token's penalty [b, w], of a kind in KINDS, summed over the layers."""
    function = KINDS[kind]
    pairs = list(pairwise(positions))
    chosen = range(len(pairs)) if layers is None else layers
    total = None
    for i in chosen:
        x, y = pairs[i]
        value = function.apply(x.to(y.device), y)
        total = value if total is None else total + value.to(total.device)
    assert total is not None
    return total


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _inverse(squares: Tensor) -> Tensor:
    """Return 1 over the root of squared norms, 0 for those of rows of zeros."""
    return torch.where(squares > 0, squares.rsqrt(), 0)


class _Cosine(torch.autograd.Function):
    """1 - cos of rows: x and y are all that is kept for the backward pass, as autograd keeps them anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        a, b = _wide(x), _wide(y)
        inverse_a, inverse_b = (_inverse(torch.linalg.vecdot(v, v)) for v in (a, b))
        cosine = torch.linalg.vecdot(a, b) * inverse_a * inverse_b
        ctx.save_for_backward(x, y, cosine, inverse_a, inverse_b)
        return 1 - cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, y, cosine, inverse_a, inverse_b = ctx.saved_tensors
        cross = -grads[0] * inverse_a * inverse_b
        own = grads[0] * cosine
        a, b = _wide(x), _wide(y)
        grad_x = (b * cross[..., None]).addcmul_(a, (own * inverse_a.square())[..., None])
        grad_y = (a * cross[..., None]).addcmul_(b, (own * inverse_b.square())[..., None])
        return grad_x.to(x.dtype), grad_y.to(y.dtype)


class _Squares(torch.autograd.Function):
    """||y - x||^2 of rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        z = _wide(y) - _wide(x)
        return torch.linalg.vecdot(z, z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, y = ctx.saved_tensors
        grad = (_wide(y) - _wide(x)).mul_(2 * grads[0][..., None])
        return -grad.to(x.dtype), grad.to(y.dtype)


KINDS = {"cosine": _Cosine, "mse": _Squares}
