"""Affine maps: of each layer, for ordinary tokens and for all, and from each position of the stream to its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rectilinear.core.linear import AffineMap, fit, in_turn
from rectilinear.core.moments import Moments
from rectilinear.core.products import raised
from rectilinear.data.pieces import batches, cut_pieces
from rectilinear.errors import ResultError
from rectilinear.files import write_whole
from rectilinear.models.load import earlier_fingerprint, fingerprint, model_id, tokenizer_fingerprint
from rectilinear.models.mode import eval_mode
from rectilinear.models.stack import decoder_stack, watch, width
from rectilinear.ops.forecast import context
from rectilinear.ops.kept import KeptMoments
from rectilinear.ops.passes import rows_of, run_batch
from rectilinear.ops.positions import Position, Rows, enter
from rectilinear.reading import from_json
from rectilinear.results import MOMENTS, SCHEMA

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILE, HEADER, KIND = "maps.safetensors", "rectilinear", "maps"
KINDS = ("layer", "lens", "every")
SCAN = "result.json"


@dataclass(frozen=True)
class Maps:
    """The maps of one model of L layers, float32 on the CPU.

    layer: from a layer's input to what it adds, L of them; of ordinary tokens, as is lens: from position i of the
    stream to what comes to it up to position L, i from 0 to L - 1. every: as layer, but of all tokens, sinks too: what
    can stand in for a layer. thresholds: norm above which a token is massive, at each of the L + 1 positions.
    facts: model, fingerprint, tokenizer_fingerprint, text, tokens, documents, window, sink_multiple, d, and lens:
    "fitted" in closed form, or "composed" of the layers' maps in turn.
    """

    layer: tuple[AffineMap, ...]
    lens: tuple[AffineMap, ...]
    every: tuple[AffineMap, ...]
    thresholds: tuple[float, ...]
    facts: dict[str, Any]

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, known: str | None = None) -> str:
        """Raise ResultError unless the maps are those of `model`, fitted on text cut by `tokenizer`.

        Returns the model's fingerprint (`known` where it is), for which all of its weights have been read.
        """
        name, theirs = model_id(model), self.facts.get("model")
        ours = known or fingerprint(model)
        cut_by = tokenizer_fingerprint(tokenizer)
        for said, key, found, other in (
            ("maps of", "fingerprint", ours, earlier_fingerprint(model)),
            ("maps fitted with the tokenizer of", "tokenizer_fingerprint", cut_by, cut_by),
        ):
            kept = self.facts.get(key)
            if kept not in (found, other):
                raise ResultError(
                    f"expected {said} {name} ({found}), got those of {theirs} ({kept}): leave --maps out to fit new "
                    "ones"
                )
        return ours

    def save(self, folder: str | Path) -> Path:
        """Write maps.safetensors, facts and thresholds in its header, into an existing folder; return its path.

        Raises OSError where the disk refuses.
        """
        from safetensors.torch import save

        maps = {f"{kind}.{i}": one for kind in KINDS for i, one in enumerate(getattr(self, kind))}
        # Without sinks in a layer both maps are one: it is written once.
        alike = [i for i, one in enumerate(self.every) if one is self.layer[i]]
        tensors = {
            f"{key}.{name}": getattr(one, name).contiguous()
            for key, one in maps.items()
            if key not in {f"every.{i}" for i in alike}
            for name in ("weight", "bias")
        }
        header = {"schema": SCHEMA, "kind": KIND, **self.facts, "sink_thresholds": self.thresholds, "no_sinks": alike}
        path = Path(folder) / FILE
        write_whole(path, save(tensors, {HEADER: json.dumps(header)}))
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Maps:
        """Read the maps in a folder written by `tokens`, or fit those of a scan that kept its moments.

        Raises ResultError where there are none, or where they are damaged or of another kind.
        """
        if _of_a_scan(folder):
            return cls.of(KeptMoments.load(folder))
        with _opened(folder) as (file, header):
            thresholds = tuple(header.pop("sink_thresholds"))
            count, alike = len(thresholds) - 1, set(header.pop("no_sinks"))

            def read(kind: str, i: int) -> AffineMap:
                return AffineMap(file.get_tensor(f"{kind}.{i}.weight"), file.get_tensor(f"{kind}.{i}.bias"))

            layer, lens = (tuple(read(kind, i) for i in range(count)) for kind in KINDS[:2])
            every = tuple(layer[i] if i in alike else read("every", i) for i in range(count))
        return cls(layer, lens, every, thresholds, header)

    @classmethod
    def of(cls, kept: KeptMoments) -> Maps:
        """Fit the maps on all that a scan has read; those of the lens are the layers' maps in turn.

        Raises ResultError where moments are missing or damaged.
        """
        exact: list[AffineMap] = []
        layer: list[AffineMap] = []
        every: list[AffineMap] = []
        for index in range(kept.layers):
            ordinary, sink = kept.merged(index)
            exact.append(fit(ordinary))
            layer.append(_columns(exact[-1], slice(None)))
            every.append(layer[-1] if sink is None else _columns(fit(ordinary.merge(sink)), slice(None)))
        ends = list(accumulate(reversed(exact), lambda then, first: in_turn(first, then)))[::-1]
        lens = tuple(_columns(one, slice(None)) for one in ends)
        return cls(tuple(layer), lens, tuple(every), kept.thresholds, {**kept.facts, "lens": "composed"})


def facts_in(folder: str | Path) -> dict[str, Any]:
    """Return the facts of the maps that `Maps.load` would give, without reading them; raises as it does."""
    if _of_a_scan(folder):
        return KeptMoments.load(folder).facts
    with _opened(folder) as (_, header):
        return header


def _of_a_scan(folder: str | Path) -> bool:
    return (Path(folder) / MOMENTS).is_dir() or (Path(folder) / SCAN).is_file()


@contextmanager
def _opened(folder: str | Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Give the file of saved maps and its header; raises ResultError for what is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / FILE
    if not path.is_file():
        raise ResultError(
            f"expected a folder written by `rectilinear tokens` or by `rectilinear scan --keep-moments`, got {folder}: "
            f"no {FILE} there"
        )
    try:
        with safe_open(path, "pt") as file:
            header = from_json((file.metadata() or {}).get(HEADER, "{}"))
            if header.pop("schema", None) != SCHEMA or header.pop("kind", None) != KIND:
                raise ResultError(f"expected maps of schema {SCHEMA} in {path}; fit them again without --maps")
            yield file, header
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ResultError(f"cannot read {path}: {error}; fit them again without --maps") from error


def fit_maps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    tokens: int | None = 16_384,
    window: int = 512,
    sink_multiple: float = 10.0,
    batch_tokens: int = 1024,
    layers_path: str | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Maps:
    """Fit all maps of `model` in one pass over the first `tokens` tokens of `texts` (None: all).

    Sink tokens, by the scan's rule, are kept apart. The streams of one batch, at all positions, are held at a time, and
    moments of 3 d^2 float64 a layer, twice that where there are sinks. `provenance` entries are added to the facts.
    `on_progress` is told the tokens done and their number.

    Raises TextError for text too short or empty, ModelError where the decoder stack is not found, NonFiniteError for
    NaN or infinite activations.
    """
    stack = decoder_stack(model, layers_path)
    window = context(model, window)
    pieces = cut_pieces(tokenizer, texts, tokens=tokens, window=window, holdout=0)
    streams = _Streams(len(stack), sink_multiple)
    done = 0
    with torch.inference_mode(), eval_mode(model), watch(stack, streams.on_layer):
        for batch in batches(pieces.fit, batch_tokens):
            streams.rows = rows_of(batch)
            done += run_batch(model, stack, batch)
            streams.end_batch()
            if on_progress is not None:
                on_progress(done, pieces.tokens)
    d = width(model)
    fitted = [fit(moments) for moments in streams.moments]
    layer = tuple(_columns(one, slice(None, d)) for one in fitted)
    every = tuple(
        layer[i] if sinks is None else _columns(fit(streams.moments[i].merge(sinks)), slice(None, d))
        for i, sinks in enumerate(streams.sinks)
    )
    facts = {
        "model": model_id(model),
        "fingerprint": fingerprint(model),
        "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
        "text": "texts given in Python",
        "tokens": pieces.tokens,
        "documents": pieces.documents,
        "window": window,
        "sink_multiple": sink_multiple,
        "d": d,
        "lens": "fitted",
    }
    return Maps(
        layer,
        tuple(_columns(one, slice(d, None)) for one in fitted),
        every,
        tuple(position.limit(sink_multiple) for position in streams.positions),
        {**facts, **(provenance or {})},
    )


def _columns(fitted: AffineMap, columns: slice) -> AffineMap:
    return AffineMap(fitted.weight[:, columns].float().cpu(), fitted.bias[columns].float().cpu())


@dataclass(frozen=True)
class _Entered:
    """One position of a batch: rows [n, d], and which are sinks [n], None where there are none."""

    rows: Tensor
    sinks: Tensor | None


class _Streams:
    """Holds one batch's stream at all positions, and the moments of every layer. `rows` is set before each pass.

    A layer's moments are those of its input x and, side by side, of y - x and x_L - x: both maps share x^T x, which
    is the most of the work. `sinks`: the same of its sinks, None where it has none.
    """

    def __init__(self, layers: int, sink_multiple: float) -> None:
        self.positions = [Position() for _ in range(layers + 1)]
        self.moments: list[Moments] = []
        self.sinks: list[Moments | None] = [None] * layers
        self.rows: Rows
        self._multiple = sink_multiple
        self._layers: list[tuple[_Entered, _Entered]] = []
        self._below: Tensor | None = None

    def on_layer(self, index: int, x: Tensor, y: Tensor) -> None:
        """Keep one layer's input x and raw output y, both [b, w, d], up to the end of the batch."""
        # The same tensor twice, but for the first layer and families that touch the stream between layers.
        inputs = self._layers[-1][1] if x is self._below else self._entered(index, x)
        self._layers.append((inputs, self._entered(index + 1, y)))
        self._below = y

    def end_batch(self) -> None:
        """Add the batch to the moments and forget it."""
        last = self._layers[-1][1]
        for index, (x, y) in enumerate(self._layers):
            rows = x.rows
            z = torch.cat([y.rows.to(rows.device) - rows, last.rows.to(rows.device) - rows], 1)
            if index == len(self.moments):
                self.moments.append(Moments.empty(rows.shape[1], z.shape[1], rows.device))
            massive = [e.sinks for e in (x, y, last) if e.sinks is not None]
            apart = torch.stack(massive).any(0) if massive else None
            self.moments[index].update(rows, z, leave_out=apart)
            if apart is not None:
                held = self.sinks[index] or Moments.empty(rows.shape[1], z.shape[1], rows.device)
                held.update(rows[apart], z[apart], exact=True)
                self.sinks[index] = held
        self._layers, self._below = [], None

    def _entered(self, position: int, stream: Tensor) -> _Entered:
        rows, norms = enter(position, stream, self.rows)
        return _Entered(raised(rows), self.positions[position].sinks(norms, self._multiple))
