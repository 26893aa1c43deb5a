"""Tiny random models of every family the contracts hold for: four layers, built from local configs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel

LAYERS = 4
VOCAB = 128
PAD = 1  # the id RoBERTa and OPT take for padding too

COMMON: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2}
SIZES = {"num_hidden_layers": LAYERS, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 64}
LLAMA = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}
GPT2 = {"n_layer": LAYERS, "n_embd": 32, "n_head": 4, "n_positions": 64}
GEMMA = {**LLAMA, "head_dim": 8, "sliding_window": 16}
ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)  # four layers of its own would all slide
OPT = {**SIZES, "ffn_dim": 48, "dropout": 0.0}


def _build(name: str, head: str = "ForCausalLM", config: str | None = None, **options: Any) -> PreTrainedModel:
    made = getattr(hf, config or f"{name}Config")(**{**COMMON, **options})
    # Every call gives the same weights, and a test's own random numbers stay as they were.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(hf, f"{name}{head}")(made)
        # Fresh biases are 0 and fresh norms 1: a mistake in carrying them over would not show.
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": partial(_build, "Llama", **LLAMA),
    "mistral": partial(_build, "Mistral", **LLAMA, sliding_window=16),
    "gpt2": partial(_build, "GPT2", head="LMHeadModel", **GPT2),
    "gpt_neo": partial(
        _build,
        "GPTNeo",
        num_layers=LAYERS,
        hidden_size=32,
        num_heads=4,
        max_position_embeddings=64,
        attention_types=[[["global", "local"], LAYERS // 2]],
        window_size=16,
    ),
    "gpt_neox": partial(_build, "GPTNeoX", **SIZES, intermediate_size=48),
    "gptj": partial(_build, "GPTJ", **GPT2, rotary_dim=4),
    "opt": partial(_build, "OPT", **OPT, word_embed_proj_dim=32),
    "opt_350m": partial(_build, "OPT", **OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
    "bloom": partial(_build, "Bloom", n_layer=LAYERS, hidden_size=32, n_head=4),
    "falcon": partial(_build, "Falcon", **SIZES),
    "phi": partial(_build, "Phi", **LLAMA),
    "phi3": partial(_build, "Phi3", **LLAMA),
    "qwen2": partial(_build, "Qwen2", **LLAMA),
    "qwen3": partial(_build, "Qwen3", **LLAMA, head_dim=8),
    "gemma2": partial(_build, "Gemma2", **GEMMA),
    "gemma3": partial(_build, "Gemma3", config="Gemma3TextConfig", **GEMMA, layer_types=ALTERNATING),
    "olmo2": partial(_build, "Olmo2", **LLAMA),
    "stablelm": partial(_build, "StableLm", **LLAMA),
    "cohere": partial(_build, "Cohere", **LLAMA),
    "granite": partial(_build, "Granite", **LLAMA, residual_multiplier=0.5),
    "mixtral": partial(_build, "Mixtral", **LLAMA, num_local_experts=LAYERS, num_experts_per_tok=2),
    "qwen3_moe": partial(
        _build,
        "Qwen3Moe",
        **LLAMA,
        head_dim=8,
        moe_intermediate_size=24,
        num_experts=LAYERS,
        num_experts_per_tok=2,
    ),
}

ENCODERS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": partial(_build, "Bert", head="ForMaskedLM", **SIZES, intermediate_size=48),
    "roberta": partial(_build, "Roberta", head="ForMaskedLM", **SIZES, intermediate_size=48),
}
