"""Shapes of models to train from scratch, all Mistral: the paper's two sizes, and two for small machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A model of one size, and what its training starts from where nothing else is asked for.

    width d of the stream, inner width of the MLP, heads of attention and those of keys and values, tied embeddings.
    window: tokens of context. batch: windows in one step. rate: AdamW's highest learning rate.
    """

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool
    window: int
    batch: int
    rate: float

    def config(self, vocab: int) -> dict[str, Any]:
        """Return the options of MistralConfig for a tokenizer of `vocab` tokens."""
        return {
            "vocab_size": vocab,
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "tie_word_embeddings": self.tied,
            "sliding_window": None,
        }


# The paper names sizes and family, not shapes: these are ours, with its 32,000 tokens of Mistral.
SIZES = {
    "tiny": Shape(8, 96, 152, 4, 2, 2048, tied=True, window=512, batch=4, rate=3e-3),
    "mini": Shape(12, 320, 768, 10, 5, 4096, tied=True, window=512, batch=16, rate=2e-3),
    "150m": Shape(12, 768, 3072, 12, 4, 32000, tied=False, window=512, batch=128, rate=1e-3),
    "650m": Shape(24, 1280, 5120, 20, 5, 32000, tied=False, window=512, batch=256, rate=6e-4),
}
