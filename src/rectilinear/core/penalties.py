"""Penalties on what layers do to the stream, with gradients.

After arXiv 2405.12250, section 4: L_cos = weight * sum over layers of 1 - cos(x_i, x_(i-1)) and L_MSE = weight * sum
over layers of ||x_i - x_(i-1)||^2. The paper says nothing of tokens: here, the sum over layers is averaged over the
real ones. `increment_penalty` is ours.

All take positions, the stream 0..L, each [b, w, d] (layer i lies between positions i and i + 1); mask [b, w], 1 at real
tokens, None where all are; layers, those that count, None for all. All are computed in float32 (float64 stays), under
autocast too, and return a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rectilinear.core.linear import fit
from rectilinear.core.moments import Moments
from rectilinear.core.products import full_precision
from rectilinear.errors import RectilinearError

TOKENS_PER_D = 4  # fewer, and a score on the rows that it was fitted on is near 1 whatever they are


def cosine_penalty(
    positions: Sequence[Tensor], mask: Tensor | None = None, *, layers: Sequence[int] | None = None
) -> Tensor:
    """Return the mean over tokens of the sum over layers of 1 - cos(x_i, x_(i-1)).

    A row of zeros has the cosine 0 and no gradient.
    """
    return _token_mean(_over_layers(_Cosine.apply, positions, layers), mask)


def mse_penalty(
    positions: Sequence[Tensor], mask: Tensor | None = None, *, layers: Sequence[int] | None = None
) -> Tensor:
    """Return the mean over tokens of the sum over layers of ||x_i - x_(i-1)||^2: summed over d, not averaged."""
    return _token_mean(_over_layers(_Squares.apply, positions, layers), mask)


def increment_penalty(
    positions: Sequence[Tensor],
    mask: Tensor | None = None,
    *,
    target: float,
    layers: Sequence[int] | None = None,
) -> Tensor:
    """Return the sum over layers of (increment score - target)^2.

    The score is that of the scan (1 - E / ||z - mean z||^2, where z = y - x and E is the error of the best affine map
    of x) on the n tokens given, in-sample: noise alone scores d / n. E is least at that map, so the map's own change
    adds nothing to the gradient of E, which is that of the residuals.

    Raises RectilinearError for fewer than 4 tokens per dimension.
    """

    def missed(x: Tensor, y: Tensor) -> Tensor:
        real = None if mask is None else mask.to(y.device) != 0
        a, b = (_wide(v.flatten(0, 1) if real is None else v[real]) for v in (x, y))
        return (_increment(a, b - a) - target).square()

    with torch.autocast(positions[-1].device.type, enabled=False):
        return _over_layers(missed, positions, layers)


def _increment(x: Tensor, z: Tensor) -> Tensor:
    """Return the in-sample increment score of rows x, z [n, d]; 0 where z does not vary."""
    n, d = x.shape
    if n < TOKENS_PER_D * d:
        raise RectilinearError(
            f"expected {TOKENS_PER_D * d:,} tokens or more in a forward pass for the increment score of a stream of "
            f"width {d}, got {n:,}: make the batch or the window larger"
        )
    moments = Moments.empty(d, d, x.device)
    moments.update(x.detach(), z.detach())
    with full_precision():
        error = (fit(moments)(x) - z).square().sum()
    total = (z - z.mean(0)).square().sum()
    return torch.where(total > 0, 1 - error / total.clamp(min=torch.finfo(total.dtype).tiny), 0)


def _over_layers(
    distance: Callable[[Tensor, Tensor], Tensor], positions: Sequence[Tensor], layers: Sequence[int] | None
) -> Tensor:
    """Return the sum over layers of a distance between their input and output."""
    chosen = range(len(positions) - 1) if layers is None else layers
    home = positions[-1].device  # a model may be spread over devices
    values = [distance(positions[i].to(positions[i + 1].device), positions[i + 1]).to(home) for i in chosen]
    return torch.stack(values).sum(0)


def _token_mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of rows [b, w] over real tokens, 0 where there are none."""
    if mask is None:
        return rows.mean()
    real = mask.to(rows.device)
    return rows.masked_fill(real == 0, 0).sum() / real.sum().clamp(min=1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _inverse_norm(x: Tensor) -> Tensor:
    """Return 1 over the norms of rows, 0 for rows of zeros."""
    norms = torch.linalg.vector_norm(x, dim=-1)
    return torch.where(norms > 0, norms.reciprocal(), 0)


class _Cosine(torch.autograd.Function):
    """1 - cos of rows. Kept for the backward pass are x and y, which autograd keeps anyway, and no wide copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        a, b = _wide(x), _wide(y)
        inverse_a, inverse_b = _inverse_norm(a), _inverse_norm(b)
        # Not vecdot, which autocast would do in halves.
        cosine = (a * b).sum(-1) * inverse_a * inverse_b
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
        return torch.linalg.vector_norm(z, dim=-1).square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, y = ctx.saved_tensors
        grad = (_wide(y) - _wide(x)).mul_(2 * grads[0][..., None])
        return -grad.to(x.dtype), grad.to(y.dtype)
