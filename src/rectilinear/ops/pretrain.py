"""Pretrain: a Mistral of a named size from scratch, with or without a penalty on the stream, for a given budget."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rectilinear.data.windows import Window
from rectilinear.digests import data_files, write_sums
from rectilinear.errors import ModelError, RectilinearError, ResultError
from rectilinear.files import writing
from rectilinear.models.load import device_of
from rectilinear.models.mode import eval_mode
from rectilinear.models.quiet import quiet
from rectilinear.models.save import save_model
from rectilinear.ops.predict import predict
from rectilinear.ops.pretraining.corpus import corpus
from rectilinear.ops.pretraining.earlier import has_own, let_go, put_aside, settle
from rectilinear.ops.pretraining.loop import Judge, train
from rectilinear.ops.pretraining.recipe import Recipe, asked_for, differences
from rectilinear.ops.progress import OnProgress, Progress
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.ops.training.budget import Books, made_with
from rectilinear.ops.training.loop import TENTHS
from rectilinear.ops.training.saving import has_checkpoint, last_checkpoint
from rectilinear.results import HealPoint, PretrainResult, TrainPoint, thinned
from rectilinear.results.pretraining import DOCUMENT, RECIPE, check_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAMPLE, TEMPERATURE = 300, 0.7  # tokens of the sample, and how freely they are drawn


def pretrain(
    out: str | Path,
    file: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    report_to: tuple[str, ...] = (),
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
    **options: Any,
) -> PretrainResult:
    """Train a model from scratch; return what came of it.

    options: those of `Recipe`, of which `text` must be given; file: a recipe.yaml that gives the rest.

    `out` gets recipe.yaml, checkpoint-* folders as it goes, and at the end the model and pretrain.json. resume: go on
    from its last whole checkpoint, to the same weights as without the break, or begin where there is none yet. force:
    replace an earlier run's folder, which is kept until this one has a checkpoint. device: as in `load`. report_to:
    loggers of transformers, by name.

    Raises RectilinearError, one line each, for a wrong recipe; ResultError for a folder that is there (or, to resume,
    is done, was made by another recipe or from other text, or has damaged checkpoints only); TextError for too little
    text; ModelError for a tokenizer that cannot be had; NonFiniteError where the loss is no number, whose checkpoints
    stay.
    """
    recipe = asked_for(file, **options)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RectilinearError("expected one process to pretrain in, got several: for many GPUs use LinearityTrainer")
    if device == "balanced":
        raise ModelError("expected one device to pretrain on, auto, cpu or cuda, got 'balanced'")
    folder = Path(out)
    tell = on_progress or (lambda progress: None)
    settle(folder)
    goes_on = _check_folder(folder, recipe, resume, force)
    text = corpus(recipe, tell)
    checkpoint, notes = _checkpoint(folder, text.digest) if goes_on else (None, ())
    model = new_model(recipe, len(text.tokenizer), int(text.tokenizer.eos_token_id))
    model.to(torch.device(device_of(device)))  # type: ignore[arg-type]

    def told(point: HealPoint, share: float) -> None:
        let_go(folder)
        total = round(point.tokens / max(share, 1e-6))
        tell(Progress("training", point.tokens, total, f"loss {point.loss:.3f}"))

    books = Books(recipe.limit, {"windows": text.digest}, told, sorted({*recipe.marks, *TENTHS}))
    judge = Judge(lambda: _judged(model, text.judged, recipe), books, recipe.marks)
    if not goes_on:
        _start(folder, recipe)
    try:
        with quiet():
            penalties = train(model, text, recipe, books, judge, folder, resume=checkpoint, report_to=report_to)
    except BaseException:
        if not has_own(folder):
            shutil.rmtree(folder, ignore_errors=True)
        settle(folder)
        raise
    tell(Progress("writing"))
    result = PretrainResult(
        recipe=asdict(recipe),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocab=len(text.tokenizer),
        corpus=text.facts(books.tokens),
        checkpoints=tuple(judge.checkpoints),
        history=_history(books.points, penalties),
        sample=_sample(model, text.tokenizer, recipe),
        provenance={**run_facts(), **model_facts(model), **(provenance or {})},
        warnings=notes,
    )
    _finish(folder, model, text.tokenizer, result)
    settle(folder)
    return result


def new_model(recipe: Recipe, vocab: int, end: int) -> PreTrainedModel:
    """Return the recipe's model for a tokenizer of `vocab` tokens, its first weights drawn by the recipe's seed.

    end: the token that starts and ends each document.
    """
    from transformers import MistralConfig, MistralForCausalLM

    shape = recipe.shape
    torch.manual_seed(recipe.seed)
    own: dict[str, Any] = {"max_position_embeddings": shape.window, "bos_token_id": end, "eos_token_id": end}
    return MistralForCausalLM(MistralConfig(**shape.config(vocab), **own))


def _check_folder(folder: Path, recipe: Recipe, resume: bool, force: bool) -> bool:
    """Return whether there is a run to go on with; raise ResultError where the folder must not be written."""
    if not resume or not (folder / RECIPE).is_file():
        check_out(folder, force=force)
        return False
    unlike = differences(asked_for(folder / RECIPE), recipe)
    if unlike:
        raise ResultError(
            f"expected the recipe of the run to resume, which had {unlike}: give --recipe {folder / RECIPE}"
        )
    if (folder / DOCUMENT).is_file():
        raise ResultError(f"expected a run to resume in {folder}, got one that is done")
    return has_checkpoint(folder)


def _checkpoint(folder: Path, digest: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the last whole checkpoint, and notes on damaged ones.

    Raises ResultError where all are damaged, or it was trained on other text.
    """
    last, notes = last_checkpoint(folder, "give --force to start again")
    if last is None:  # taken away since
        return None, notes
    if made_with(last, "remove that folder").get("windows") != digest:
        raise ResultError(f"expected the text that {folder} was trained on, got another: its files have changed")
    return str(last), notes


def _start(folder: Path, recipe: Recipe) -> None:
    """Put an earlier run aside, and write the recipe."""
    try:
        put_aside(folder)
        folder.mkdir(parents=True)
        (folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        settle(folder)
        raise ResultError(f"cannot write {folder}: {error.strerror or error}") from error


def _finish(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, result: PretrainResult) -> None:
    """Write the model, then the checksums, then the document: a run that has one is whole."""
    part = folder / ".model"
    model.config.use_cache = True
    try:
        with writing(folder):
            save_model(model, tokenizer, part)
            (part / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
            for file in sorted(part.iterdir()):
                if file.name != DOCUMENT:
                    file.replace(folder / file.name)
            names = [name for name in data_files(folder) if not name.startswith(f"{part.name}/")]
            write_sums(folder, names, coming=part / DOCUMENT)
            (part / DOCUMENT).replace(folder / DOCUMENT)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _judged(model: PreTrainedModel, held: Sequence[Window], recipe: Recipe) -> tuple[float, float | None]:
    """Return nats a token and bits a byte on the held-out documents."""
    batch = recipe.shape.batch * recipe.shape.window
    (sums,) = predict([model], held, reference=False, batch_tokens=batch, advance=lambda tokens, found: None)
    nats = float(sums.nats.sum())
    sizes = [window.bytes for window in held if window.bytes is not None]
    bits = nats / math.log(2) / sum(sizes) if len(sizes) == len(held) else None
    return nats / sum(window.predicted for window in held), bits


def _history(points: Sequence[HealPoint], penalties: Sequence[float]) -> tuple[TrainPoint, ...]:
    """Return at most 200 points, the penalty taken out of the loss."""
    added = thinned(tuple(replace(point, loss=penalty) for point, penalty in zip(points, penalties, strict=True)))
    whole = thinned(tuple(points))
    return tuple(
        TrainPoint(both.step, both.tokens, both.seconds, both.loss - penalty.loss, penalty.loss)
        for both, penalty in zip(whole, added, strict=True)
    )


def _sample(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> str:
    """Return a text that the model writes from nothing; the seed decides which."""
    start = torch.tensor([[tokenizer.eos_token_id]], device=model.device)
    longest = min(SAMPLE, recipe.shape.window - 1)
    with torch.random.fork_rng(), eval_mode(model), quiet():
        torch.manual_seed(recipe.seed)
        ids = model.generate(  # type: ignore[operator]
            start,
            attention_mask=torch.ones_like(start),
            max_new_tokens=longest,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            use_cache=True,
            pad_token_id=tokenizer.eos_token_id,
        )
    return str(tokenizer.decode(ids[0], skip_special_tokens=True)).strip()
