"""Sufficient statistics of paired rows (x, z): all that a linear map, its error and both scores need.

z is the layer's contribution y - x, not y: the squared error of the best map is the same for both, and nothing cancels
where the contribution is small beside the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rectilinear.core.products import add_product, add_square, full_precision, row_norms, weighted_sums, zeros64
from rectilinear.errors import ResultError

EPS32 = 2.0**-24
EPS64 = 2.0**-53
EPS_HALF = 2.0**-20  # of bfloat16 rows: exact products, but matrix units cut off what they add up
NEAR = 0.5  # squared spreads: float32 rows whose mean lies within lose few digits where it stays (3.5: 1e-6 in a score)
FAR = 4.0  # spreads: a column of bfloat16 rows whose mean lies further from zero is shifted
SHIFTING = 512  # rows of the first batch whose mean is the shift: near enough, and read in no time


@dataclass
class Moments:
    """Counts, sums and products of rows x [n, p] and z [n, q], mergeable in any grouping.

    Rows are shifted by a constant close to their mean before they are multiplied, so large offsets cost no digits; of
    z only where its mean is large beside its spread, as it seldom is: that saves a copy of the rows.
    Products are taken in float32 over one update and summed in float64; with `exact`, or for float64 rows, they are
    float64 throughout. Where x and z both come in bfloat16 they are multiplied as they are, each product exact, and
    summed in float32: a GPU's matrix units do that fifteen times as fast. `eps` is the unit round-off of the coarsest
    product so far; it decides what counts as zero variance. On rows of like norms the float32 form leaves an error
    below 3e-7 in a score, the bfloat16 one below 5e-5, less than a model in bfloat16 loses itself.

    Attributes: n, number of rows; shift_x [p], shift_z [q]; sum_x [p], sum_z [q], of shifted rows;
    xx [p, p], xz [p, q], shifted products, of xx only the lower triangle counts; zz [], squared norm of the shifted z.
    All float64. fixed: the shifts were given, and the first rows leave them as they are.
    """

    n: int
    shift_x: Tensor
    shift_z: Tensor
    sum_x: Tensor
    sum_z: Tensor
    xx: Tensor
    xz: Tensor
    zz: Tensor
    eps: float = EPS64
    fixed: bool = False
    _far: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False, compare=False)  # shifted columns

    @classmethod
    def empty(cls, p: int, q: int, device: torch.device | str = "cpu") -> Moments:
        """Return the moments of no rows; raises RectilinearError for a device without float64."""
        zeros = partial(zeros64, device=device)

        return cls(0, zeros(p), zeros(q), zeros(p), zeros(q), zeros(p, p), zeros(p, q), zeros())

    def update(
        self,
        x: Tensor,
        z: Tensor,
        *,
        leave_out: Tensor | None = None,
        exact: bool = False,
        z_norm: Tensor | None = None,
    ) -> None:
        """Add rows x [n, p] and z [n, q]; rows where `leave_out` [n], on any device, is true are not counted.

        float16 is raised to float32 first. z_norm: the norms [n] of z, where they are known. Rows must be finite: the
        caller knows where they come from.
        """
        work = _working(x, z, exact)
        x, z = x.to(work), z.to(work)
        out = None if leave_out is None else leave_out.nonzero().flatten().to(x.device, non_blocking=True)
        n = len(x) - (0 if out is None else len(out))
        if n == 0:
            return
        if self.n == 0 and not self.fixed:
            some = _some(n, leave_out).to(x.device, non_blocking=True)
            self.shift_x, self.shift_z = _shift(x.index_select(0, some)), _shift_if_far(z.index_select(0, some))
        if self._far is None:
            self._far = self.shift_x.nonzero().flatten(), self.shift_z.nonzero().flatten()
        # Rows left out are zero in a, and so are their products with b; from the sums of b alone they are left out.
        a, b = _about(x, self.shift_x, self._far[0], out), _about(z, self.shift_z, self._far[1], None)
        squares = (z_norm if z_norm is not None and b is z else row_norms(b)).double().square()
        counted = b.new_ones(len(b))
        if out is not None:
            counted.index_fill_(0, out, 0)
            squares.index_fill_(0, out, 0)
        with full_precision():
            add_square(self.xx, a)
            add_product(self.xz, a, b)
            self.sum_x += weighted_sums(counted, a)
            self.sum_z += weighted_sums(counted, b)
        self.zz += squares.sum()
        self.n += n
        self.eps = max(self.eps, _EPS[work])

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows; the same to rounding in any order and grouping.

        Moments about the same shifts are added, and stay about them.
        """
        if self.n == 0 or other.n == 0:
            return (other if self.n == 0 else self).copy()
        n = self.n + other.n
        if torch.equal(self.shift_x, other.shift_x) and torch.equal(self.shift_z, other.shift_z):
            sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _SUMS}
            return replace(self, n=n, eps=max(self.eps, other.eps), **sums)
        weight = other.n / n
        gap_x = other.mean_x - self.mean_x
        gap_z = other.mean_z - self.mean_z
        cross = self.n * weight
        # The shift must stay representable in float32: rows added later are shifted in their own precision.
        mean_x, mean_z = self.mean_x + weight * gap_x, self.mean_z + weight * gap_z
        shift_x, shift_z = _representable(mean_x, torch.float32), _representable(mean_z, torch.float32)
        dx, dz = mean_x - shift_x, mean_z - shift_z
        xx, xz = self.sxx_lower.add_(other.sxx_lower), self.sxz.add_(other.sxz)
        return Moments(
            n,
            shift_x,
            shift_z,
            n * dx,
            n * dz,
            xx.addr_(gap_x, gap_x, alpha=cross).addr_(dx, dx, alpha=n),
            xz.addr_(gap_x, gap_z, alpha=cross).addr_(dx, dz, alpha=n),
            self.szz + other.szz + cross * gap_z.square().sum() + n * dz.square().sum(),
            max(self.eps, other.eps),
        )

    def since(self, earlier: Moments) -> Moments:
        """Return the moments of the rows that were added after `earlier`, a copy of these, was made.

        Raises ValueError where it is none: its shift is another.
        """
        if earlier.n == 0:
            return self.copy()
        if earlier.n > self.n or not torch.equal(earlier.shift_x, self.shift_x):
            raise ValueError(f"expected earlier moments of the same {self.n} rows, got others of {earlier.n}")
        sums = {name: getattr(self, name) - getattr(earlier, name) for name in _SUMS}
        return Moments(self.n - earlier.n, self.shift_x.clone(), self.shift_z.clone(), **sums, eps=self.eps)

    def about(self, shift_x: Tensor, shift_z: Tensor) -> Moments:
        """Return the moments of the same rows about other shifts, [p] and [q]."""
        dx, dz = self.shift_x - shift_x, self.shift_z - shift_z
        xx = torch.addr(self.xx, self.sum_x, dx).addr_(dx, self.sum_x).addr_(dx, dx, alpha=self.n)
        xz = torch.addr(self.xz, self.sum_x, dz).addr_(dx, self.sum_z).addr_(dx, dz, alpha=self.n)
        zz = self.zz + 2 * (self.sum_z @ dz) + self.n * dz.square().sum()
        sum_x, sum_z = self.sum_x + self.n * dx, self.sum_z + self.n * dz
        return replace(
            self, shift_x=shift_x, shift_z=shift_z, sum_x=sum_x, sum_z=sum_z, xx=xx, xz=xz, zz=zz, fixed=True
        )

    def emptied(self) -> Moments:
        """Return the moments of no rows about these shifts, which the rows to come leave as they are."""
        sums: dict[str, Any] = {name: torch.zeros_like(getattr(self, name)) for name in _SUMS}
        return replace(self, n=0, eps=EPS64, fixed=True, **sums)

    def to(self, device: torch.device) -> Moments:
        """Return the moments on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def copy(self) -> Moments:
        """Return an independent copy."""
        copies: dict[str, Any] = {name: tensor.clone() for name, tensor in self._tensors().items()}
        return replace(self, **copies)

    @property
    def mean_x(self) -> Tensor:
        """Mean of x, [p]."""
        return self.shift_x + self.sum_x / max(self.n, 1)

    @property
    def mean_z(self) -> Tensor:
        """Mean of z, [q]."""
        return self.shift_z + self.sum_z / max(self.n, 1)

    @property
    def sxx(self) -> Tensor:
        """Scatter of x about its mean, [p, p]."""
        lower = self.sxx_lower.tril_()
        return lower + lower.tril(-1).T

    @property
    def sxx_lower(self) -> Tensor:
        """`sxx` right in its lower triangle only, for solvers that read no more."""
        return torch.addr(self.xx, self.sum_x, self.sum_x, alpha=-1 / max(self.n, 1))

    @property
    def sxz(self) -> Tensor:
        """Cross scatter of x and z about their means, [p, q]."""
        return torch.addr(self.xz, self.sum_x, self.sum_z, alpha=-1 / max(self.n, 1))

    @property
    def szz(self) -> Tensor:
        """Total squared deviation of z from its mean, []."""
        return (self.zz - self.sum_z.square().sum() / max(self.n, 1)).clamp(min=0)

    @property
    def syy(self) -> Tensor:
        """Total squared deviation of y = x + z from its mean, []; needs p = q."""
        total = self.xx.trace() + 2 * self.xz.trace() + self.zz
        return (total - (self.sum_x + self.sum_z).square().sum() / max(self.n, 1)).clamp(min=0)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the state as named tensors, ready for safetensors; of xx the lower triangle [p (p + 1) / 2]."""
        header = torch.tensor([float(self.n), self.eps, float(self.fixed)], dtype=torch.float64)
        packed = {**self._tensors(), "xx": self.xx[_lower(len(self.xx), self.xx.device)]}
        return {"header": header, **{k: v.cpu().contiguous() for k, v in packed.items()}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Moments:
        """Rebuild from `to_tensors`; raises ResultError where a part is missing, of another size or no number."""
        try:
            n, eps, fixed = tensors["header"].flatten().tolist()
            parts: dict[str, Any] = {name: tensors[name] for name in _NAMES}
            p, q = len(parts["shift_x"]), len(parts["shift_z"])
        except (KeyError, ValueError, TypeError) as error:
            raise ResultError(f"expected saved moments, got a file without {error}; scan again") from error
        packed = parts["xx"]
        if packed.shape != (p * (p + 1) // 2,):
            raise ResultError(
                f"expected the triangle of {p} columns in saved moments, got {packed.numel()}; scan again"
            )
        sizes = {"shift_x": (p,), "shift_z": (q,), "sum_x": (p,), "sum_z": (q,), "xz": (p, q), "zz": ()}
        odd = [name for name, size in sizes.items() if parts[name].shape != size]
        odd += [name for name, part in parts.items() if part.dtype != torch.float64 or not part.sum().isfinite()]
        if odd or not 0 <= n <= _MOST:
            raise ResultError(f"expected saved moments of {p} columns, got damaged {(odd or ['rows'])[0]}; scan again")
        parts["xx"] = torch.zeros(p, p, dtype=packed.dtype)
        parts["xx"][_lower(p, packed.device)] = packed
        return cls(n=int(n), eps=eps, fixed=bool(fixed), **parts)

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file, through a temporary file beside it; raises ResultError where that fails."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = Path(path)
        part = path.with_name(path.name + ".part")
        try:
            save_file(self.to_tensors(), part)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            raise ResultError(f"cannot write {path}: {error}") from error
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read a file written by `save`; raises ResultError where it is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return cls.from_tensors(load_file(path))
        except (OSError, SafetensorError) as error:
            raise ResultError(f"cannot read moments from {path}: {error}") from error

    def sums(self) -> dict[str, Tensor]:
        """Return the sums and products by name, not copied: what adds up over sets of rows about the same shifts."""
        return {name: getattr(self, name) for name in _SUMS}

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = ("shift_x", "shift_z", "sum_x", "sum_z", "xx", "xz", "zz")
_SUMS = _NAMES[2:]
_MOST = 2.0**53  # rows: beyond it not every count is a float64
_EPS = {torch.float64: EPS64, torch.float32: EPS32, torch.bfloat16: EPS_HALF}


def _working(x: Tensor, z: Tensor, exact: bool) -> torch.dtype:
    """Return the precision that rows are multiplied in."""
    if exact or x.dtype == torch.float64:
        return torch.float64
    return torch.bfloat16 if x.dtype == z.dtype == torch.bfloat16 else torch.float32


def _some(n: int, leave_out: Tensor | None) -> Tensor:
    """Return which of n rows, those to `leave_out` apart, the shift is taken from: at most SHIFTING, spread evenly."""
    counted = torch.arange(n) if leave_out is None else (~leave_out).nonzero().flatten()
    return counted[:: -(-n // SHIFTING)]


def _shift(rows: Tensor) -> Tensor:
    """Return a point [p] near the mean of rows, representable in their precision, as float64.

    bfloat16 rows stay as they are but in columns far from zero: there the difference of two bfloat16 numbers is exact,
    elsewhere it is rounded.
    """
    wide = rows.float() if rows.dtype == torch.bfloat16 else rows
    mean = wide.mean(0)
    if rows.dtype == torch.bfloat16:
        spread = (wide - mean).square().mean(0).sqrt()
        mean = torch.where(mean.abs() > FAR * spread, mean, 0)
    return _representable(mean, rows.dtype)


def _shift_if_far(rows: Tensor) -> Tensor:
    """Return `_shift`, zero for float32 rows whose mean is not large beside their spread, over all columns."""
    shift = _shift(rows)
    if rows.dtype != torch.float32:
        return shift
    spread = (rows - shift.to(rows.dtype)).square().sum() / len(rows)
    return shift.where(shift.square().sum() > NEAR * spread, 0)


def _about(rows: Tensor, shift: Tensor, far: Tensor, out: Tensor | None) -> Tensor:
    """Return rows less the shift, those numbered `out` zeroed; the rows themselves where there is nothing to do.

    far: the columns whose shift is not zero. Zeroed rows add nothing to any sum: cheaper than copying the others out,
    as these are few.
    """
    if out is None and not len(far):
        return rows
    if rows.dtype != torch.bfloat16:
        about = rows - shift.to(rows.dtype)
    else:
        about = rows.clone()
        if len(far):
            moved = rows.index_select(1, far) - shift.index_select(0, far).float()
            about.index_copy_(1, far, moved.to(rows.dtype))  # rounded once
    return about if out is None else about.index_fill_(0, out, 0)


def _lower(p: int, device: torch.device) -> Tensor:
    """Return the mask [p, p] of the lower triangle: an eighth of its indices' size."""
    return torch.ones(p, p, dtype=torch.bool, device=device).tril_()


def _representable(values: Tensor, dtype: torch.dtype) -> Tensor:
    # Subtracting a shift that the rows' own precision cannot hold would subtract another one than is recorded.
    return values.to(dtype).to(torch.float64)
