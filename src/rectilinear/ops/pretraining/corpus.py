"""From texts to what a model is trained on: documents once each, a tokenizer, packed windows, held-out documents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rectilinear.data.text import read_text
from rectilinear.data.windows import Window, apart
from rectilinear.errors import ModelError, TextError
from rectilinear.models.load import kept_tokenizer
from rectilinear.ops.pretraining.recipe import Recipe
from rectilinear.ops.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = "<|endoftext|>"
BATCH = 1000  # documents tokenised at once
LEARNT = 50_000_000  # characters that a tokenizer is trained on
JUDGED = 1 << 15  # tokens of the held-out documents, at each checkpoint


@dataclass(frozen=True)
class Corpus:
    """All that a training reads: windows [n, window] int32, held-out documents and those of their windows that judge.

    documents, dropped: numbers of documents that train, and of duplicates left out.
    """

    tokenizer: PreTrainedTokenizerBase
    windows: np.ndarray
    heldout: tuple[str, ...]
    judged: tuple[Window, ...]
    documents: int
    dropped: int

    @property
    def digest(self) -> str:
        """Return 16 hex digits of what is trained on."""
        return hashlib.blake2b(self.windows.tobytes(), digest_size=8).hexdigest()

    def facts(self, read: int) -> dict[str, Any]:
        """Return the numbers that a result tells; read: tokens of training."""
        tokens = self.windows.size
        counts = {"documents": self.documents, "heldout": len(self.heldout), "dropped": self.dropped}
        return {**counts, "tokens": tokens, "epochs": read / tokens}


def corpus(recipe: Recipe, tell: Callable[[Progress], None]) -> Corpus:
    """Read, split and tokenise what a recipe names; raises TextError for too little of it."""
    tell(Progress("reading text"))
    sources = (read_text(source).documents() for source in recipe.text)
    found = documents(sources, characters=recipe.characters, share=recipe.holdout, seed=recipe.data_seed)
    shape = recipe.shape
    if recipe.tokenizer is None:
        tell(Progress("training a tokenizer"))
        tokenizer = train_tokenizer(_head(found.training), shape.vocab, shape.window)
    else:
        tokenizer = load_tokenizer(recipe.tokenizer)
    tell(Progress("tokenising"))
    windows = packed(tokenizer, found.training, shape.window)
    if len(windows) < shape.batch:
        raise TextError(
            f"expected {shape.batch} windows of {shape.window} tokens or more, a batch, got {len(windows)}: give more "
            "--text, or a smaller --batch or --window"
        )
    judged = apart(tokenizer, found.heldout, tokens=JUDGED, window=shape.window, stride=shape.window)
    return Corpus(tokenizer, windows, found.heldout, judged, len(found.training), found.dropped)


def _head(texts: Sequence[str]) -> Sequence[str]:
    """Return as many of the texts, which are in an order drawn by chance, as a tokenizer needs."""
    sizes = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(sizes, LEARNT)) + 1]


@dataclass(frozen=True)
class Documents:
    """Documents to train on and those held out, in an order drawn by chance; dropped: duplicates left out."""

    training: tuple[str, ...]
    heldout: tuple[str, ...]
    dropped: int


def documents(sources: Iterable[Iterable[str]], *, characters: int | None, share: float, seed: int) -> Documents:
    """Return the documents of all sources, the first of each kind, shuffled, a share of their characters held out.

    Documents that differ only in case or white space are the same one. characters: where to stop reading, None to read
    all. Raises TextError where nothing is left to train on or to judge.
    """
    found: dict[bytes, str] = {}
    size = dropped = 0
    for document in (document for source in sources for document in source):
        text = document.strip()
        key = hashlib.blake2b(" ".join(text.casefold().split()).encode("utf-8", "replace"), digest_size=16).digest()
        if not text or key in found:
            dropped += bool(text)
            continue
        found[key] = text
        size += len(text)
        if characters is not None and size >= characters:
            break
    order = np.random.default_rng(seed).permutation(len(found))
    every = list(found.values())
    texts = [every[i] for i in order]
    held = 0
    judged: list[str] = []
    while texts and held < share * size:
        judged.append(texts.pop())
        held += len(judged[-1])
    if not texts:
        raise TextError(f"expected two documents or more, one to train on and one to judge, got {len(found)}")
    return Documents(tuple(texts), tuple(judged), dropped)


def train_tokenizer(texts: Sequence[str], vocab: int, window: int) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer of at most `vocab` tokens, learnt from texts.

    It puts its end-of-text token before each text, as the model is trained.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),
    )
    core.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END, eos_token=END, model_max_length=window)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder or Hub id.

    Raises ModelError where there is none, or one without an end token.
    """
    found = kept_tokenizer(name)
    if found.eos_token_id is None:
        raise ModelError(f"expected a tokenizer with an end-of-text token to put between documents, got {name!r}")
    return found


def packed(tokenizer: Any, texts: Sequence[str], window: int) -> np.ndarray:
    """Return the documents as full windows [n, window] int32, an end token before each document; the rest is dropped.

    Raises TextError for a text of less than one window.
    """
    end = tokenizer.eos_token_id
    parts: list[np.ndarray] = []
    for start in range(0, len(texts), BATCH):
        found = tokenizer(list(texts[start : start + BATCH]), add_special_tokens=False, verbose=False)["input_ids"]
        parts += [np.array([end, *ids], dtype=np.int32) for ids in found]
    ids = np.concatenate(parts)
    if len(ids) < window:
        raise TextError(
            f"expected at least one window of {window} tokens to train on, got {len(ids)}: give more --text, "
            "or a smaller --window"
        )
    return ids[: len(ids) // window * window].reshape(-1, window)


@dataclass(frozen=True)
class Collate:
    """Makes a batch of windows; no token attends to another document, whose positions start from 0 again.

    end: the token that starts each document.
    """

    end: int

    def __call__(self, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Return input_ids, position_ids and labels, all [b, w].

        Without a mask, transformers takes positions that start again for packed documents and keeps them apart.
        """
        ids = np.stack(rows).astype(np.int64)
        place = np.arange(ids.shape[1])
        start = np.maximum.accumulate(np.where(ids == self.end, place, 0), axis=1)
        tokens = torch.from_numpy(ids)
        return {"input_ids": tokens, "position_ids": torch.from_numpy(place - start), "labels": tokens}
