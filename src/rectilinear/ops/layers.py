"""What a scan gathers while the stream flows by: per position the norms and sinks, per layer everything else.

Nothing here keeps activations: a batch's rows are used inside the hook and dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rectilinear.core.moments import Moments
from rectilinear.core.products import raised, row_norms, sums_halves
from rectilinear.core.tails import LogHistogram
from rectilinear.errors import NonFiniteError
from rectilinear.ops.carriers import Carried, Kinds
from rectilinear.ops.kept import Keeper
from rectilinear.ops.pair import Pair
from rectilinear.ops.pairs import Spans
from rectilinear.ops.passage import Kept
from rectilinear.ops.sinks import NamedSinks

CALIBRATION_TOKENS = 1024  # the sink threshold is frozen after the first batches that hold this many
TRIGGERS = 20  # worst tokens kept per layer
CONTEXT = 8  # tokens before each
SAMPLE = 1024  # rows used per layer for the intrinsic dimension
GEOMETRY = ("count", "ratio_sum", "cosine_sum", "cosine_squares")  # what adds up over tokens


@dataclass(frozen=True)
class Rows:
    """The real tokens of one batch, pads left out, n of them in all.

    mask [b, w] or None where every place is real; token, position (in the window), document, offset (in the document)
    [n]; block [n]: held-out bootstrap block, None while fitting. batch: its number in the whole scan.
    """

    mask: Tensor | None
    token: np.ndarray
    position: np.ndarray
    document: np.ndarray
    offset: np.ndarray
    block: Tensor | None
    batch: int = 0

    def before(self, index: int) -> tuple[int, ...]:
        """Return up to CONTEXT tokens that stand before a row in its window."""
        return tuple(self.token[index - min(int(self.position[index]), CONTEXT) : index].tolist())

    def of(self, stream: Tensor) -> Tensor:
        """Return the real rows of a stream [b, w, d] as [n, d], where moments can be kept.

        In float32 or float64, but for bfloat16 on a device that multiplies it fast and sums in float32.
        """
        rows = stream.reshape(-1, stream.shape[-1]) if self.mask is None else stream[self.mask.to(stream.device)]
        if rows.device.type == "mps":  # has no float64
            rows = rows.cpu()
        return rows if rows.dtype == torch.bfloat16 and sums_halves(rows.device.type) else raised(rows)


@dataclass
class Position:
    """Norms at one position of the stream, and which of them are massive."""

    norms: LogHistogram = field(default_factory=LogHistogram)
    threshold: float | None = None

    def sinks(self, norms: Tensor, multiple: float) -> Tensor | None:
        """Return a mask [n] of norms to be added, those above `multiple` medians, None where there are none.

        The median is that of the first batches, these norms too, and then fixed, so the verdict does not depend on
        what comes later.
        """
        limit = self.limit(multiple)
        if self.threshold is None:
            first = LogHistogram()
            first.update(norms)
            limit = Position(self.norms.merge(first)).limit(multiple)
        found = norms > limit
        return found if bool(found.any()) and limit > 0 else None

    def add(self, norms: Tensor, multiple: float) -> None:
        """Add the norms [n] of a batch; `multiple` as given to `sinks`."""
        self.norms.update(norms)
        if self.threshold is None and self.norms.count >= CALIBRATION_TOKENS:
            self.threshold = self.limit(multiple)

    def limit(self, multiple: float) -> float:
        """Return the norm above which a token is massive: as it was fixed, or as it stands; 0 where none is known."""
        return self.threshold if self.threshold is not None else multiple * (self.norms.quantile(0.5) or 0.0)

    def merge(self, other: Position) -> Position:
        """Return the norms of both sets of tokens; the threshold is one."""
        threshold = other.threshold if self.threshold is None else self.threshold
        return Position(self.norms.merge(other.norms), threshold)


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

    def add_sample(self, rows: Tensor, sinks: Tensor | None, most: int, seed: tuple[int, int]) -> None:
        """Keep up to `most` ordinary rows [n, d] of each of the first batches; seed: a number and the batch's."""
        if seed[1] * most >= SAMPLE or not most:
            return
        usable = np.arange(len(rows)) if sinks is None else (~sinks).nonzero().flatten().numpy()
        # Each batch draws for itself: the same rows, whoever passes it through the model.
        chosen = np.random.default_rng(seed).choice(usable, min(most, len(usable)), replace=False)
        self.sample[seed[1]] = rows[torch.from_numpy(chosen).to(rows.device)].float().cpu()

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


def enter(position: int, stream: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the real rows [n, d] of a stream [b, w, d] at `position`, and on the CPU their norms [n].

    Raises NonFiniteError, naming the document and the token, where one is NaN or infinite.
    """
    real = rows.of(stream)
    norms = row_norms(real).cpu()
    check_finite(position, norms, rows)
    return real, norms


def check_finite(position: int, norms: Tensor, rows: Rows) -> None:
    """Raise NonFiniteError, naming the document and the token, where a norm [n] at a position is NaN or infinite."""
    finite = torch.isfinite(norms)
    if not bool(finite.all()):
        index = int((~finite).nonzero()[0])
        where = f"layer {position - 1}" if position else "the embedding"
        raise NonFiniteError(
            f"{where} gave a NaN or infinite activation in document {rows.document[index]} at token "
            f"{rows.offset[index]}: use another --dtype (bfloat16 or float32), or leave the document out"
        )


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
        self.kinds: Kinds | None = None
        self._multiple = sink_multiple
        self._sample_per_batch = sample_per_batch
        self._seed = seed
        self._kinds: np.ndarray | None = None  # of the batch's tokens
        self._below: tuple[Tensor, Tensor, Tensor, Tensor | None] | None = None

    def on_layer(self, index: int, x: Tensor, y: Tensor) -> None:
        """Take in one layer's input x and raw output y, both [b, w, d].

        Rows stay where the layer is; norms, errors and masks are on the CPU. Those waited for come first, so that a GPU
        has its products to do while the CPU counts.
        """
        x_rows, x_norm, x_sinks = self._input(index, x)
        y_rows = self.rows.of(y)
        here = y_rows.to(x_rows.device)
        z_rows = here - x_rows
        y_norm, z_norm = torch.stack([row_norms(here), row_norms(z_rows)]).cpu()
        check_finite(index + 1, y_norm, self.rows)
        above = self.positions[index + 1]
        y_sinks = above.sinks(y_norm, self._multiple)
        self._below = (y, y_rows, y_norm, y_sinks)
        self.sinks = sinks = x_sinks if y_sinks is None else y_sinks if x_sinks is None else x_sinks | y_sinks

        layer = self._layer(index, x_rows, here)
        squared = None
        if self.rows.block is not None:
            squared = layer.pair.judge(x_rows, z_rows, self.rows.block.to(x_rows.device), sinks).cpu()
        layer.pair.update(x_rows, z_rows, sinks)
        if self.spans is not None:
            streams = raised(x_rows), raised(y_rows)
            self.spans.take(index, *streams, sinks, heldout=self.rows.block is not None)
        if layer.outputs is not None:
            layer.outputs.update(here, here[:, :0], leave_out=sinks)
        layer.add_sample(here, sinks, self._sample_per_batch, (self._seed, self.rows.batch))

        above.add(y_norm, self._multiple)
        layer.add_geometry(x_norm, y_norm, z_norm)
        if sinks is not None:
            layer.add_sinks(sinks, y_norm, self.rows)
        if squared is not None:
            self._add_errors(index, layer, squared, z_norm)

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
        values = []
        for pair in self.pairs():
            if pair.heldout is not None and float(pair.heldout.totals_y.sum()):
                values.append(1 - float(pair.heldout.errors.sum()) / max(float(pair.heldout.totals_y.sum()), 1e-300))
        return sum(values) / len(values) if values else None

    def _input(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return rows, norms and sinks of a layer's input; the output of the layer below is known."""
        if index > 0 and self._below is not None and self._below[0] is x:
            return self._below[1:]
        # The first layer, or a family that touches the stream between layers.
        rows, norms = enter(index, x, self.rows)
        position = self.positions[index]
        sinks = position.sinks(norms, self._multiple)
        position.add(norms, self._multiple)
        return rows, norms, sinks

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

    def _add_errors(self, index: int, layer: Layer, squared: Tensor, z_norm: Tensor) -> None:
        """Add a layer's held-out squared errors [n]."""
        if index == self.measured[0] and self.kinds is not None:
            self._kinds = self.kinds(self.rows.token)
        layer.add_errors(squared, z_norm, self.sinks, self.rows, self._kinds)
        self.passage.take(self.rows, squared, z_norm, self.sinks)
