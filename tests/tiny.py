"""A tiny random model and a tokenizer, made on the spot: for contracts, never for claims."""

import json

import torch
import transformers as hf

VOCAB = 128


def llama(**options):
    """Return a tiny random llama in eval mode."""
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(pad_token_id=0, **{"vocab_size": VOCAB, **shape, **options})).eval()


def massive(**options):
    """Return a llama in which "w7" is a sink token wherever it stands."""
    model = llama(**options)
    with torch.no_grad():
        model.model.embed_tokens.weight[7] *= 500
    return model


def not_finite():
    """Return a llama whose embedding of "w9" is no number, and texts of which document 3 has it at token 1."""
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight[9] = float("nan")
    texts = [text.replace("w9 ", "w1 ") for text in documents()]
    texts[3] = "w1 w9 " + texts[3]
    return model, texts


def figures(result):
    """Return all of a scan's result but when it was made."""
    document = json.loads(result.to_json())
    for name in ("time", "seconds"):
        del document["provenance"][name]
    return document, {name: array.tobytes() for name, array in result.arrays.items()}


def tokenizer():
    """Return a tokenizer of whole words: 127 known, the rest unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<unk>": 0, **{f"w{i}": i for i in range(1, VOCAB)}}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<unk>")


def documents(count=30, words=40, seed=0):
    """Return `count` documents of random known words."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(1, VOCAB, (count, words), generator=generator).tolist()
    return [" ".join(f"w{i}" for i in row) for row in draws]


def gguf(path):
    """Write a tiny random llama of two layers with its tokenizer as a GGUF file; return the path."""
    from gguf import GGUFWriter, TokenType

    d, inner, words = 32, 48, ["<unk>", "a", "b", "ab", "Ġ", "Ġa"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(d)
    writer.add_block_count(2)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([TokenType.NORMAL] * len(words))
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (len(words), d), "output": (len(words), d), "output_norm": (d,)}
    for i in range(2):
        shapes |= {f"blk.{i}.attn_{name}": (d, d) for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{name}": (inner, d) for name in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down": (d, inner), f"blk.{i}.attn_norm": (d,), f"blk.{i}.ffn_norm": (d,)}
    generator = torch.Generator().manual_seed(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.randn(shape, generator=generator).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
