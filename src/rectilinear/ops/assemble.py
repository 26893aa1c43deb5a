"""From what a scan gathered to its result: solves, spectra, intervals, names of tokens."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rectilinear.core.moments import Moments
from rectilinear.core.spectra import anisotropy, effective_rank, two_nn
from rectilinear.core.tails import LogHistogram
from rectilinear.ops.carriers import TAIL, by_class, by_token, token_text
from rectilinear.ops.layers import Gatherer, Layer
from rectilinear.ops.parts import NAMES, Submodules
from rectilinear.ops.spread import spread
from rectilinear.results import LayerResult, Score, Sinks, Spectrum, SubmoduleScore, Tails

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SINKS_NAMED = 10
CPU = torch.device("cpu")


def layer_results(
    gatherer: Gatherer, parts: Submodules | None, tokenizer: PreTrainedTokenizerBase | None, seed: int
) -> tuple[tuple[LayerResult, ...], dict[str, np.ndarray]]:
    """Return the result of every layer, and the arrays that go with them."""
    layers = [layer for layer in gatherer.layers if layer is not None]
    # A layer's outputs are the next layer's inputs, but for the last one: their moments are at hand.
    outputs = [layer.outputs or layers[row + 1].pair.ordinary for row, layer in enumerate(layers)]
    device = layers[0].pair.device

    def solve(pair: tuple[Layer, Moments]) -> _Solved:
        figures = _Solved.of(*pair, seed)
        gatherer.release()
        return figures

    with ThreadPoolExecutor(1) as pool:  # a GPU solves beside the CPU, where the samples are
        dimensions = pool.submit(spread, _dimension, layers, CPU)
        if device == CPU:
            dimensions.result()
        solved = spread(solve, list(zip(layers, outputs, strict=True)), device)
    results = []
    for index, layer, figures, dimension in zip(gatherer.measured, layers, solved, dimensions.result(), strict=True):
        norms = gatherer.positions[index + 1].norms
        mean = layer.cosine_sum / layer.count
        results.append(
            LayerResult(
                layer=index,
                score=figures.score,
                increment=figures.increment,
                norm_ratio=layer.ratio_sum / layer.count,
                cosine=mean,
                cosine_std=max(layer.cosine_squares / layer.count - mean * mean, 0.0) ** 0.5,
                stream_norm_median=norms.quantile(0.5) or 0.0,
                stream_norm_max=norms.max or 0.0,
                sinks=_sinks(layer, figures.sink_share, tokenizer),
                tails=_tails(layer.errors),
                spectrum=Spectrum(anisotropy(figures.eigenvalues), effective_rank(figures.eigenvalues), dimension),
                triggers=_triggers(layer, tokenizer),
                error_tokens=by_token(layer.carried, tokenizer),
                error_classes=() if gatherer.kinds is None else by_class(layer.carried, gatherer.kinds.table),
                submodules=_submodules(index, parts, seed),
            )
        )
    return tuple(results), _arrays(layers, [figures.eigenvalues for figures in solved])


@dataclass(frozen=True)
class _Solved:
    """What of a layer's figures takes linear algebra; eigenvalues [d] of its outputs' covariance."""

    score: Score
    increment: Score
    sink_share: float | None
    eigenvalues: torch.Tensor

    @classmethod
    def of(cls, layer: Layer, outputs: Moments, seed: int) -> _Solved:
        every = layer.pair.every  # a merge of d x d matrices: done once
        return cls(*layer.pair.score(seed, every), _sink_share(layer, every), _eigenvalues(outputs))


def _dimension(layer: Layer) -> float | None:
    """Return the intrinsic dimension of a layer's sampled outputs."""
    sample = layer.sampled()
    return None if sample is None else two_nn(sample)


def _eigenvalues(outputs: Moments) -> torch.Tensor:
    """Return the covariance eigenvalues [d] of rows x, largest first, to 1e-6 of the largest."""
    # float32 is enough for shares of the trace, and half the time of float64.
    covariance = (outputs.sxx_lower / max(outputs.n, 1)).float()
    return torch.linalg.eigvalsh(covariance).double().clamp(min=0).flip(0).cpu()


def _tails(errors: LogHistogram) -> Tails:
    return Tails(
        median=errors.quantile(0.5),
        p99=errors.quantile(0.99),
        max=errors.max,
        share_01=errors.share_of_worst(0.001),
        share_1=errors.share_of_worst(0.01),
        share_5=errors.share_of_worst(0.05),
        tail_index=errors.tail_index(TAIL),
    )


def _sink_share(layer: Layer, every: Moments) -> float | None:
    """Return the share of the outputs' variance that is gone without the sink tokens."""
    if not layer.sinks.count:
        return 0.0
    total = float(every.syy)
    return 1 - float(layer.pair.ordinary.syy) / total if total > 0 else None


def _sinks(layer: Layer, share: float | None, tokenizer: PreTrainedTokenizerBase | None) -> Sinks:
    named = tuple(
        {
            "token": token_text(tokenizer, token),
            "position": position,
            "count": sink.count,
            "norm": sink.norm,
        }
        for (token, position), sink in layer.sinks.frequent(SINKS_NAMED)
    )
    return Sinks(layer.sinks.count, layer.sinks.count / layer.count, share, named)


def _triggers(layer: Layer, tokenizer: PreTrainedTokenizerBase | None) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "token": token_text(tokenizer, token),
            "document": document,
            "position": offset,
            "error": error,
            "relative_error": relative,
            "sink": sink,
            "before": "" if tokenizer is None else str(tokenizer.decode(list(before))),
        }
        for error, relative, token, document, offset, sink, before in layer.triggers
    )


def _submodules(index: int, parts: Submodules | None, seed: int) -> tuple[SubmoduleScore, ...]:
    if parts is None:
        return ()
    found = []
    for name in NAMES:
        part = parts.parts.get((index, name))
        if part is not None:
            _, increment = part.pair.score(seed)
            found.append(SubmoduleScore(name, increment, part.ratio_sum / part.count))
    return tuple(found)


def _arrays(layers: list[Layer], eigenvalues: list[torch.Tensor]) -> dict[str, np.ndarray]:
    arrays = {"eigenvalues": torch.stack(eigenvalues).numpy()}
    if layers[0].pair.heldout is None:
        return arrays
    histograms = [layer.errors.histogram(bins_per_octave=4) for layer in layers]
    arrays["error_edges"] = np.asarray(histograms[0][1], dtype=np.float64)
    arrays["error_histogram"] = np.stack([np.asarray(counts) for counts, _ in histograms])
    for kind, judges in (
        ("heldout", [layer.pair.heldout for layer in layers]),
        ("ordinary", [layer.pair.heldout_ordinary or layer.pair.heldout for layer in layers]),
    ):
        for name in ("errors", "totals_y", "totals_z"):
            arrays[f"{kind}_{name}"] = torch.stack([getattr(judge, name).cpu() for judge in judges]).numpy()
    return arrays
