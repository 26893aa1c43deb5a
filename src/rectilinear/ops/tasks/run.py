"""Put tasks of lm-evaluation-harness to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from rectilinear.errors import ModelError, RectilinearError, first_line
from rectilinear.models.mode import eval_mode
from rectilinear.ops.tasks.prepare import Tasks, Unit
from rectilinear.ops.tasks.silence import silence
from rectilinear.results import TaskScore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DRAWS = 1000  # of bootstraps; the harness's own 100,000 would take longer than the models
PLACES = {  # in a configuration: where data come from, and what is never asked without examples
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "custom_dataset",
    "training_split",
    "validation_split",
    "test_split",
    "process_docs",
    "metadata",
    "fewshot_split",
    "fewshot_config",
}


def run_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Tasks,
    *,
    batch_tokens: int = 2048,
    window: int | None = None,
    on_requests: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> tuple[TaskScore, ...]:
    """Return every metric of every task; the model's mode is restored.

    batch_tokens: places in one forward pass; window: longest context in tokens, None for the model's; on_requests: is
    told a task's name, its requests answered, and of how many. Raises NonFiniteError for NaN, ModelError for a task
    that the model cannot be asked, and for a tokenizer with neither a start nor an end token.
    """
    from lm_eval.evaluator import evaluate

    from rectilinear.ops.tasks.reader import Reader

    scores: list[TaskScore] = []
    with silence(), eval_mode(model):
        reader = Reader(model, tokenizer, batch_tokens=batch_tokens, window=window)
        for unit in tasks.units:
            reader.counter.on_requests = partial(on_requests, unit.name)
            try:
                found = evaluate(reader, unit.loaded, limit=tasks.limit, bootstrap_iters=DRAWS, log_samples=False)
                scores += _scores(unit, found)
            except RectilinearError:
                raise
            except Exception as error:
                raise ModelError(f"lm-evaluation-harness fails on the task {unit.name}: {first_line(error)}") from error
    return tuple(scores)


def _scores(unit: Unit, found: dict[str, Any]) -> Iterator[TaskScore]:
    members = {name: [name] for name in unit.loaded["tasks"]}
    members |= {name: [t.task_name for t in group.get_all_tasks()] for name, group in unit.loaded["groups"].items()}
    prints = {name: fingerprint(task) for name, task in unit.loaded["tasks"].items()}
    for name, values in found["results"].items():
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr"):
                continue
            stderr = values.get(f"{metric}_stderr,{kind}")
            yield TaskScore(
                task=name,
                metric=metric if kind == "none" else key,
                value=float(value),
                stderr=None if isinstance(stderr, str | None) else float(stderr),
                n=sum(found["n-samples"][member]["effective"] for member in members[name]),
                version=str(found["versions"][name]),
                fingerprint=prints[name] if name in prints else _digest([prints[member] for member in members[name]]),
                data="local" if unit.local else "hub",
                higher_is_better=found["higher_is_better"].get(name, {}).get(metric),
            )


def fingerprint(task: Any) -> str:
    """Return 16 hex digits of all that a task asked: its configuration but for where data lie, requests and targets."""
    config = {key: value for key, value in task.dump_config().items() if key not in PLACES}
    asked = [[instance.arguments, task.doc_to_target(instance.doc)] for instance in task.instances]
    return _digest([config, asked])


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=lambda other: getattr(other, "__qualname__", str(type(other))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
