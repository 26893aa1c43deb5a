"""Fine-tune a model on a task, once a seed, and measure what that does to the linearity of its layers (Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from rectilinear.data.preferences import Pairs
from rectilinear.data.tasks import Task
from rectilinear.errors import RectilinearError, ResultError
from rectilinear.models.load import earlier_fingerprint, fingerprint, load
from rectilinear.models.quiet import quiet
from rectilinear.models.save import save_model
from rectilinear.ops.delta import delta, same_documents
from rectilinear.ops.finetuning.lessons import Lessons, accuracy, lessons
from rectilinear.ops.finetuning.loop import check_installed, picked, train_
from rectilinear.ops.finetuning.recipe import FinetuneRecipe
from rectilinear.ops.forecast import budget_of, context
from rectilinear.ops.progress import OnProgress, Progress
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.ops.scan import Progress as ScanProgress
from rectilinear.ops.scan import scan
from rectilinear.ops.training.budget import Books
from rectilinear.results import FinetuneResult, HealPoint, ScanResult, SeedResult, thinned

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOSSES = 100  # points of each seed's history that are kept
UNNAMED = "texts given in Python"


@dataclass(frozen=True)
class Finetuned:
    """A model that one seed has fine-tuned, and the result so far. pad: the id that its head takes for padding."""

    seed: int
    result: FinetuneResult
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pad: int

    def save_model(self, folder: Path) -> None:
        """Write the model with its head as a checkpoint into `folder`; raises OSError where the disk refuses."""
        self.model.config.get_text_config().pad_token_id = self.pad
        save_model(self.model, self.tokenizer, folder)


OnSeed = Callable[[Finetuned], None] | None


def finetune(
    model: str,
    source: Task | Pairs,
    texts: Iterable[str],
    *,
    seeds: Iterable[int] = (0, 1, 2),
    device: str = "auto",
    trust_remote_code: bool = False,
    done: FinetuneResult | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
    on_seed: OnSeed = None,
    **options: Any,
) -> FinetuneResult:
    """Fine-tune a model (a name, as for `load`) on a task or on pairs, once a seed, in float32, each time afresh.

    The head, of random numbers at first, reads the last real token. Before and after, the model is scanned on the same
    windows of `texts` (documents), and judged on the task's test examples. Options: those of `FinetuneRecipe`. done:
    an earlier result of the same making, whose seeds are not made again. `on_seed` is handed each model that is done,
    with the result so far.

    Raises RectilinearError for wrong options or a package that is missing, ResultError where `done` was made
    otherwise, ModelError for a model without a classification head, TextError for too little text, NonFiniteError where
    a loss is no number.
    """
    recipe = FinetuneRecipe(**options)
    recipe.check()
    check_installed(recipe, pairs=isinstance(source, Pairs))
    wanted = list(dict.fromkeys(seeds))
    if not wanted:
        raise RectilinearError("expected a seed or more, got none")
    loading = {"device": device, "trust_remote_code": trust_remote_code}
    run = _Run(model, source, texts, recipe, loading, on_progress)
    return run.result(wanted, done, provenance or {}, on_seed)


class _Run:
    """The fine-tunings of one model on one task."""

    def __init__(
        self,
        name: str,
        source: Task | Pairs,
        texts: Iterable[str],
        recipe: FinetuneRecipe,
        loading: dict[str, Any],
        on_progress: OnProgress,
    ) -> None:
        self.name, self.source, self.recipe, self.loading = name, source, recipe, loading
        self.notes = list(source.notes)
        self._texts = texts
        self._documents: list[str] = []
        self._on_progress = on_progress
        self._before: ScanResult | None = None

    def result(
        self, seeds: list[int], done: FinetuneResult | None, provenance: dict[str, Any], on_seed: OnSeed
    ) -> FinetuneResult:
        """Make the seeds that are not done, one after the other, and return these and those that were."""
        text = provenance.get("text", UNNAMED)
        if done is not None:
            _check_alike(done, {**self.recipe.facts(), "task": self._task(), "text": text, "model": self.name})
        made = {} if done is None else {seed.seed: seed for seed in done.seeds}
        result = done
        for seed in seeds:
            if seed in made:
                continue
            model, tokenizer, known = self._loaded(seed)
            facts = model_facts(model, fingerprint(_body(model)))
            same = (facts["fingerprint"], earlier_fingerprint(_body(model)))
            if result is not None and result.provenance.get("fingerprint") not in same:
                raise ResultError(f"expected the weights of the run to resume, got others by the name of {self.name}")
            trained = picked(model, self.recipe).count
            made[seed] = self._made(seed, model, tokenizer, known)
            result = FinetuneResult(
                task=self._task(),
                recipe=self.recipe.facts(),
                trained=trained,
                parameters=sum(parameter.numel() for parameter in model.parameters()),
                seeds=tuple(made[number] for number in sorted(made)),
                provenance={**facts, **run_facts(), **provenance, "text": text, "model": self.name},
                warnings=tuple(dict.fromkeys(self.notes)),
            )
            if on_seed is not None:
                on_seed(Finetuned(seed, result, model, tokenizer, known.pad))
            del model  # before the next one is loaded
        assert result is not None
        return result

    def _task(self) -> dict[str, Any]:
        source = self.source
        return {
            "name": source.name,
            "source": source.source,
            "labels": list(source.labels) if isinstance(source, Task) else None,
            "train": len(source.train),
            "test": len(source.test),
            "majority": source.majority if isinstance(source, Task) else None,
        }

    def _loaded(self, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Lessons]:
        """Return the model with a head drawn by the seed, and the examples as ids; read the text the first time."""
        self._tell(Progress(f"seed {seed}: loading {self.name}"))
        torch.manual_seed(seed)
        outputs = 1 if isinstance(self.source, Pairs) else 2
        model, tokenizer = load(self.name, dtype="float32", outputs=outputs, **self.loading)
        text = model.config.get_text_config()
        known = lessons(self.source, tokenizer, text.vocab_size, context(model, self.recipe.window))
        text.pad_token_id = known.pad
        if not self._documents:
            recipe = self.recipe
            self._documents = same_documents(
                [tokenizer],
                self._texts,
                tokens=budget_of(model, recipe.tokens),
                window=context(model, recipe.scan_window),
                holdout=recipe.holdout,
            )
            if known.truncated:
                self.notes.append(f"{known.truncated:,} texts were cut to {context(model, recipe.window)} tokens.")
        return model, tokenizer, known

    def _made(
        self, seed: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, known: Lessons
    ) -> SeedResult:
        """Scan, judge, train, judge and scan again."""
        if self._before is None:
            self._before = self._scanned("scanning before", model, tokenizer)
            self.notes += self._before.warnings
        before = self._judged(f"seed {seed}: judging before", model, known)
        books = Books(("steps", self.recipe.limit), {}, lambda point, _: self._told(seed, point))
        with quiet():
            train_(model, tokenizer, known, self.recipe, books, seed)
        after = self._judged(f"seed {seed}: judging after", model, known)
        gap = delta(self._before, self._scanned(f"seed {seed}: scanning after", model, tokenizer), seed=seed)
        return SeedResult(seed, before, after, thinned(tuple(books.points), LOSSES), replace(gap, warnings=()))

    def _scanned(self, task: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> ScanResult:
        recipe = self.recipe

        def tell(state: ScanProgress) -> None:
            self._tell(Progress(task, state.done, state.total))

        return scan(
            model,
            tokenizer,
            self._documents,
            tokens=recipe.tokens,
            window=recipe.scan_window,
            holdout=recipe.holdout,
            sink_multiple=recipe.sink_multiple,
            batch_tokens=recipe.batch_tokens,
            layers_path=recipe.layers_path,
            provenance={"fingerprint": fingerprint(_body(model))},
            on_progress=tell,
        )

    def _judged(self, task: str, model: PreTrainedModel, known: Lessons) -> float:
        total, done = sum(map(len, known.test)), 0

        def advance(texts: int) -> None:
            nonlocal done
            done += texts
            self._tell(Progress(task, done, total, unit="texts"))

        return accuracy(model, known, batch_tokens=self.recipe.batch_tokens, advance=advance)

    def _told(self, seed: int, point: HealPoint) -> None:
        said = f"loss {point.loss:.4f}"
        self._tell(Progress(f"seed {seed}: training", point.step, self.recipe.limit, said, "steps"))

    def _tell(self, progress: Progress) -> None:
        if self._on_progress is not None:
            self._on_progress(progress)


def _body(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model without its head."""
    return cast("PreTrainedModel", model.base_model)


def _check_alike(done: FinetuneResult, wanted: dict[str, Any]) -> None:
    """Raise ResultError unless an earlier result was asked for the same."""
    had = {**done.recipe, "task": done.task, **{name: done.provenance.get(name) for name in ("text", "model")}}
    unlike = [name for name in wanted if had.get(name) != wanted[name]]
    if unlike:
        said = ", ".join(f"{name} {had.get(name)}" for name in unlike)
        raise ResultError(f"expected the options of the run to resume, which had {said}: give them again")
