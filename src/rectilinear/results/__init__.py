"""Frozen results, and the documents they are saved as.

A result is a tree of frozen dataclasses. `to_dict` gives the JSON document whose keys are documented in
`docs/results.md` and stable for a schema version. Nothing here needs torch.
"""

from rectilinear.results.delta import Change, Changes, DeltaResult, LayerDelta
from rectilinear.results.document import SCHEMA, clean, mean
from rectilinear.results.evaluation import (
    Divergence,
    EvalResult,
    Lambada,
    ModelResult,
    Protocol,
    Size,
    Speed,
    TaskScore,
    TextScore,
)
from rectilinear.results.finetuning import FinetuneResult, SeedResult, Spread
from rectilinear.results.healing import HealPoint, HealResult, thinned
from rectilinear.results.judging import JudgeResult
from rectilinear.results.plan import Loss, Plan, PruneResult
from rectilinear.results.pretraining import Checkpoint, PretrainResult, TrainPoint
from rectilinear.results.probe import ProbeCurve, ProbePoint, ProbeResult
from rectilinear.results.reproduction import (
    FAILS,
    HOLDS,
    UNTESTABLE,
    Plot,
    PlotCurve,
    Reproduced,
    ReproductionResult,
    Row,
    Run,
    Verdict,
)
from rectilinear.results.scan import (
    MOMENTS,
    MOMENTS_DOCUMENT,
    LayerResult,
    Passage,
    ScanResult,
    Score,
    Sinks,
    Spectrum,
    SubmoduleScore,
    Tails,
)
from rectilinear.results.sweep import Point, SweepResult
from rectilinear.results.texts import TextsResult
from rectilinear.results.tokens import Guess, TokenResult, TokensResult
from rectilinear.results.trace import LayerScores, TracePoint, TraceResult

__all__ = [
    "FAILS",
    "HOLDS",
    "MOMENTS",
    "MOMENTS_DOCUMENT",
    "SCHEMA",
    "UNTESTABLE",
    "Change",
    "Changes",
    "Checkpoint",
    "DeltaResult",
    "Divergence",
    "EvalResult",
    "FinetuneResult",
    "Guess",
    "HealPoint",
    "HealResult",
    "JudgeResult",
    "Lambada",
    "LayerDelta",
    "LayerResult",
    "LayerScores",
    "Loss",
    "ModelResult",
    "Passage",
    "Plan",
    "Plot",
    "PlotCurve",
    "Point",
    "PretrainResult",
    "ProbeCurve",
    "ProbePoint",
    "ProbeResult",
    "Protocol",
    "PruneResult",
    "Reproduced",
    "ReproductionResult",
    "Row",
    "Run",
    "ScanResult",
    "Score",
    "SeedResult",
    "Sinks",
    "Size",
    "Spectrum",
    "Speed",
    "Spread",
    "SubmoduleScore",
    "SweepResult",
    "Tails",
    "TaskScore",
    "TextScore",
    "TextsResult",
    "TokenResult",
    "TokensResult",
    "TracePoint",
    "TraceResult",
    "TrainPoint",
    "Verdict",
    "clean",
    "mean",
    "thinned",
]
