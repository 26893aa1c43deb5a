"""A linearity profile in seconds: the two scores, the cosine and the norm ratio of every layer, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rectilinear.data.pieces import Pieces, cut_pieces
from rectilinear.models.stack import context_limit, decoder_stack, width
from rectilinear.ops.layers import Gatherer, Layer
from rectilinear.ops.pair import Flow, Pair
from rectilinear.ops.passes import Pass, run_pass
from rectilinear.ops.positions import check_finite, enter
from rectilinear.results import mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HOLDOUT = 0.25
LEAST, PER_D = 4096, 16  # tokens: at least so many, and so many for each of the stream's d numbers


@dataclass(frozen=True)
class LayerProfile:
    """One layer's figures, named as in a scan: held-out scores of all tokens, and the paper's in-sample ones.

    None where a score is undefined.
    """

    layer: int
    score: float | None
    increment: float | None
    score_paper: float | None
    increment_paper: float | None
    cosine: float
    norm_ratio: float


@dataclass(frozen=True)
class Profile:
    """The layers of a model, and how many tokens for each of the stream's d numbers the maps were fitted on."""

    layers: tuple[LayerProfile, ...]
    tokens_per_d: float

    def means(self) -> dict[str, float]:
        """Return the means over layers of each figure that is defined."""
        names = ("score", "increment", "score_paper", "increment_paper", "cosine", "norm_ratio")
        found = {name: mean(getattr(layer, name) for layer in self.layers) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return both as plain values."""
        return {"tokens_per_d": self.tokens_per_d, "layers": [asdict(layer) for layer in self.layers]}


def profile_pieces(
    model: PreTrainedModel, tokenizer: Any, texts: Iterable[str], *, tokens: int | None = None, window: int = 512
) -> Pieces:
    """Return the text of a profile, cut: the first three quarters fit, the rest judges.

    tokens: by default 16 for each of the stream's d numbers, at least 4,096. Raises TextError as a scan does.
    """
    limit = context_limit(model)
    longest = window if limit is None else min(window, limit)
    budget = max(LEAST, PER_D * width(model)) if tokens is None else tokens
    return cut_pieces(tokenizer, texts, tokens=budget, window=longest, holdout=HOLDOUT)


def profile(
    model: PreTrainedModel, pieces: Pieces, *, batch_tokens: int = 4096, layers_path: str | None = None
) -> Profile:
    """Measure every layer of a model on pieces of text, in eval mode; its own mode is restored.

    The scores are those that a scan of the same pieces gives. Raises ModelError where the stack is not found,
    NonFiniteError for NaN or infinite activations.
    """
    stack = decoder_stack(model, layers_path)
    gatherer = _Cheap(len(stack), sink_multiple=float("inf"), sample_per_batch=0, seed=0)
    run_pass(Pass(model, stack, pieces, gatherer, None, batch_tokens))
    found = []
    for index, layer in enumerate(gatherer.layers):
        assert layer is not None
        score, increment = layer.pair.score(0)
        found.append(
            LayerProfile(
                index,
                score.heldout,
                increment.heldout,
                score.paper,
                increment.paper,
                layer.cosine_sum / layer.count,
                layer.ratio_sum / layer.count,
            )
        )
    return Profile(tuple(found), round(pieces.tokens_fit / width(model), 2))


class _Cheap(Gatherer):
    """A scan's gatherer that keeps moments, errors and geometry of all tokens alike: no sinks, tails or samples."""

    def on_layer(self, index: int, x: Tensor, y: Tensor) -> None:
        x_rows, x_norm = enter(index, x, self.rows)
        flow = Flow.between(x_rows, self.rows.of(y).to(x_rows.device))
        y_norm = flow.y_norm.cpu()
        check_finite(index + 1, y_norm, self.rows)
        layer = self.layers[index]
        if layer is None:
            layer = self.layers[index] = Layer(Pair(x_rows.shape[1], x_rows.device))
        layer.add_geometry(x_norm, y_norm, flow.z_norm.cpu())
        if self.rows.block is not None:
            layer.pair.judge(flow, self.rows.block_on(x_rows.device), None)
        layer.pair.update(flow, None)
