"""Heal: train a cut model on what its dense model says, for a given time, and judge it on held-out text."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rectilinear.data.windows import Window
from rectilinear.errors import ModelError, ResultError, TextError
from rectilinear.models.load import earlier_fingerprint, fingerprint
from rectilinear.models.mode import eval_mode
from rectilinear.models.quiet import quiet
from rectilinear.models.save import save_model
from rectilinear.models.stack import context_limit, decoder_stack
from rectilinear.ops.healing.cache import TeacherCache
from rectilinear.ops.healing.loop import check_checkpoints, train
from rectilinear.ops.healing.losses import Distillation, Logits, Streams
from rectilinear.ops.healing.places import Place, places
from rectilinear.ops.healing.recipe import Recipe
from rectilinear.ops.healing.training import Chosen, chosen, training
from rectilinear.ops.predict import predict
from rectilinear.ops.progress import OnProgress, Progress
from rectilinear.ops.protocol import CUTS
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.ops.scores import exp
from rectilinear.ops.training.budget import Books
from rectilinear.ops.training.loop import TENTHS
from rectilinear.results import HealPoint, HealResult, Loss, Plan, thinned

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Healed:
    """A healed model and how it came about."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    result: HealResult

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write a checkpoint, with plan.json and heal.json beside it, whole or not at all.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        return self.result.save(out, lambda folder: save_model(self.model, self.tokenizer, folder), force=force)


@dataclass(frozen=True)
class Outline:
    """What a healing would do: numbers of the model and of those that train, bytes that training adds to the model.

    bytes: gradients and AdamW's two moments, in float32.
    """

    recipe: Recipe
    parameters: int
    trained: int

    @property
    def bytes(self) -> int:
        """Bytes of gradients and moments."""
        return 12 * self.trained


def heal(
    model: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    **wishes: Any,
) -> Healed:
    """Return a healed copy of a cut model, in float32; the model given stays as it is.

    Takes what `heal_` takes, which needs less memory.
    """
    return heal_(copy.deepcopy(model), teacher, tokenizer, **wishes)


def heal_(
    model: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    texts: Iterable[str],
    plan: Plan,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
    **options: Any,
) -> Healed:
    """Train a cut model in place, in float32, to say or to carry what its dense model does.

    teacher: the model before the cut. texts: documents, of which the last windows only judge. plan: of the cut
    (`Cut.plan`, or Plan.load of its folder). Options: those of `Recipe`.

    Raises ResultError for a teacher that the plan was not made for, a model that is not what the plan leaves, or
    checkpoints and caches of something else; ModelError where nothing of what is to train is there; TextError for too
    little text; NonFiniteError where the loss is no number; RectilinearError for wrong options.
    """
    recipe = Recipe(**options)
    recipe.check()
    check_checkpoints(recipe)
    run = _Run(model, teacher, plan, recipe, on_progress)
    return run.healed(tokenizer, texts, provenance or {})


def outline(model: PreTrainedModel, plan: Plan, **options: Any) -> Outline:
    """Return what a healing with these options would do; raises as `heal_` does."""
    recipe = Recipe(**options)
    recipe.check()
    check_checkpoints(recipe)
    found = places(decoder_stack(model, recipe.layers_path), plan)
    picked = chosen(model, found, recipe.train, recipe.rank)
    return Outline(recipe, _count(model), picked.count)


class _Run:
    """One healing of one model."""

    def __init__(
        self,
        model: PreTrainedModel,
        teacher: PreTrainedModel,
        plan: Plan,
        recipe: Recipe,
        on_progress: OnProgress,
    ) -> None:
        self.fingerprint = check_teacher(teacher, plan)
        self.model, self.teacher, self.plan = model, teacher, plan
        self.notes: list[str] = []
        self._on_progress = on_progress
        self.stack = decoder_stack(model, recipe.layers_path)
        self.places: tuple[Place, ...] = places(self.stack, plan)
        self.picked: Chosen = chosen(model, self.places, recipe.train, recipe.rank)
        self.parameters, self.trained = _count(model), self.picked.count
        limit = context_limit(model)
        if limit is not None and recipe.window > limit:
            self.notes.append(f"The window is cut from {recipe.window} to {limit} tokens, the model's longest context.")
            recipe = replace(recipe, window=limit)
        self.recipe = recipe
        if recipe.loss == "mse" and plan.repair == "scalar":
            raise ModelError(
                "expected the loss kl for a cut repaired by scalar, whose stream has another size than the dense one, "
                "got mse"
            )

    def healed(self, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], provenance: dict[str, Any]) -> Healed:
        """Read the text, judge, train, judge again."""
        recipe, model = self.recipe, self.model
        windows, held = self._windows(tokenizer, texts)
        facts = {**recipe.facts(), "student": fingerprint(model), "teacher": self.plan.fingerprint}
        _widen_(model)
        dense, before = self._judged("judging before", held)
        books = Books(recipe.limit, facts, self._told, () if recipe.checkpoints is None else TENTHS)
        self._trained(windows, books)
        _, after = self._judged("judging after", held)
        result = HealResult(
            plan=self.plan,
            recipe=recipe.facts(),
            trained=self.trained,
            parameters=self.parameters,
            dense=dense,
            before=before,
            after=after,
            holdout_tokens=sum(window.predicted for window in held),
            history=thinned(tuple(books.points)),
            provenance={
                **run_facts(),
                **model_facts(self.teacher, self.fingerprint),
                "text": "texts given in Python",
                **provenance,
            },
            warnings=tuple(self.notes),
        )
        return Healed(model, tokenizer, result)

    def _windows(
        self, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
    ) -> tuple[Sequence[Window], Sequence[Window]]:
        """Return windows to train on, and those at the end of the text that only judge."""
        recipe = self.recipe
        self._tell(Progress("reading text"))
        cut = CUTS[recipe.protocol]
        found = cut(tokenizer, texts, tokens=recipe.needed, window=recipe.window, stride=recipe.window)
        # At most a fifth: a short text is for training first.
        held = min(recipe.holdout, len(found) // 5)
        if not held:
            raise TextError(
                f"expected five windows of {recipe.window} tokens or more, four to train on and one to judge, got "
                f"{len(found)}: give more --text, or a smaller --window"
            )
        return found[: len(found) - held], found[len(found) - held :]

    def _trained(self, windows: Sequence[Window], books: Books) -> None:
        recipe = self.recipe
        with ExitStack() as stack:
            stack.enter_context(quiet())
            torch.manual_seed(recipe.seed)  # adapters start from random numbers
            stack.enter_context(training(self.model, self.picked))
            out = recipe.checkpoints or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            cached = self.model.config.use_cache
            mode = self.model.training
            stack.enter_context(eval_mode(self.teacher))
            try:
                self.notes += train(self.model, windows, self._distillation(), recipe, books, out)
            finally:
                self.model.config.use_cache = cached  # the Trainer's own is off
                self.model.train(mode)

    def _distillation(self) -> Distillation:
        recipe = self.recipe
        if recipe.loss == "mse":
            dense = decoder_stack(self.teacher, recipe.layers_path)
            return Streams(self.teacher, dense, self.stack, self.places)
        cache = None
        if recipe.cache_teacher is not None:
            assert recipe.kept is not None
            cache = TeacherCache(recipe.cache_teacher, self.plan.fingerprint, recipe.kept, recipe.temperature)
        return Logits(self.teacher, recipe.kept, recipe.temperature, cache)

    def _judged(self, task: str, held: Sequence[Window]) -> tuple[Loss, Loss]:
        """Return what the dense and the cut model are worth on the held-out windows."""
        total = 2 * sum(len(window.ids) for window in held)
        done = 0

        def advance(tokens: int, _: Any) -> None:
            nonlocal done
            done += tokens
            self._tell(Progress(task, done, total))

        models = [self.teacher, self.model]
        batch = self.recipe.batch * self.recipe.window
        dense, cut = predict(models, held, reference=True, batch_tokens=batch, advance=advance)
        count = sum(window.predicted for window in held)
        nats = [float(sums.nats.sum()) / count for sums in (dense, cut)]
        return Loss(exp(nats[0]), 0.0), Loss(exp(nats[1]), float(cut.divergence.sum()) / count)

    def _told(self, point: HealPoint, share: float) -> None:
        self._tell(Progress("healing", point.tokens, round(point.tokens / max(share, 1e-6)), f"loss {point.loss:.4f}"))

    def _tell(self, progress: Progress) -> None:
        if self._on_progress is not None:
            self._on_progress(progress)


def check_teacher(teacher: PreTrainedModel, plan: Plan) -> str:
    """Return the model's fingerprint; raise ResultError unless the plan was made for it."""
    found = fingerprint(teacher)
    if plan.fingerprint not in (found, earlier_fingerprint(teacher)):
        raise ResultError(
            f"expected the model that the plan was made for, {plan.model} ({plan.fingerprint}), as the teacher, got "
            f"another ({found}): name that one with --teacher, in the --dtype that it was cut in"
        )
    return found


def _widen_(model: Any) -> None:
    """Train in float32, whatever the checkpoint's type: steps of Adam are lost in the rounding of halves."""
    if model.dtype != torch.float32:
        model.stored_dtype = getattr(model, "stored_dtype", None) or model.dtype
        model.float()


def _count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
