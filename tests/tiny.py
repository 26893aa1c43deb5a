"""A tiny random model and a tokenizer, made on the spot: for contracts, never for claims."""

import torch
import transformers as hf

VOCAB = 128


def llama(**options):
    """Return a tiny random llama in eval mode."""
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(pad_token_id=0, **{"vocab_size": VOCAB, **shape, **options})).eval()


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
