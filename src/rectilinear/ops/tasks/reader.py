"""A model in memory as the harness reads it. Imports the harness: only to be imported once it is known to be there."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from rectilinear.errors import ModelError, NonFiniteError
from rectilinear.models.stack import context_limit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Counter:
    """Counts answers, as the harness's hook for caches: it is called with each. on_requests: told done and total."""

    on_requests: Callable[[int, int], None] = lambda done, total: None
    done: int = 0
    total: int = 0

    def begin(self, total: int) -> None:
        """Start again, towards `total`."""
        self.done, self.total = 0, total

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        """Count an answer."""
        self.done += 1
        self.on_requests(self.done, self.total)


class Reader(HFLM):
    """The harness's own reader, but: batches are sized by tokens, answers are counted, and NaN is an error.

    window: longest context in tokens, None for the model's own. Raises ModelError for a tokenizer with neither a start
    nor an end token.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_tokens: int, window: int | None
    ) -> None:
        if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
            raise ModelError(
                "expected a tokenizer with a start or end token, to read texts after it, got one with neither"
            )
        limit = context_limit(model)
        length = window if window is None or limit is None else min(window, limit)
        # A copy, as the harness may give it a pad token.
        super().__init__(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=1, max_length=length)
        self._batch_tokens = batch_tokens
        self.counter = Counter()  # apart from the reader: a circle would keep the model while the next one is loaded
        self.set_cache_hook(self.counter)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return (nats, whether greedy) of each request."""
        self.counter.begin(len(requests))
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Return the nats of each text. One text at a time: the harness counts none before all are read."""
        self.counter.begin(len(requests))
        nats: list[float] = []
        for request in requests:
            nats += super().loglikelihood_rolling([request], disable_tqdm)
        return nats

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Return the text generated for each request."""
        self.counter.begin(len(requests))
        return super().generate_until(requests, disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], *arguments: Any, **options: Any
    ) -> list[tuple[float, bool]]:
        longest = max(len(context) + len(continuation) for _, context, continuation in requests)
        self.batch_size_per_gpu = max(1, self._batch_tokens // min(longest, self.max_length))
        answers = super()._loglikelihood_tokens(requests, *arguments, **options)
        if any(math.isnan(nats) for nats, _ in answers):
            raise NonFiniteError("expected finite logits, got NaN: the weights may be damaged, or try --dtype float32")
        return answers
