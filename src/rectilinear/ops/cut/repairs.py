"""Repairs: what makes up for a removed span. Each is one function, named in `registry`.

A repair is handed the stream that the cut model brings to the layer before the span, asks the teacher for the dense
stream after it, and returns the cut model's stream after the span. Weights are changed through `Work`, which can undo
it. Streams are used window batch by window batch; nothing of a layer's inside is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rectilinear.core.linear import AffineMap, fit
from rectilinear.core.moments import Moments
from rectilinear.core.ridge import Ridge
from rectilinear.core.spans import Span, spans_of
from rectilinear.models.projection import Normed, Projection, contribution, output_projection
from rectilinear.models.runner import Runner
from rectilinear.models.scaling import scaled_parameters
from rectilinear.ops.cut.streams import Chunks, Teacher, rows, token_weights

RIDGE = 0.1  # towards the old weights, as a multiple of the features' mean square
AFTER = 10.0  # times the ridge for layers above the cut: they have less to make up for, and fit the text sooner
PATCH_RIDGE = 1e-3
FOLD_RIDGE = 1e-6  # ReplaceMe solves plain least squares; this only keeps the matrix positive definite
COSINE_RATE, COSINE_EPOCHS, COSINE_BATCH = 1e-4, 10, 1024  # ReplaceMe's


@dataclass
class Work:
    """A model being cut: which layers it does without, what stands in their place, and how to undo it all.

    fit_from: window batches before it are only carried along: a judge may look at them. scale: the cut model's stream
    times this has the size of the dense one (1 but after `scalar`). rank: of the affine maps at most.
    """

    runner: Runner
    teacher: Teacher
    removed: frozenset[int]
    ridge: float = RIDGE
    fit_from: int = 0
    rank: int | None = None
    blocks: dict[int, AffineMap] = field(default_factory=dict)
    scale: float = 1.0
    on_layer: Callable[[int], None] | None = None
    _before: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def write_(self, parameter: Tensor, value: Tensor) -> None:
        """Write a parameter in place, in its own dtype."""
        self._before.append((parameter, parameter.clone()))
        parameter.copy_(value)

    def change_(self, projection: Projection, weight: Tensor, bias: Tensor | None) -> None:
        """Add to a projection's weight [f, d], and to its bias [d] where both are there."""
        self.write_(projection.weight, projection.weight + weight)
        if bias is not None and projection.bias is not None:
            self.write_(projection.bias, projection.bias + bias)

    def undo(self) -> None:
        """Put every changed weight back, the last change first."""
        while self._before:
            parameter, value = self._before.pop()
            parameter.copy_(value)

    def run(self, layer: int, chunks: Chunks) -> Chunks:
        """Return the stream after a layer as it is now."""
        return [self.runner.layer(layer, x) for x in chunks]

    def fitting(self, *streams: Chunks) -> Iterator[tuple[Tensor, ...]]:
        """Yield the window batches of the streams that repairs are fitted on, side by side."""
        return zip(*(chunks[self.fit_from :] for chunks in streams), strict=True)

    def below(self, site: Site, chunks: Chunks) -> Chunks:
        """Return the stream before the removed span."""
        return chunks if site.layer is None else self.run(site.layer, chunks)

    def through(self, chunks: Chunks) -> Chunks:
        """Return the last position of the stream that starts with `chunks`, in the model as cut and repaired."""
        for layer in range(len(self.runner.stack)):
            if layer in self.blocks:
                chunks = self._mapped(layer, chunks)
            elif layer not in self.removed:
                chunks = self.run(layer, chunks)
        return chunks

    def place(self, layer: int, fitted: AffineMap, chunks: Chunks) -> Chunks:
        """Put a linear block in the place of a layer; return the stream after it."""
        self.blocks[layer] = fitted
        return self._mapped(layer, chunks)

    def _mapped(self, layer: int, chunks: Chunks) -> Chunks:
        single = self.blocks[layer].to(torch.float32)
        return [x + single(rows(x).float()).reshape(x.shape).to(x) for x in chunks]


@dataclass(frozen=True)
class Site:
    """A removed span, and the kept layer before it (None where the span starts the model)."""

    layer: int | None
    span: Span


class Inside:
    """Runs a layer and shows the inside of its MLP: what the output projection reads and gives."""

    def __init__(self, work: Work, layer: int, x: Tensor) -> None:
        self.projection = output_projection(work.runner.stack[layer])
        call = work.runner.call(layer, x)
        self._reach = contribution(work.runner.stack[layer], self.projection, *call)
        self._runner, self._layer = work.runner, layer

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return as float32 rows the layer's output [n, d], the projection's input [n, f] and its output [n, d]."""
        seen: list[tuple[Tensor, Tensor]] = []
        # Falcon adds attention's output to the projection's in place.
        hook = self.projection.module.register_forward_hook(lambda m, args, out: seen.append((args[0], out.clone())))
        try:
            y = self._runner.layer(self._layer, x)
        finally:
            hook.remove()
        ((a, out),) = seen
        return rows(y).float(), rows(a).float(), rows(out).float()

    def reach(self, out: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return divisor [n, 1] and gain [d]: outputs [n, d] reach the stream as out / divisor * gain.

        A norm behind the projection divides by a size that depends on the weights; here it is taken as it stands.
        """
        if isinstance(self._reach, Normed):
            return self._reach.divisor(out), self._reach.gain
        return 1.0, self._reach.scale


Repair = Callable[[Work, Site, Chunks], Chunks]


def repaired(work: Work, repair: Repair, *, after: bool = False) -> Chunks:
    """Repair every removed span in order, each on the stream of the model as cut and repaired so far.

    Returns the last position of the cut model's stream. after: refit the kept layers above the first cut as well.
    """
    spans = {span.start: span for span in spans_of(work.removed)}
    start = max(min(spans) - 1, 0)
    student = work.teacher.at(start)
    if 0 in spans:
        student = repair(work, Site(None, spans[0]), student)
    for layer in range(start, len(work.runner.stack)):
        if work.on_layer is not None:
            work.on_layer(layer)
        if layer in work.removed:
            continue
        if layer + 1 in spans:
            student = repair(work, Site(layer, spans[layer + 1]), student)
        elif after:
            student = _refitted(work, Site(layer, Span(layer + 1, layer + 1)), student, work.ridge * AFTER)
        else:
            student = work.run(layer, student)
    return student


def none(work: Work, site: Site, student: Chunks) -> Chunks:
    """Remove the span and do nothing (the paper's removing)."""
    return work.below(site, student)


def refit(work: Work, site: Site, student: Chunks) -> Chunks:
    """Solve the MLP's output projection of the layer before the span again, by ridge towards its old value.

    Features are the projection's own inputs in the cut model, targets what its stream lacks to the dense model's,
    tokens weighted by 1 / ||target||^2. Where no layer precedes the span, `scalar` is all that can be done.
    """
    return _refitted(work, site, student, work.ridge)


def _refitted(work: Work, site: Site, student: Chunks, ridge: float) -> Chunks:
    if site.layer is None:
        return scalar(work, site, student)
    target = work.teacher.at(site.span.stop)
    inside = Inside(work, site.layer, student[0])
    projection = inside.projection
    sums = Ridge(projection.in_features, target[0].shape[-1], intercept=projection.has_bias, device=target[0].device)
    for x, t in work.fitting(student, target):
        goal = rows(t).float() / work.scale
        y, a, out = inside(x)
        divisor, gain = inside.reach(out)
        sums.update(a / divisor, (goal - y) / gain, token_weights(goal))
    work.change_(projection, *sums.solve(ridge))
    return work.run(site.layer, student)


def linear(work: Work, site: Site, student: Chunks) -> Chunks:
    """Replace each layer of the span by its own affine map, fitted on the dense stream (the paper's replacement)."""
    below = work.below(site, student)
    for index in range(site.span.start, site.span.stop):
        x, y = work.teacher.at(index), work.teacher.at(index + 1)
        d = x[0].shape[-1]
        moments = Moments.empty(d, d, x[0].device)
        for a, b in work.fitting(x, y):
            moments.update(rows(a), rows(b).float() - rows(a).float())
        below = work.place(index, fit(moments, rank=work.rank), below)
    return below


def patch(work: Work, site: Site, student: Chunks) -> Chunks:
    """Put one affine map in the place of the whole span, fitted on the cut model's stream, tokens weighted as in refit.

    After LinearPatch and Ghosted Layers, whose patches are one matrix a span as well.
    """
    below = work.below(site, student)
    target = work.teacher.at(site.span.stop)
    d = target[0].shape[-1]
    sums = Ridge(d, d, intercept=True, device=target[0].device)
    for x, t in work.fitting(below, target):
        goal = rows(t).float()
        sums.update(rows(x), goal - rows(x).float(), token_weights(goal))
    weight, bias = sums.solve(PATCH_RIDGE, work.rank)
    assert bias is not None
    return work.place(site.span.start, AffineMap(weight, bias), below)


def fold(work: Work, site: Site, student: Chunks) -> Chunks:
    """Fold a map of the MLP's output into the projection before the span (ReplaceMe, least squares)."""
    if site.layer is None:
        return none(work, site, student)
    inside = Inside(work, site.layer, student[0])
    d = student[0].shape[-1]
    sums = Ridge(d, d, device=student[0].device)
    for x, t in work.fitting(student, work.teacher.at(site.span.stop)):
        y, _, out = inside(x)
        divisor, gain = inside.reach(out)
        sums.update(out / divisor, (rows(t).float() - y) / gain, torch.ones(len(y), device=y.device))
    change, _ = sums.solve(FOLD_RIDGE)
    return _folded(work, site.layer, inside, change, student)


def fold_cosine(work: Work, site: Site, student: Chunks) -> Chunks:
    """Fold the map that brings the stream's direction closest to the dense one (ReplaceMe, cosine), found by Adam."""
    if site.layer is None:
        return none(work, site, student)
    inside = Inside(work, site.layer, student[0])
    d = student[0].shape[-1]
    target = work.teacher.at(site.span.stop)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        change = torch.zeros(d, d, device=student[0].device, requires_grad=True)
        optimiser = torch.optim.Adam([change], lr=COSINE_RATE)
        for _ in range(COSINE_EPOCHS):
            for x, t in work.fitting(student, target):
                with torch.no_grad():
                    y, _, out = inside(x)
                    divisor, gain = inside.reach(out)
                    out, goal = out / divisor, rows(t).float()
                for part in torch.randperm(len(y), generator=generator).split(COSINE_BATCH):
                    moved = y[part] + out[part] @ change * gain
                    loss = 1 - torch.nn.functional.cosine_similarity(moved, goal[part], dim=1).mean()
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
    return _folded(work, site.layer, inside, change.detach(), student)


def scalar(work: Work, site: Site, student: Chunks) -> Chunks:
    """Give the stream back the size it would have had after the span (Prune&Comp).

    Prune&Comp multiplies everything below the cut, embeddings included. Norms take the scale out again, so dividing
    what every layer above adds is the same function, and tied embeddings stay as they are.
    """
    below = work.below(site, student)
    before, after = (
        torch.cat([rows(x).float().norm(dim=1) for x in chunks[work.fit_from :]])
        for chunks in (below, work.teacher.at(site.span.stop))
    )
    there = before > 0  # the embedding of a padding token is nothing, and has no size to give back
    factor = float((after[there] / before[there]).double().mean()) / work.scale
    for index in range(site.span.stop, len(work.runner.stack)):
        if index not in work.removed:
            call = work.runner.call(index, below[0])
            for parameter, value in scaled_parameters(work.runner.stack[index], *call, 1 / factor):
                work.write_(parameter, value)
    work.scale *= factor
    return below


def _folded(work: Work, layer: int, inside: Inside, change: Tensor, student: Chunks) -> Chunks:
    """Write the projection times (1 + change [d, d]) and return the stream after the layer."""
    projection = inside.projection
    bias = None if projection.bias is None else projection.bias.to(change) @ change
    work.change_(projection, projection.weight.to(change) @ change, bias)
    return work.run(layer, student)
