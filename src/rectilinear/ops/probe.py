"""Linear probes: what a logistic regression reads off the stream at every position (Figure 5 of the paper)."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rectilinear.core.bootstrap import draws, interval, mean_interval, wilson_interval
from rectilinear.data.tasks import Example, Task
from rectilinear.data.tokens import encode
from rectilinear.errors import RectilinearError, TextError, nearest
from rectilinear.models.load import model_id
from rectilinear.ops.evaluate import Candidate
from rectilinear.ops.forecast import context
from rectilinear.ops.pooled import POOLINGS, pooled
from rectilinear.ops.progress import OnProgress, Progress
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.results import ProbeCurve, ProbePoint, ProbeResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
STEPS = 1000  # of the solver at most


@dataclass(frozen=True)
class ProbeSettings:
    """How to probe.

    pooling: of an example's real tokens, "mean" or "last"; window: tokens of an example at most, its end cut off;
    folds: of the cross-validation that chooses the strength; batch_tokens: places in one forward pass; seed: of the
    folds and of the bootstrap.
    """

    pooling: str = "mean"
    window: int = 512
    folds: int = 5
    batch_tokens: int = 4096
    layers_path: str | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise RectilinearError, one line, for an unknown pooling, too few folds, or scikit-learn missing."""
        if self.pooling not in POOLINGS:
            known = ", ".join(POOLINGS)
            raise RectilinearError(
                f"expected a pooling of {known}, got {self.pooling!r}.{nearest(self.pooling, POOLINGS)}"
            )
        if self.folds < 2:
            raise RectilinearError(f"expected two folds or more, got {self.folds}")
        _sklearn("linear_model")


def probe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    pooling: str = "mean",
    window: int = 512,
    folds: int = 5,
    batch_tokens: int = 4096,
    layers_path: str | None = None,
    seed: int = 0,
    on_progress: OnProgress = None,
) -> ProbeResult:
    """Probe one model for a task (`rectilinear.read_task`); options as for `ProbeSettings`.

    One forward pass gives the pooled stream of every example at every position; for each position a standardised
    logistic regression is fitted on the training examples, its strength chosen by cross-validation with whole groups
    left out, and judged on the test examples.

    Raises RectilinearError for wrong options and where scikit-learn is missing, TextError for an example without
    tokens, ModelError where the decoder stack is not found, NonFiniteError for NaN or infinite activations.
    """
    settings = ProbeSettings(pooling, window, folds, batch_tokens, layers_path, seed)
    return probe_models([Candidate(model_id(model), model, tokenizer)], task, settings, on_progress=on_progress)


def probe_models(
    candidates: Iterable[Candidate],
    task: Task,
    settings: ProbeSettings,
    *,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
) -> ProbeResult:
    """Probe candidates, which may be loaded as they are asked for, one after the other; raises as `probe` does."""
    settings.check()
    started = time.perf_counter()
    notes = list(task.notes)
    curves: list[ProbeCurve] = []
    first: Tensor | None = None
    for candidate in candidates:
        curve, hits = _probed(candidate, task, settings, notes, on_progress)
        del candidate  # before the next one is loaded
        first = hits if first is None else first
        curves.append(curve if hits is first else _against(curve, first, hits, task.test, settings.seed))
    facts = {
        "pooling": settings.pooling,
        "window": settings.window,
        "folds": settings.folds,
        "strengths": list(STRENGTHS),
        "seed": settings.seed,
        **run_facts(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    said = {
        "name": task.name,
        "source": task.source,
        "labels": task.labels,
        "train": len(task.train),
        "test": len(task.test),
        "test_groups": len({example.group for example in task.test}),
    }
    return ProbeResult(said, task.majority, tuple(curves), {**facts, **(provenance or {})}, tuple(dict.fromkeys(notes)))


def _probed(
    candidate: Candidate, task: Task, settings: ProbeSettings, notes: list[str], on_progress: OnProgress
) -> tuple[ProbeCurve, Tensor]:
    """Return the probes of one model, and which test examples [L + 1, n] each gets right."""
    model, name = candidate.model, candidate.name
    examples = (*task.train, *task.test)
    limit = context(model, settings.window)
    ids = [_ids(candidate.tokenizer, example, limit) for example in examples]
    total, done = sum(len(row) for row, _ in ids), 0
    truncated = sum(cut for _, cut in ids)

    def tell(state: Progress) -> None:
        if on_progress is not None:
            on_progress(state)

    def advance(tokens: int) -> None:
        nonlocal done
        done += tokens
        tell(Progress(f"reading with {name}", done, total))

    options: dict[str, Any] = {"batch_tokens": settings.batch_tokens, "layers_path": settings.layers_path}
    with pooled(model, [row for row, _ in ids], settings.pooling, advance=advance, **options) as features:
        points: list[ProbePoint] = []
        hits: list[Tensor] = []
        for position in range(len(features)):
            said = f"best accuracy so far {max(p.accuracy for p in points):.3f}" if points else ""
            tell(Progress(f"probing {name}", position, len(features), said, "positions"))
            point, right = _fitted(position, np.array(features[position]), task, settings, notes)
            points.append(point)
            hits.append(right)
    if truncated:
        notes.append(f"{truncated:,} of {len(examples):,} examples were cut to {limit} tokens for {name}.")
    return ProbeCurve(name, model_facts(model), tuple(points), truncated), torch.stack(hits)


def _ids(tokenizer: PreTrainedTokenizerBase, example: Example, limit: int) -> tuple[np.ndarray, bool]:
    """Return the ids of an example, at most `limit`, and whether more were cut off."""
    ids = encode(tokenizer, example.text, limit + 1).ids
    if not len(ids):
        raise TextError(f"expected an example of a token or more, got none for {example.text[:40]!r}")
    return ids[:limit], len(ids) > limit


def _fitted(
    position: int, features: np.ndarray, task: Task, settings: ProbeSettings, notes: list[str]
) -> tuple[ProbePoint, Tensor]:
    """Fit the probe of one position on features [n, d], training examples first; return it and its hits [test]."""
    count = len(task.train)
    labels = np.array([example.label for example in (*task.train, *task.test)])
    groups = [example.group for example in task.train]
    linear, selection = _sklearn("linear_model"), _sklearn("model_selection")
    found = selection.GridSearchCV(
        _sklearn("pipeline").make_pipeline(
            _sklearn("preprocessing").StandardScaler(), linear.LogisticRegression(max_iter=STEPS)
        ),
        {"logisticregression__C": STRENGTHS},
        cv=selection.StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed),
        scoring="neg_log_loss",
        error_score="raise",
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found.fit(features[:count], labels[:count], groups=groups)
        except ValueError as error:
            raise TextError(
                f"expected examples of both classes in {settings.folds} folds of groups, got too few of {task.name}: "
                "give more --examples, or fewer --folds"
            ) from error
    if any("converge" in str(warning.message) for warning in caught):
        notes.append(f"Some probes had not converged after {STEPS} steps.")
    right = found.predict(features) == labels
    hits = torch.from_numpy(right[count:]).double()
    low, high = _interval(hits, task.test, settings.seed)
    return (
        ProbePoint(
            position=position,
            accuracy=float(hits.mean()),
            low=low,
            high=high,
            train_accuracy=float(right[:count].mean()),
            strength=float(found.best_params_["logisticregression__C"]),
        ),
        hits,
    )


def _interval(hits: Tensor, examples: Sequence[Example], seed: int) -> tuple[float | None, float | None]:
    """Return the interval of the share of hits [n]: Wilson's, or by bootstrap where examples come in groups."""
    sums, counts = _by_group(hits[None], examples)
    if len(counts) == len(examples):
        return wilson_interval(int(hits.sum()), len(hits))
    return mean_interval(sums, counts, seed=seed)


def _by_group(hits: Tensor, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Return hits [k, n] summed over the groups of the examples and over k, [groups], and their numbers [groups]."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(e.group for e in examples))}
    which = torch.tensor([numbers[example.group] for example in examples])
    none = torch.zeros(len(numbers), dtype=torch.float64)
    return none.index_add(0, which, hits.sum(0)), none.index_add(0, which, torch.full_like(hits[0], len(hits)))


def _against(curve: ProbeCurve, first: Tensor, hits: Tensor, examples: Sequence[Example], seed: int) -> ProbeCurve:
    """Return the curve with the gap of its mean accuracy to the first model's, the same examples drawn for both."""
    (ours, counts), (theirs, base) = _by_group(hits, examples), _by_group(first, examples)
    gap = float(ours.sum() / counts.sum() - theirs.sum() / base.sum())
    if len(counts) < 2:
        return replace(curve, gap=gap)
    times = draws(len(counts), seed)
    drawn = (times @ ours) / (times @ counts) - (times @ theirs) / (times @ base)
    low, high = interval(drawn).tolist()
    return replace(curve, gap=gap, gap_low=low, gap_high=high)


def _sklearn(name: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError as error:
        raise RectilinearError(
            "expected the package scikit-learn for probes, got none: pip install 'rectilinear[probe]'"
        ) from error
