"""What an evaluation is asked for, how the text is cut for it, and how that is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rectilinear.data.windows import Window, apart, joined
from rectilinear.errors import TextError, nearest
from rectilinear.models.stack import context_limit
from rectilinear.results import Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rectilinear.ops.tasks.prepare import Tasks

WINDOW = 2048  # the literature's, where the model can
CUTS = {"joined": joined, "documents": apart}


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    window: tokens, None for 2,048 or the model's limit; stride: None for the window; tokens: of the text, None for all;
    protocol: "joined" or "documents"; passages: of LAMBADA, (context, last word) each; tasks: of lm-evaluation-harness;
    speed: time the models too; batch_tokens: places in one forward pass; seed: of the bootstrap.
    """

    window: int | None = None
    stride: int | None = None
    tokens: int | None = None
    protocol: str = "joined"
    passages: Sequence[tuple[str, str]] = ()
    tasks: Tasks | None = None
    speed: bool = False
    batch_tokens: int = 2048
    seed: int = 0


@dataclass(frozen=True)
class Cut:
    """Windows to judge on, and the protocol they follow."""

    windows: tuple[Window, ...]
    protocol: Protocol

    def same_windows(self, other: Cut) -> bool:
        """Tell whether the same tokens are predicted from the same ones."""
        return len(self.windows) == len(other.windows) and all(
            a.first == b.first and np.array_equal(a.ids, b.ids)
            for a, b in zip(self.windows, other.windows, strict=True)
        )


def shortest_limit(models: Sequence[PreTrainedModel]) -> int | None:
    """Return the longest context that all models take, None where none of them names one."""
    return min((limit for model in models if (limit := context_limit(model)) is not None), default=None)


def cut_text(
    models: Sequence[PreTrainedModel], tokenizer: Any, documents: Iterable[str], settings: Settings, notes: list[str]
) -> Cut:
    """Cut a text for models that share it; a window beyond their context is cut too, with a note.

    Raises TextError for an impossible window or stride, and for text too short or empty.
    """
    window, stride = _window(models, settings, notes)
    if settings.protocol not in CUTS:
        raise TextError(
            f"expected the protocol joined or documents, got {settings.protocol!r}.{nearest(settings.protocol, CUTS)}"
        )
    cut = CUTS[settings.protocol]
    windows = cut(tokenizer, documents, tokens=settings.tokens, window=window, stride=stride)
    start = getattr(tokenizer, "bos_token_id", None)
    bos = start is not None and int(windows[0].ids[0]) == start
    sizes = [w.bytes for w in windows if w.bytes is not None]
    if len(sizes) < len(windows):
        notes.append("The tokenizer does not tell which text a token covers: there are no bits per byte.")
    overlaps = sum(a.document == b.document for a, b in pairwise(windows))
    protocol = Protocol(
        name=settings.protocol,
        window=window,
        stride=stride,
        windows=len(windows),
        documents=None if settings.protocol == "joined" else len({w.document for w in windows}),
        bos=bos,
        tokens=sum(w.predicted for w in windows),
        tokens_read=sum(len(w.ids) for w in windows) - overlaps * (window - stride),
        bytes=sum(sizes) if len(sizes) == len(windows) else None,
        words="",
    )
    return Cut(windows, replace(protocol, words=_words(protocol)))


def _window(models: Sequence[PreTrainedModel], settings: Settings, notes: list[str]) -> tuple[int, int]:
    limit = shortest_limit(models)
    window = min(WINDOW, limit or WINDOW) if settings.window is None else settings.window
    stride = window if settings.stride is None else settings.stride
    if window < 2:
        raise TextError(f"expected a window of at least 2 tokens, one to predict from and one to predict, got {window}")
    if not 1 <= stride <= window:
        raise TextError(f"expected a stride between 1 and the window of {window} tokens, got {stride}")
    if limit is not None and window > limit:
        notes.append(f"The window is cut from {window} to {limit} tokens, the model's longest context.")
        window, stride = limit, min(stride, limit)
    return window, stride


def _words(protocol: Protocol) -> str:
    """Return the protocol as a sentence."""
    p = protocol
    whole = "all documents joined as one text" if p.documents is None else f"{p.documents:,} documents, each by itself"
    start = "with the tokenizer's start token before each" if p.bos and p.documents else "no start token"
    if p.bos and not p.documents:
        start = "one start token before the text"
    again = f", a new one every {p.stride:,}" if p.stride < p.window else ""
    full = "windows of" if p.documents is None else "windows of at most"
    return (
        f"{whole}, {start}; {p.windows:,} {full} {p.window:,} tokens{again}; {p.tokens:,} of {p.tokens_read:,} tokens "
        "predicted, each once, from those before it in its window"
    )
