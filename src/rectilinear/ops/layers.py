"""What a scan gathers while the stream flows by, layer by layer.

Nothing here keeps activations: a batch's rows are used inside the hook and dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rectilinear.core.moments import Moments
from rectilinear.core.products import raised, row_norms
from rectilinear.core.tails import LogHistogram
from rectilinear.ops.carriers import Carried, Kinds
from rectilinear.ops.kept import Keeper
from rectilinear.ops.pair import Flow, Pair
from rectilinear.ops.pairs import Spans
from rectilinear.ops.passage import Kept
from rectilinear.ops.positions import Position, Rows, Seen, SideStreams, check_finite, fetch, runs_ahead
from rectilinear.ops.sinks import NamedSinks
from rectilinear.ops.spill import Spill

TRIGGERS = 20  # worst tokens kept per layer
SAMPLE = 1024  # rows used per layer for the intrinsic dimension
GEOMETRY = ("count", "ratio_sum", "cosine_sum", "cosine_squares")  # what adds up over tokens
_END = object()

Trigger = tuple[float, float, int, int, int, bool, tuple[int, ...]]  # error, relative error, token, place, sink, before


@dataclass
class Layer:
    """Everything gathered about one layer.

    outputs: moments of its ordinary outputs, as rows x; None where they are those of the next layer's inputs. sample:
    some of them by the number of the batch [k, d].
    """

    pair: Pair
    outputs: Moments | None = None
    count: int = 0
    ratio_sum: float = 0.0
    cosine_sum: float = 0.0
    cosine_squares: float = 0.0
    errors: LogHistogram = field(default_factory=LogHistogram)
    carried: Carried = field(default_factory=Carried)
    triggers: list[Trigger] = field(default_factory=list)
    sinks: NamedSinks = field(default_factory=NamedSinks)
    sample: dict[int, Tensor] = field(default_factory=dict)

    def add_geometry(self, x_norm: Tensor, y_norm: Tensor, z_norm: Tensor) -> None:
        """Add norm ratios and cosines from the norms [n] of input, output and contribution."""
        ratio = torch.where(y_norm > 0, z_norm / y_norm, 0)
        # The law of cosines about the difference: exact where x and y nearly agree, which is where layers live.
        defect = (z_norm.square() - (y_norm - x_norm).square()) / (2 * x_norm * y_norm)
        cosine = torch.where((x_norm > 0) & (y_norm > 0), 1 - defect, 0).clamp(-1, 1).double()
        self.count += len(ratio)
        self.ratio_sum += float(ratio.sum(dtype=torch.float64))
        self.cosine_sum += float(cosine.sum())
        self.cosine_squares += float(cosine.square().sum())

    def add_sinks(self, sinks: Tensor, y_norm: Tensor, rows: Rows) -> None:
        """Count and name the sink tokens."""
        for index in sinks.nonzero().flatten().tolist():
            token, position = int(rows.token[index]), int(rows.position[index])
            self.sinks.add(token, position, float(y_norm[index]), (rows.batch, index))

    def add_errors(
        self, squared: Tensor, z_norm: Tensor, sinks: Tensor | None, rows: Rows, kinds: np.ndarray | None
    ) -> None:
        """Add held-out squared errors [n]: histogram, sums by token and by its kind [n], and worst tokens."""
        massive = None if sinks is None else sinks.numpy()
        self.carried.add(rows.token, squared.double().numpy(), massive, kinds)
        errors = squared.sqrt()
        self.errors.update(errors)
        floor = self.triggers[-1][0] if len(self.triggers) == TRIGGERS else -1.0
        values, where = errors.topk(min(TRIGGERS, len(errors)))
        for value, index in zip(values.tolist(), where.tolist(), strict=True):
            if value <= floor:
                break
            relative = value / max(float(z_norm[index]), 1e-30)
            sink = sinks is not None and bool(sinks[index])
            place = (int(rows.token[index]), int(rows.document[index]), int(rows.offset[index]))
            self.triggers.append((value, relative, *place, sink, rows.before(index)))
        self.triggers = sorted(self.triggers, reverse=True)[:TRIGGERS]

    def sampled(self) -> Tensor | None:
        """Return the sample, SAMPLE rows at most, [k, d]; None where there is none."""
        return torch.cat([self.sample[batch] for batch in sorted(self.sample)])[:SAMPLE] if self.sample else None

    def merge_small_(self, triggers: list[Trigger], sinks: NamedSinks, sample: dict[int, Tensor]) -> None:
        """Add the worst tokens, the sinks and the sample of other tokens."""
        self.triggers = sorted(self.triggers + triggers, reverse=True)[:TRIGGERS]
        self.sinks = self.sinks.merge(sinks)
        self.sample = {**self.sample, **sample}

    def merge(self, other: Layer) -> Layer:
        """Return the layer as both sets of tokens show it."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in GEOMETRY}
        outputs = None
        if self.outputs is not None and other.outputs is not None:
            outputs = self.outputs.merge(other.outputs)
        both = Layer(
            pair=self.pair.merge(other.pair),
            outputs=outputs,
            errors=self.errors.merge(other.errors),
            carried=self.carried.merge(other.carried),
            triggers=self.triggers,
            sinks=self.sinks,
            sample=self.sample,
            **sums,
        )
        both.merge_small_(other.triggers, other.sinks, other.sample)
        return both

    def emptied(self) -> Layer:
        """Return the layer as no tokens show it, with the shifts and maps of these."""
        return Layer(self.pair.emptied(), None if self.outputs is None else self.outputs.emptied())

    def to_(self, device: torch.device) -> None:
        """Move the moments to where the rows come from; a state that was read is on the CPU."""
        self.pair = self.pair.to(device)
        self.outputs = None if self.outputs is None else self.outputs.to(device)


class Gatherer:
    """Receives every layer's input and output, batch by batch. `rows` must be set before each forward pass."""

    def __init__(
        self,
        layers: int,
        *,
        sink_multiple: float,
        sample_per_batch: int,
        seed: int,
        measured: Sequence[int] | None = None,
    ) -> None:
        """layers: L; measured: those that are watched, all by default."""
        self.measured = tuple(range(layers)) if measured is None else tuple(measured)
        self.positions = [Position() for _ in range(layers + 1)]
        self.layers: list[Layer | None] = [None] * layers
        self.rows: Rows
        self.sinks: Tensor | None = None  # of the layer that came last
        self.spans: Spans | None = None
        self.passage = Kept()
        self.keeper: Keeper | None = None
        self.spill: Spill | None = None
        self.kinds: Kinds | None = None
        self._multiple = sink_multiple
        self._sample_per_batch = sample_per_batch
        self._seed = seed
        self._kinds: np.ndarray | None = None  # of the batch's tokens
        self.at_once = False  # whether each layer is taken in to its end before the next
        self._below: Seen | None = None
        self._under_way: list[tuple[torch.device, Iterator[None]]] = []
        self._beside = SideStreams()

    def on_layer(self, index: int, x: Tensor, y: Tensor) -> None:
        """Take in one layer's input x and raw output y, both [b, w, d].

        A GPU is never waited for: what it is to tell of a layer is looked at when the next layer, or the one after, has
        been launched, be it in the next batch. `finish` looks at the rest.
        """
        self._under_way = [layer for layer in self._under_way if self._goes_on(*layer)]
        self._beside.follow(x.device)
        newest = x.device, self._steps(index, x, y)
        self._goes_on(*newest)
        self._under_way.append(newest)
        if self.at_once or not runs_ahead(x.device):
            self.finish()

    def finish(self) -> None:
        """Take in to its end what has been begun; to be called before anything here is looked at."""
        for layer in self._under_way:
            while self._goes_on(*layer):
                pass
        self._under_way = []
        self._beside.join()

    def _goes_on(self, device: torch.device, steps: Iterator[None]) -> bool:
        """Take the next step on a device; tell whether there may be more."""
        with self._beside.within(device):
            return next(steps, _END) is not _END

    def _steps(self, index: int, x: Tensor, y: Tensor) -> Iterator[None]:
        """Take in a layer, stopping where the CPU must know what the device finds: norms first, held-out errors then.

        Rows stay where the layer is; norms, errors and masks are on the CPU.
        """
        rows, below = self.rows, self._below
        # The output of the layer below, but for the first layer and families that touch the stream between layers.
        known = below if index > 0 and below is not None and below.stream is x else None
        source = known or Seen(x, rows.of(x))
        target = self._below = Seen(y, rows.of(y))
        here = target.rows.to(source.rows.device)
        flow = Flow.between(source.rows, here)
        norms = fetch(torch.stack([flow.y_norm, flow.z_norm, *(() if known else (row_norms(source.rows),))]))
        yield

        y_norm, z_norm, *x_norm = norms()
        if x_norm:
            self._settle(index, source, x_norm[0], rows)
        self._settle(index + 1, target, y_norm, rows)
        self.sinks = sinks = _either(source.sinks, target.sinks)
        layer = self._layer(index, source.rows, here)
        assert source.norms is not None
        layer.add_geometry(source.norms, y_norm, z_norm)
        if sinks is not None:
            layer.add_sinks(sinks, y_norm, rows)
        errors = None
        if rows.block is not None:
            errors = fetch(layer.pair.judge(flow, rows.block_on(here.device), sinks))
        layer.pair.update(flow, sinks)
        if layer.outputs is not None:
            layer.outputs.update(here, here[:, :0], leave_out=sinks)
        self.hold(layer.pair, layer.outputs)
        if self.spans is not None:
            self.spans.take(index, raised(source.rows), raised(target.rows), sinks, heldout=rows.block is not None)
        chosen = self._chosen(rows.batch, len(here), sinks)
        sample = fetch(here.index_select(0, chosen.to(here.device, non_blocking=True)).float())
        yield

        sampled = sample()  # came last: the device is done with the layer's rows, which may go
        if len(chosen):
            layer.sample[rows.batch] = sampled
        if errors is not None:
            if index == self.measured[0] and self.kinds is not None:
                self._kinds = self.kinds(rows.token)
            layer.add_errors(errors(), z_norm, sinks, rows, self._kinds)
            self.passage.take(rows, errors(), z_norm, sinks)

    def hold(self, pair: Pair, outputs: Moments | None = None) -> None:
        """Let moments that were added to lie where there is room for them."""
        if self.spill is not None:
            for moments in (pair.ordinary, pair.sink, outputs):
                if moments is not None:
                    self.spill.hold(moments)
        self.release()

    def release(self) -> None:
        """Let go of the memory of moments that lie in files, until they are looked at again."""
        if self.spill is not None:
            self.spill.release()

    def pairs(self) -> list[Pair]:
        """Return the (x, z) pair of every layer."""
        return [layer.pair for layer in self.layers if layer is not None]

    def fix_thresholds(self) -> None:
        """Let what counts as a sink stay, where so few tokens have come that nothing has decided it yet."""
        for position in self.positions:
            position.threshold = position.limit(self._multiple)

    def empty_(self) -> None:
        """Forget all tokens, and keep what must not depend on which of them come: shifts, thresholds and maps."""
        self.positions = [Position(threshold=position.threshold) for position in self.positions]
        self.layers = [None if layer is None else layer.emptied() for layer in self.layers]
        self.passage = Kept()
        if self.spans is not None:
            self.spans.empty_()

    def running_score(self) -> float | None:
        """Return the mean held-out score so far, None while fitting."""
        held = [pair.heldout for pair in self.pairs() if pair.heldout is not None]
        if not held:
            return None
        sums = [torch.stack((one.errors.sum(), one.totals_y.sum())).to(held[0].errors.device) for one in held]
        errors, totals = torch.stack(sums).cpu().T  # asked for once: each answer of a GPU is waited for
        some = totals > 0
        return float((1 - errors[some] / totals[some]).mean()) if bool(some.any()) else None

    def _settle(self, position: int, seen: Seen, norms: Tensor, rows: Rows) -> None:
        """Let the norms [n] of a position be known, and which tokens are sinks; raises NonFiniteError."""
        check_finite(position, norms, rows)
        seen.norms, seen.sinks = norms, self.positions[position].sinks(norms, self._multiple)

    def _chosen(self, batch: int, count: int, sinks: Tensor | None) -> Tensor:
        """Return which of a batch's ordinary rows are kept for the sample; none where there are enough."""
        if batch * self._sample_per_batch >= SAMPLE:
            return torch.zeros(0, dtype=torch.int64)
        usable = None if sinks is None else (~sinks).nonzero().flatten()
        drawn = _drawn(self._seed, batch, count if usable is None else len(usable), self._sample_per_batch)
        return drawn if usable is None else usable[drawn]

    def _layer(self, index: int, x: Tensor, y: Tensor) -> Layer:
        """Return what is gathered about a layer, moved to where its rows x [n, d] come from."""
        layer = self.layers[index]
        if layer is None:
            alone = index + 1 not in self.measured
            outputs = Moments.empty(y.shape[1], 0, y.device) if alone else None
            layer = self.layers[index] = Layer(Pair(x.shape[1], x.device), outputs)
        elif layer.pair.device != x.device:
            layer.to_(x.device)
        return layer


@lru_cache(maxsize=8)  # layers of a batch have as many ordinary rows, but for a few
def _drawn(seed: int, batch: int, count: int, most: int) -> Tensor:
    """Return at most `most` of `count` numbers: each batch draws for itself, the same whoever passes it through."""
    draw = np.random.default_rng((seed, batch))
    return torch.from_numpy(draw.choice(count, min(most, count), replace=False))


def _either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return the mask of what either mask marks; None marks nothing."""
    return a | b if a is not None and b is not None else b if a is None else a
