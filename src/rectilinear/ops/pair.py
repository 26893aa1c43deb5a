"""One (x, z) pair of a scan: its moments, the maps fitted on the first documents, the errors on the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from rectilinear.core.bootstrap import ratio_interval
from rectilinear.core.linear import AffineMap, Change, fit, fit_both, ratio, scores
from rectilinear.core.moments import Moments
from rectilinear.core.products import distances, full_precision, row_norms, row_squares
from rectilinear.results import Score

Judged = tuple[float | None, float | None, float | None]  # a score and its interval
JUDGED = ("errors", "totals_y", "totals_z")  # what adds up over rows


@dataclass(frozen=True)
class Flow:
    """What passes through a layer or submodule: rows of its input x, its contribution z and their sum y, all [n, d].

    y_norm, z_norm: norms [n] of y and z, where these are.
    """

    x: Tensor
    z: Tensor
    y: Tensor
    y_norm: Tensor
    z_norm: Tensor

    @classmethod
    def between(cls, x: Tensor, y: Tensor) -> Flow:
        """Return the flow of a layer with input x and output y."""
        z = y - x
        return cls(x, z, y, row_norms(y), row_norms(z))

    @classmethod
    def adding(cls, x: Tensor, z: Tensor) -> Flow:
        """Return the flow of what adds z to a stream x."""
        y = x + z
        return cls(x, z, y, row_norms(y), row_norms(z))


@dataclass
class HeldOut:
    """Errors of one map on unseen rows, summed over each block of documents.

    errors, totals_y, totals_z: [blocks]; totals are about `center`, the means [d] of y and z over the fit rows to the
    precision of bfloat16, so that rows in it can be set off against them as they are.
    fitted: n and sums of the fit rows, from which with those of all rows the held-out rows' own means follow.
    map: that of all rows may be a change of the map of ordinary ones; None where judging is over.
    """

    map: AffineMap | Change | None
    center: tuple[Tensor, Tensor]
    fitted: tuple[int, Tensor, Tensor]
    errors: Tensor
    totals_y: Tensor
    totals_z: Tensor

    @classmethod
    def of(
        cls,
        fitted: AffineMap | Change,
        groups: Sequence[Moments],
        blocks: int,
        center: tuple[Tensor, Tensor] | None = None,
    ) -> HeldOut:
        """Start with no held-out rows for a map fitted on groups of rows; `center` where it is not their own."""
        n = sum(group.n for group in groups)
        sum_z = torch.stack([group.n * group.mean_z for group in groups]).sum(0)
        sum_y = sum_z + torch.stack([group.n * group.mean_x for group in groups]).sum(0)
        about = center or ((sum_y / max(n, 1)).bfloat16().float(), (sum_z / max(n, 1)).bfloat16().float())
        none = torch.zeros(3, blocks, dtype=torch.float64, device=sum_z.device)
        return cls(fitted.to(torch.float32), about, (n, sum_y, sum_z), *none)

    def totals(self, flow: Flow) -> tuple[Tensor, Tensor]:
        """Return the squared distances [n] of y and of z to their centers."""
        y_center, z_center = self.center
        return distances(flow.y, flow.y_norm, y_center), distances(flow.z, flow.z_norm, z_center)

    def miss(self, flow: Flow, missed: Tensor | None) -> Tensor:
        """Return by how much the map misses z, [n, d]; `missed`: by how much that of ordinary rows does, changed."""
        assert self.map is not None
        if isinstance(self.map, AffineMap):
            return self.map.miss(flow.x, flow.z)
        assert missed is not None
        return self.map.miss_(missed, flow.x)

    def update(self, missed: Tensor, totals: tuple[Tensor, Tensor], block: Tensor, leave_out: Tensor | None) -> Tensor:
        """Judge rows of the document blocks [n], `totals` and what is missed as above; return squared errors [n]."""
        errors = row_squares(missed)
        for sums, values in zip((self.errors, self.totals_y, self.totals_z), (errors, *totals), strict=True):
            counted = (
                values if leave_out is None else values.masked_fill(leave_out.to(values.device, non_blocking=True), 0)
            )
            sums.index_add_(0, block, counted.double())
        return errors

    def merge(self, other: HeldOut) -> HeldOut:
        """Return the errors on both sets of rows, judged by the same map."""
        return self._judged({name: getattr(self, name) + getattr(other, name) for name in JUDGED})

    def branch(self) -> HeldOut:
        """Return the same errors, to be added to on their own."""
        return self._judged({name: getattr(self, name).clone() for name in JUDGED})

    def emptied(self) -> HeldOut:
        """Return the same map with no rows judged."""
        return self._judged({name: torch.zeros_like(getattr(self, name)) for name in JUDGED})

    def _judged(self, sums: dict[str, Any]) -> HeldOut:
        return replace(self, **sums)

    def to(self, device: torch.device) -> HeldOut:
        """Return the same on another device."""
        return HeldOut.from_tensors({name: tensor.to(device) for name, tensor in self.to_tensors().items()})

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the state as named tensors, ready for safetensors; the map, where there is one, as weight and bias."""
        n, sum_y, sum_z = self.fitted
        fitted = {"fitted": torch.tensor(n), "sum_y": sum_y, "sum_z": sum_z}
        center = {"center_y": self.center[0], "center_z": self.center[1]}
        weights = {} if self.map is None else vars(self.map)
        return {**fitted, **center, **weights, **{name: getattr(self, name) for name in JUDGED}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> HeldOut:
        """Rebuild from `to_tensors`; raises KeyError where a part is missing."""
        known: AffineMap | Change | None = None
        if "bias" in tensors:
            kind = AffineMap if "weight" in tensors else Change
            known = kind(**{part.name: tensors[part.name] for part in fields(kind)})
        center, fitted = (tensors["center_y"], tensors["center_z"]), int(tensors["fitted"])
        sums = (fitted, tensors["sum_y"], tensors["sum_z"])
        return cls(known, center, sums, *(tensors[name] for name in JUDGED))

    def score(self, every: Moments, residual: bool, seed: int) -> Judged:
        """Return the score on held-out rows about their own mean, and its 95 % interval over documents.

        every: moments of the fit and the held-out rows together.
        """
        n_fit, sum_y, sum_z = self.fitted
        held = every.n - n_fit
        totals, total, known, center = (
            (self.totals_y, every.n * (every.mean_x + every.mean_z), sum_y, self.center[0])
            if residual
            else (self.totals_z, every.n * every.mean_z, sum_z, self.center[1])
        )
        about_fit = float(totals.sum())
        about_own = about_fit - held * float(((total - known) / max(held, 1) - center).square().sum())
        if about_fit <= 0 or about_own <= 0:
            return None, None, None
        low, high = ratio_interval(self.errors, totals, scale=about_own / about_fit, seed=seed)
        return ratio(float(self.errors.sum()), about_own), low, high


GROUPS: dict[str, Any] = {
    "ordinary": Moments,
    "sink": Moments,
    "heldout": HeldOut,
    "heldout_ordinary": HeldOut,
}  # of a pair


@dataclass
class Pair:
    """Rows x [n, d] and contributions z [n, d] of one layer or submodule, ordinary and sink tokens kept apart."""

    d: int
    device: torch.device
    ordinary: Moments = field(init=False)
    sink: Moments | None = None
    heldout: HeldOut | None = None
    heldout_ordinary: HeldOut | None = None

    def __post_init__(self) -> None:
        self.ordinary = Moments.empty(self.d, self.d, self.device)

    @property
    def every(self) -> Moments:
        """Moments of ordinary and sink tokens together."""
        return self.ordinary if self.sink is None else self.ordinary.merge(self.sink)

    def update(self, flow: Flow, sinks: Tensor | None) -> None:
        """Add rows to the moments; `sinks` [n] marks sink tokens, None where there are none."""
        x, z = flow.x, flow.z
        self.ordinary.update(x, z, leave_out=sinks, z_norm=flow.z_norm)
        if sinks is not None:
            if self.sink is None:
                self.sink = Moments.empty(self.d, self.d, self.device)
            # Few and huge: in float32 their round-off alone would be as large as the ordinary tokens' variance.
            massive = sinks.nonzero().flatten().to(x.device, non_blocking=True)
            self.sink.update(x.index_select(0, massive), z.index_select(0, massive), exact=True)

    def start_heldout(self, blocks: int) -> None:
        """Fit the maps on what has been seen so far: the first documents."""
        if self.sink is None:
            self.heldout = HeldOut.of(fit(self.ordinary), [self.ordinary], blocks)
            return
        first, both = fit_both(self.ordinary, self.sink)
        self.heldout_ordinary = HeldOut.of(first, [self.ordinary], blocks)
        # One center for both, so that its distances are taken once: that of the many, which sinks do not pull.
        center = self.heldout_ordinary.center
        self.heldout = HeldOut.of(both, [self.ordinary, self.sink], blocks, center)

    def fitted(self, *, ordinary: bool) -> AffineMap:
        """Return the map of ordinary rows or of all that judges, in float64; something must have been held out."""
        assert self.heldout is not None
        first = self.heldout if self.heldout_ordinary is None else self.heldout_ordinary
        known = first.map if ordinary else self.heldout.map
        if isinstance(known, Change):
            assert isinstance(first.map, AffineMap)
            return known.after(first.map.to(torch.float64))
        assert known is not None
        return known.to(torch.float64)

    def judge(self, flow: Flow, block: Tensor, sinks: Tensor | None) -> Tensor:
        """Judge unseen rows by both maps; return the squared errors [n] of the map of all tokens."""
        assert self.heldout is not None
        if sinks is not None and self.heldout_ordinary is None:
            # The first sinks come in the held-out part: up to here both maps had the same rows.
            self.heldout_ordinary = self.heldout.branch()
        with full_precision():
            totals, missed = self.heldout.totals(flow), None
            if self.heldout_ordinary is not None:
                missed = self.heldout_ordinary.miss(flow, None)
                self.heldout_ordinary.update(missed, totals, block, sinks)
            return self.heldout.update(self.heldout.miss(flow, missed), totals, block, None)

    def merge(self, other: Pair) -> Pair:
        """Return the pair of both sets of rows; what was judged, was by the same maps."""
        both = Pair(self.d, self.device)
        both.ordinary = self.ordinary.merge(other.ordinary)
        both.sink = _merged(self.sink, other.sink)
        if self.heldout is None or other.heldout is None:
            judged = self if other.heldout is None else other
            both.heldout, both.heldout_ordinary = judged.heldout, judged.heldout_ordinary
            return both
        both.heldout = self.heldout.merge(other.heldout)
        if self.heldout_ordinary is not None or other.heldout_ordinary is not None:
            # Where one of them saw no sinks, both of its maps had the same rows.
            mine, theirs = (pair.heldout_ordinary or pair.heldout for pair in (self, other))
            assert mine is not None and theirs is not None
            both.heldout_ordinary = mine.merge(theirs)
        return both

    def emptied(self) -> Pair:
        """Return the pair of no rows, with the shifts and maps of these."""
        return self._each(lambda group: group.emptied(), self.device)

    def forget_maps_(self) -> None:
        """Drop the maps: judging is over."""
        for name in ("heldout", "heldout_ordinary"):
            held = getattr(self, name)
            setattr(self, name, None if held is None else replace(held, map=None))

    def to(self, device: torch.device) -> Pair:
        """Return the pair on another device."""
        return self._each(lambda group: group.to(device), device)

    def _each(self, made: Callable[[Any], Any], device: torch.device) -> Pair:
        """Return the pair of what is made of each group that there is."""
        pair = Pair(self.d, device)
        for name in GROUPS:
            group = getattr(self, name)
            setattr(pair, name, None if group is None else made(group))
        return pair

    def score(self, seed: int, every: Moments | None = None) -> tuple[Score, Score]:
        """Return the score and the increment score of everything seen; `every` where it has been merged already."""
        every = self.every if every is None else every
        paper = scores(every)
        out = []
        for value, residual in ((paper.score, True), (paper.increment, False)):
            held: Judged = (None, None, None)
            ordinary = held
            if self.heldout is not None:
                held = ordinary = self.heldout.score(every, residual, seed)
            if self.heldout_ordinary is not None:
                ordinary = self.heldout_ordinary.score(self.ordinary, residual, seed)
            out.append(Score(value, *held, *ordinary))
        return out[0], out[1]


def _merged(a: Moments | None, b: Moments | None) -> Moments | None:
    return a.merge(b) if a is not None and b is not None else a or b
