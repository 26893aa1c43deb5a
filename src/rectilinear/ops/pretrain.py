"""Pretrain: a Mistral of a named size from scratch, with or without a penalty on the stream, for a given budget."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from rectilinear.data.text import read_text
from rectilinear.data.windows import Window, apart
from rectilinear.errors import ModelError, ResultError, first_line
from rectilinear.models.load import device_of
from rectilinear.models.mode import eval_mode
from rectilinear.models.quiet import quiet
from rectilinear.models.save import save_model
from rectilinear.ops.predict import predict
from rectilinear.ops.pretraining.corpus import Documents, documents, packed, train_tokenizer
from rectilinear.ops.pretraining.loop import TENTHS, Judge, train
from rectilinear.ops.pretraining.recipe import Recipe, differences
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.ops.training.budget import Books
from rectilinear.results import HealPoint, PretrainResult, TrainPoint, thinned
from rectilinear.results.pretraining import DOCUMENT, RECIPE, check_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

JUDGED = 1 << 15  # tokens of the held-out documents, at each checkpoint
LEARNT = 50_000_000  # characters that a tokenizer is trained on
SAMPLE, TEMPERATURE = 200, 0.7  # tokens of the sample, and how freely they are drawn


@dataclass(frozen=True)
class Progress:
    """How far a task (a few words) is: tokens done, of about so many in all, and what is known so far."""

    task: str
    done: int = 0
    total: int | None = None
    said: str = ""


OnProgress = Callable[[Progress], None] | None


def pretrain(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    report_to: tuple[str, ...] = (),
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
) -> PretrainResult:
    """Train a model from scratch as the recipe says; return what came of it.

    `out` gets recipe.yaml, checkpoint-* folders as it goes, and at the end the model and pretrain.json. resume: go on
    from its last checkpoint, to the same weights as without the break. force: replace an earlier run's folder. device:
    as in `load`. report_to: loggers of transformers, by name.

    Raises RectilinearError, one line each, for a wrong recipe; ResultError for a folder that is there (or, to resume,
    is not, or was made by another recipe or from other text); TextError for too little text; ModelError for a tokenizer
    that cannot be had; NonFiniteError where the loss is no number, whose checkpoints stay.
    """
    recipe.check()
    folder = Path(out)
    _check_folder(folder, recipe, resume, force)
    tell = on_progress or (lambda progress: None)

    tell(Progress("reading text"))
    sources = (read_text(source).documents() for source in recipe.text)
    texts = documents(sources, characters=recipe.characters, share=recipe.holdout, seed=recipe.data_seed)
    window = recipe.shape.window
    tell(Progress("training the tokenizer" if recipe.tokenizer is None else "loading the tokenizer"))
    tokenizer = _tokenizer(recipe, texts)
    tell(Progress("tokenising"))
    windows = packed(tokenizer, texts.training, window)
    held = apart(tokenizer, texts.heldout, tokens=JUDGED, window=window, stride=window)
    model = new_model(recipe, len(tokenizer))
    model.to(torch.device(device_of(device)))  # type: ignore[arg-type]

    def told(point: HealPoint, share: float) -> None:
        total = round(point.tokens / max(share, 1e-6))
        tell(Progress("training", point.tokens, total, f"loss {point.loss:.3f}"))

    digest = hashlib.blake2b(windows.tobytes(), digest_size=8).hexdigest()
    books = Books(recipe.limit, {"windows": digest}, told, sorted({*recipe.marks, *TENTHS}))
    judge = Judge(lambda: _judged(model, held, recipe), books, recipe.marks)
    checkpoint = _checkpoint(folder, digest) if resume else None
    _start(folder, recipe, resume)
    try:
        with quiet():
            penalties = train(
                model, tokenizer, windows, recipe, books, judge, folder, resume=checkpoint, report_to=report_to
            )
    except BaseException:
        if get_last_checkpoint(str(folder)) is None:  # nothing that one could go on from
            shutil.rmtree(folder, ignore_errors=True)
        raise
    tell(Progress("writing"))
    result = PretrainResult(
        recipe=asdict(recipe),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocab=len(tokenizer),
        corpus={
            "documents": len(texts.training),
            "heldout": len(texts.heldout),
            "dropped": texts.dropped,
            "tokens": windows.size,
            "epochs": books.tokens / windows.size,
        },
        checkpoints=tuple(judge.checkpoints),
        history=_history(books.points, penalties),
        sample=_sample(model, tokenizer, recipe),
        provenance={**run_facts(), **model_facts(model), **(provenance or {})},
    )
    _finish(folder, model, tokenizer, result)
    return result


def new_model(recipe: Recipe, vocab: int) -> PreTrainedModel:
    """Return the recipe's model for a tokenizer of `vocab` tokens, its first weights drawn by the recipe's seed."""
    from transformers import MistralConfig, MistralForCausalLM

    shape = recipe.shape
    torch.manual_seed(recipe.seed)
    config = MistralConfig(**shape.config(vocab), max_position_embeddings=shape.window, use_cache=False)
    return MistralForCausalLM(config)


def _check_folder(folder: Path, recipe: Recipe, resume: bool, force: bool) -> None:
    if not resume:
        check_out(folder, force=force)
        if force and folder.is_dir():
            shutil.rmtree(folder)
        return
    if not (folder / RECIPE).is_file():
        raise ResultError(f"expected a run to resume in {folder}, got no {RECIPE} there: leave --resume out")
    unlike = differences(Recipe.load(folder / RECIPE), recipe)
    if unlike:
        raise ResultError(
            f"expected the recipe of the run to resume, which had {unlike}: give --recipe {folder / RECIPE}"
        )


def _checkpoint(folder: Path, digest: str) -> str:
    """Return the last checkpoint; raises ResultError where there is none, or it was trained on other text."""
    last = get_last_checkpoint(str(folder))
    if last is None:
        raise ResultError(
            f"expected a checkpoint to resume from in {folder}, got none: leave --resume out, add --force"
        )
    try:
        state = json.loads((Path(last) / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        made = state["stateful_callbacks"][Books.__name__]["args"]["windows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"cannot resume from {last}: {first_line(error)}; remove that folder") from error
    if made != digest:
        raise ResultError(f"expected the text that {folder} was trained on, got another: its files have changed")
    return last


def _start(folder: Path, recipe: Recipe, resume: bool) -> None:
    if resume:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise ResultError(f"cannot write {folder}: {error.strerror or error}") from error


def _finish(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, result: PretrainResult) -> None:
    """Write the model, then the document: a run that has one is whole."""
    part = folder / ".model"
    model.config.use_cache = True
    try:
        save_model(model, tokenizer, part)
        (part / DOCUMENT).write_text(result.to_json() + "\n", encoding="utf-8")
        for file in sorted(part.iterdir(), key=lambda path: path.name == DOCUMENT):
            file.replace(folder / file.name)
    except OSError as error:
        raise ResultError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _tokenizer(recipe: Recipe, texts: Documents) -> PreTrainedTokenizerBase:
    if recipe.tokenizer is None:
        return train_tokenizer(_head(texts.training), recipe.shape.vocab, recipe.shape.window)
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(recipe.tokenizer)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot load the tokenizer of {recipe.tokenizer!r}: {first_line(error)}") from error


def _head(texts: Sequence[str]) -> Sequence[str]:
    """Return as many of the texts, which are in an order drawn by chance, as a tokenizer needs."""
    sizes = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(sizes, LEARNT)) + 1]


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
    added = thinned(tuple(replace(point, loss=p) for point, p in zip(points, penalties, strict=True)))
    whole = thinned(tuple(points))
    return tuple(
        TrainPoint(all_.step, all_.tokens, all_.seconds, all_.loss - p.loss, p.loss)
        for all_, p in zip(whole, added, strict=True)
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
