"""Judge models: perplexity, divergence from a reference, LAMBADA, tasks, speed, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from rectilinear.data.demo import demo_documents
from rectilinear.data.lambada import passage_windows
from rectilinear.data.tokens import encode
from rectilinear.data.windows import Window
from rectilinear.errors import ModelError, TextError
from rectilinear.models.load import model_id
from rectilinear.models.logits import check_causal
from rectilinear.ops.predict import Sums, predict
from rectilinear.ops.protocol import Cut, Settings, cut_text, shortest_limit
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.ops.scores import divergence_of, exp, lambada_of, score_of, with_ratio
from rectilinear.ops.speed import NEW_TOKENS, PROMPT, REPEATS, measure_speed, model_bytes
from rectilinear.ops.tasks.prepare import Tasks, prepare
from rectilinear.ops.tasks.run import run_tasks
from rectilinear.results import EvalResult, ModelResult, Size, Speed, TaskScore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Candidate:
    """A model to judge, by the name that the result calls it."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Progress:
    """How far a task (a few words) is: `unit`s done of total, and the perplexity so far where there is one."""

    task: str
    done: int
    total: int
    perplexity: float | None = None
    unit: str = "tokens"


OnProgress = Callable[[Progress], None] | None


def evaluate(
    model: PreTrainedModel | Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str] | None = None,
    *,
    reference: PreTrainedModel | None = None,
    window: int | None = None,
    stride: int | None = None,
    tokens: int | None = None,
    protocol: str = "joined",
    passages: Sequence[tuple[str, str]] = (),
    tasks: str | Sequence[str] = (),
    tasks_limit: int | None = None,
    speed: bool = False,
    batch_tokens: int = 2048,
    seed: int = 0,
    on_progress: OnProgress = None,
) -> EvalResult:
    """Judge a model, or several by name that share a tokenizer, on `texts` (documents), `passages`, `tasks`, `speed`.

    With `reference` all models run on the same windows in turn and KL(reference || model) is measured. tasks: names of
    lm-evaluation-harness, zero-shot, `tasks_limit` documents of each. The other options are those of `Settings`. Raises
    TextError for text too short or empty, ModelError for a model that does not predict the next token or has another
    vocabulary, NonFiniteError for logits that are not finite, and for tasks what `prepare` and `run_tasks` raise.
    """
    named = model if isinstance(model, Mapping) else {model_id(model): model}
    known = [texts] if isinstance(texts, str) else texts
    if known is not None and len(named) > 1:
        known = list(known)  # each model reads it
    return evaluate_models(
        (Candidate(name, each, tokenizer) for name, each in named.items()),
        None if known is None else lambda: known,
        Settings(
            window=window,
            stride=stride,
            tokens=tokens,
            protocol=protocol,
            passages=passages,
            tasks=prepare(tasks, tasks_limit) if tasks else None,
            speed=speed,
            batch_tokens=batch_tokens,
            seed=seed,
        ),
        reference=None if reference is None else Candidate(model_id(reference), reference, tokenizer),
        on_progress=on_progress,
    )


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    window: int | None = None,
    stride: int | None = None,
    tokens: int | None = None,
) -> float:
    """Return exp(summed nats / summed predicted tokens) of the joined texts.

    window: tokens, by default 2,048 or the model's limit; stride: by default the window; tokens: how many of the text,
    by default all. Raises as `evaluate` does.
    """
    result = evaluate(model, tokenizer, texts, window=window, stride=stride, tokens=tokens)
    score = result.models[0].text
    assert score is not None
    return score.perplexity


def evaluate_models(
    candidates: Iterable[Candidate],
    documents: Callable[[], Iterable[str]] | None,
    settings: Settings,
    *,
    reference: Candidate | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
) -> EvalResult:
    """Judge candidates, which may be loaded as they are asked for: one is held at a time.

    Only with a reference or for speed are all held together. documents: opens the text, once a pass; None for none.
    provenance: entries added to the result's. Raises as `evaluate` does.
    """
    if documents is None and not settings.passages and settings.tasks is None and not settings.speed:
        raise TextError("expected texts, passages, tasks or speed=True, got none: there is nothing to measure")
    started = time.perf_counter()
    tasks = settings.tasks
    run = _Run(documents, settings, on_progress)
    if reference is not None or settings.speed:
        held = [*([] if reference is None else [reference]), *candidates]
        results = run.measure(held, reference is not None)
        speeds = run.speeds(held) if settings.speed else [None] * len(held)
        results = [replace(result, speed=speed) for result, speed in zip(results, speeds, strict=True)]
    else:
        results = []
        for candidate in candidates:
            results += run.measure([candidate], False)
            del candidate  # before the next one is loaded
    facts = {
        "text": None if documents is None else "texts given in Python",
        "tokens": settings.tokens,
        "lambada": f"{len(settings.passages)} passages" if settings.passages else None,
        "tasks": ", ".join(unit.name for unit in tasks.units) if tasks else None,
        "tasks_limit": tasks.limit if tasks else None,
        "batch_tokens": settings.batch_tokens,
        "seed": settings.seed,
        **run_facts(*["lm_eval"] * bool(tasks)),
        "seconds": round(time.perf_counter() - started, 3),
    }
    first = None if reference is None else results.pop(0)
    return EvalResult({**facts, **(provenance or {})}, tuple(results), first, tuple(dict.fromkeys(run.notes)))


class _Run:
    """One evaluation; remembers what the first model, the baseline of all ratios, was judged on."""

    def __init__(
        self, documents: Callable[[], Iterable[str]] | None, settings: Settings, on_progress: OnProgress
    ) -> None:
        self.notes: list[str] = [] if settings.tasks is None else [*settings.tasks.notes]
        self._documents = documents
        self._settings = settings
        self._on_progress = on_progress
        self._baseline: tuple[str, Cut, Sums] | None = None

    def measure(self, group: Sequence[Candidate], reference: bool) -> list[ModelResult]:
        """Return the results of models that run together on the same windows; with `reference` the first is one."""
        for candidate in group:
            check_causal(candidate.model)
        results = [_described(candidate) for candidate in group]
        together = [group] if reference else [[candidate] for candidate in group]
        if reference:
            _check_tokenizers(group)
        if self._documents is not None:
            done = [result for part in together for result in self._on_text(part, reference)]
            results = [replace(result, **scores) for result, scores in zip(results, done, strict=True)]
        if self._settings.passages:
            done = [result for part in together for result in self._on_lambada(part)]
            results = [replace(result, **scores) for result, scores in zip(results, done, strict=True)]
        if self._settings.tasks is not None:
            results = [
                replace(result, tasks=self._on_tasks(candidate, self._settings.tasks))
                for result, candidate in zip(results, group, strict=True)
            ]
        return results

    def speeds(self, held: Sequence[Candidate]) -> list[Speed]:
        """Return the speeds of all models, on the first tokens of the demo text by each one's own tokenizer."""
        models = [candidate.model for candidate in held]
        size = min(PROMPT, (shortest_limit(models) or PROMPT + NEW_TOKENS) - NEW_TOKENS)
        if size < 1:
            raise ModelError(f"expected a context of more than {NEW_TOKENS} tokens to time generation in")
        tell = self._teller("timing", len(held) * (size + NEW_TOKENS) * (REPEATS + 1))
        text = "".join(demo_documents())
        prompts = [torch.tensor(encode(c.tokenizer, text, size).ids[None], dtype=torch.long) for c in held]
        return measure_speed(models, prompts, advance=lambda tokens: tell(tokens, None))

    def _on_text(self, group: Sequence[Candidate], reference: bool) -> list[dict[str, Any]]:
        assert self._documents is not None
        models = [candidate.model for candidate in group]
        cut = cut_text(models, group[0].tokenizer, self._documents(), self._settings, self.notes)
        sums = self._predict("predicting", group, cut.windows, reference)
        seed = self._settings.seed
        scores: list[dict[str, Any]] = []
        for candidate, total in zip(group, sums, strict=True):
            score = score_of(total, cut, seed)
            if self._baseline is None:
                self._baseline = (candidate.name, cut, total)
            elif self._baseline[1].same_windows(cut):
                score = with_ratio(score, total, self._baseline[2], cut, seed)
            else:
                self.notes.append(
                    f"{candidate.name} was judged on other windows than {self._baseline[0]} (another tokenizer or "
                    "context): their perplexities do not compare; bits per byte do, where the contexts are alike."
                )
            scores.append({"text": score})
        if reference:
            for result, total in zip(scores[1:], sums[1:], strict=True):
                result["divergence"] = divergence_of(total, cut, seed)
        return scores

    def _on_lambada(self, group: Sequence[Candidate]) -> list[dict[str, Any]]:
        limit = shortest_limit([candidate.model for candidate in group])
        windows = passage_windows(group[0].tokenizer, self._settings.passages, limit)
        sums = self._predict("LAMBADA", group, windows, False)
        return [{"lambada": lambada_of(total, windows, self._settings.seed)} for total in sums]

    def _on_tasks(self, candidate: Candidate, tasks: Tasks) -> tuple[TaskScore, ...]:
        def tell(task: str, done: int, total: int) -> None:
            if self._on_progress is not None:
                self._on_progress(Progress(f"{task} {candidate.name}", done, total, unit="requests"))

        return run_tasks(
            candidate.model,
            candidate.tokenizer,
            tasks,
            batch_tokens=self._settings.batch_tokens,
            window=self._settings.window,
            on_requests=tell,
        )

    def _predict(self, task: str, group: Sequence[Candidate], windows: Sequence[Window], reference: bool) -> list[Sums]:
        tell = self._teller(f"{task} {group[-1].name}", len(group) * sum(len(w.ids) for w in windows))
        predicted = torch.tensor([window.predicted for window in windows])

        def advance(tokens: int, sums: list[Sums]) -> None:
            done = int(predicted[sums[-1].nats > 0].sum())
            tell(tokens, exp(float(sums[-1].nats.sum()) / done) if done else None)

        return predict(
            [c.model for c in group],
            windows,
            reference=reference,
            batch_tokens=self._settings.batch_tokens,
            advance=advance,
        )

    def _teller(self, task: str, total: int) -> Callable[[int, float | None], None]:
        done = 0

        def tell(tokens: int, perplexity: float | None) -> None:
            nonlocal done
            done += tokens
            if self._on_progress is not None:
                self._on_progress(Progress(task, done, total, perplexity))

        return tell


def _described(candidate: Candidate) -> ModelResult:
    model = candidate.model
    size = Size(
        layers=int(model.config.get_text_config().num_hidden_layers),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        bytes=model_bytes(model),
    )
    return ModelResult(candidate.name, model_facts(model), size)


def _check_tokenizers(group: Sequence[Candidate]) -> None:
    first, *rest = group
    for other in rest:
        if other.tokenizer is not first.tokenizer and other.tokenizer.get_vocab() != first.tokenizer.get_vocab():
            raise ModelError(
                f"expected the tokenizer of the reference {first.name}, {len(first.tokenizer)} tokens, got another of "
                f"{len(other.tokenizer)} in {other.name}: token by token they cannot be compared"
            )
