"""Measure, train and exploit the hidden linearity of transformer decoders.

Names resolve on first use: `import rectilinear` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rectilinear.core.linear import AffineMap, fit, scores
    from rectilinear.core.moments import Moments
    from rectilinear.core.penalties import cosine_penalty, increment_penalty, mse_penalty
    from rectilinear.data.preferences import read_pairs
    from rectilinear.data.tasks import read_task
    from rectilinear.errors import ModelError, NonFiniteError, RectilinearError, ResultError, TextError
    from rectilinear.models.load import load
    from rectilinear.models.stack import decoder_stack, recorded
    from rectilinear.ops.delta import delta
    from rectilinear.ops.evaluate import evaluate, perplexity
    from rectilinear.ops.finetune import finetune
    from rectilinear.ops.heal import heal
    from rectilinear.ops.maps import Maps, fit_maps
    from rectilinear.ops.pretrain import pretrain
    from rectilinear.ops.probe import probe
    from rectilinear.ops.prune import Cut, prune
    from rectilinear.ops.scan import scan
    from rectilinear.ops.sweep import sweep
    from rectilinear.ops.texts import scan_texts
    from rectilinear.ops.tokens import tokens
    from rectilinear.ops.trace import trace
    from rectilinear.ops.training.callback import LinearityCallback
    from rectilinear.ops.training.penalty import Penalty
    from rectilinear.ops.training.trainer import LinearityTrainer
    from rectilinear.report.folder import load as load_result
    from rectilinear.results import (
        DeltaResult,
        EvalResult,
        FinetuneResult,
        Plan,
        PretrainResult,
        ProbeResult,
        ScanResult,
        TokensResult,
        TraceResult,
    )

_HOME = {
    "AffineMap": "core.linear",
    "Cut": "ops.prune",
    "DeltaResult": "results",
    "EvalResult": "results",
    "FinetuneResult": "results",
    "LinearityCallback": "ops.training.callback",
    "LinearityTrainer": "ops.training.trainer",
    "Maps": "ops.maps",
    "ModelError": "errors",
    "Moments": "core.moments",
    "NonFiniteError": "errors",
    "Penalty": "ops.training.penalty",
    "Plan": "results",
    "PretrainResult": "results",
    "ProbeResult": "results",
    "RectilinearError": "errors",
    "ResultError": "errors",
    "ScanResult": "results",
    "TextError": "errors",
    "TokensResult": "results",
    "TraceResult": "results",
    "cosine_penalty": "core.penalties",
    "decoder_stack": "models.stack",
    "delta": "ops.delta",
    "evaluate": "ops.evaluate",
    "finetune": "ops.finetune",
    "fit": "core.linear",
    "fit_maps": "ops.maps",
    "heal": "ops.heal",
    "increment_penalty": "core.penalties",
    "load": "models.load",
    "load_result": "report.folder",
    "mse_penalty": "core.penalties",
    "perplexity": "ops.evaluate",
    "pretrain": "ops.pretrain",
    "probe": "ops.probe",
    "prune": "ops.prune",
    "read_pairs": "data.preferences",
    "read_task": "data.tasks",
    "recorded": "models.stack",
    "scan": "ops.scan",
    "scan_texts": "ops.texts",
    "scores": "core.linear",
    "sweep": "ops.sweep",
    "tokens": "ops.tokens",
    "trace": "ops.trace",
}

__all__ = [  # noqa: RUF022  by kind
    "AffineMap",
    "Cut",
    "DeltaResult",
    "EvalResult",
    "FinetuneResult",
    "LinearityCallback",
    "LinearityTrainer",
    "Maps",
    "Moments",
    "Penalty",
    "Plan",
    "PretrainResult",
    "ProbeResult",
    "ScanResult",
    "TokensResult",
    "TraceResult",
    "ModelError",
    "NonFiniteError",
    "RectilinearError",
    "ResultError",
    "TextError",
    "cosine_penalty",
    "decoder_stack",
    "delta",
    "evaluate",
    "finetune",
    "fit",
    "fit_maps",
    "heal",
    "increment_penalty",
    "load",
    "load_result",
    "mse_penalty",
    "perplexity",
    "pretrain",
    "probe",
    "prune",
    "read_pairs",
    "read_task",
    "recorded",
    "scan",
    "scan_texts",
    "scores",
    "sweep",
    "tokens",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rectilinear' has no attribute {name!r}")
    value = getattr(import_module(f"rectilinear.{_HOME[name]}"), "load" if name == "load_result" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
