import copy

import pytest
import torch
import transformers as hf
from families import FAMILIES, VOCAB

from rectilinear.core.linear import AffineMap
from rectilinear.errors import ModelError
from rectilinear.models.layer_config import keep_layers_
from rectilinear.models.linear_block import LinearBlock
from rectilinear.models.stack import decoder_stack
from rectilinear.models.surgery import cut_, linear_block
from tiny import llama

SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 4}
IDS = torch.arange(3, 13)[None]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def a_map(seed=0, rank=32):
    draw = torch.Generator().manual_seed(seed)
    left, right, bias = (torch.randn(*shape, generator=draw).double() for shape in ((32, rank), (rank, 32), (32,)))
    return AffineMap(left @ right / 100, bias / 10)


def test_the_layers_that_stay_work_as_before():
    model = llama(num_hidden_layers=4)
    layers = list(decoder_stack(model))
    cut_(model, None, [1])
    assert list(decoder_stack(model)) == [layers[0], layers[2], layers[3]]
    assert [layer.self_attn.layer_idx for layer in decoder_stack(model)] == [0, 1, 2]
    assert model.config.num_hidden_layers == 3
    assert type(model) is hf.LlamaForCausalLM


def test_a_block_adds_its_map_to_the_stream():
    model, fitted = llama(), a_map()
    inner = {}
    cut_(model, "model.layers", [2], {1: fitted})
    block = decoder_stack(model)[1]
    block.register_forward_hook(lambda module, args, output: inner.update(x=args[0], y=output))
    model(IDS)
    x = inner["x"][0].double()
    torch.testing.assert_close(inner["y"][0].double() - x, fitted(x), atol=1e-5, rtol=1e-5)


def test_a_map_of_low_rank_loses_nothing_as_two_factors():
    fitted = a_map(rank=3)
    full, low = linear_block(fitted), linear_block(fitted, rank=3)
    x = torch.randn(1, 5, 32)
    assert sum(p.numel() for p in low.parameters()) == 2 * 3 * 32 + 32
    torch.testing.assert_close(low(x), full(x), atol=1e-5, rtol=1e-5)


def test_blocks_are_copied_and_take_the_models_dtype():
    model, block = llama().to(torch.bfloat16), linear_block(a_map())
    cut_(model, None, [], {0: block, 1: block})
    first, second = decoder_stack(model)[:2]
    assert first.weight.dtype == torch.bfloat16 and first.weight is not second.weight
    assert block.weight.dtype == torch.float32 and (first.layer_idx, second.layer_idx) == (0, 1)


def test_a_model_can_be_cut_again():
    model = llama(num_hidden_layers=5)
    cut_(model, None, [0], {2: a_map()})
    cut_(model, None, [0])
    assert [isinstance(layer, LinearBlock) for layer in decoder_stack(model)] == [True, False, False]
    assert model.config.linear_blocks["ranks"] == {"0": None}
    cut_(model, None, [0])
    assert type(model) is hf.LlamaForCausalLM and not hasattr(model.config, "linear_blocks")


def test_lists_of_every_kind_follow():
    config = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 24}
    moe = hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**config, num_experts=4, num_experts_per_tok=2, mlp_only_layers=[0, 2])
    )
    cut_(moe, None, [1])
    assert moe.config.mlp_only_layers == [0, 1]
    types = ["full_attention", "full_attention", "sliding_attention", "sliding_attention"]
    options = {"layer_types": types, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
    qwen = hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES, intermediate_size=48, num_key_value_heads=2, **options))
    cut_(qwen, None, [0])
    assert qwen.config.layer_types == types[1:] and qwen.config.max_window_layers == 1
    cut_(qwen, None, [1, 2])
    assert qwen.config.layer_types == ["full_attention"] and not qwen.model.has_sliding_layers
    smol = hf.SmolLM3ForCausalLM(
        hf.SmolLM3Config(
            **SIZES, intermediate_size=48, num_key_value_heads=2, pad_token_id=0, no_rope_layers=[1, 0, 1, 1]
        )
    )
    cut_(smol, None, [0])
    assert smol.config.no_rope_layers == [0, 1, 1]
    neo = FAMILIES["gpt_neo"]()
    cut_(neo, None, [0])
    assert neo.config.attention_layers == ["local", "global", "local"]
    assert neo.config.attention_types == [[["local", "global", "local"], 1]]


def test_overrides_by_layer_follow():
    config = hf.LlamaConfig(num_hidden_layers=12, per_layer_config={2: {"intermediate_size": 24}})
    keep_layers_(config, [1, 2, 11])
    assert config.to_dict()["per_layer_config"] == {"1": {"intermediate_size": 24}}
    keep_layers_(config, [0, 2])
    assert config.to_dict()["per_layer_config"] == {} and config.num_hidden_layers == 2


def test_what_a_config_cannot_say_is_refused_and_nothing_changed():
    scaled = hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=VOCAB, n_layer=4, n_embd=32, n_head=4, scale_attn_by_inverse_layer_idx=True)
    ).eval()
    before, state = scaled(IDS).logits, copy.deepcopy(scaled.config.to_dict())
    with pytest.raises(ModelError, match=r"cannot move layer 2 to place 1: its attn\.scaling follows"):
        cut_(scaled, None, [1])
    assert torch.equal(scaled(IDS).logits, before) and scaled.config.to_dict() == state
    cut_(scaled, None, [3])
    config = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 24}
    moe = hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**config, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=2)
    )
    with pytest.raises(ModelError, match=r"cannot move layer 2 to place 1: its mlp"):
        cut_(moe, None, [1])
    cut_(moe, None, [0, 1])
    # A linear block is none of the family's layers, whatever place it gets.
    cut_(moe, None, [0], {1: a_map()})


@pytest.mark.parametrize(
    ("remove", "blocks", "message"),
    [
        ([3, -1], {}, "expected layers from 0 to 2, got -1, 3"),
        ([1, 1], {}, "expected each layer once, got 1 more than once"),
        ([1], {1: a_map()}, "expected each layer once, got 1 more than once"),
        ([0, 1, 2], {}, "expected fewer than the model's 3 layers to remove, got all of them"),
        ([], {0: AffineMap(torch.eye(8), torch.ones(8))}, "expected maps of width 32, got 8 for layer 0"),
    ],
)
def test_wrong_layers_are_refused(remove, blocks, message):
    model = llama()
    with pytest.raises(ModelError, match=message):
        cut_(model, None, remove, blocks)
    assert len(decoder_stack(model)) == 3


def test_a_class_from_elsewhere_gets_no_blocks():
    class Own(hf.LlamaForCausalLM):
        pass

    model = Own(llama().config)
    with pytest.raises(ModelError, match="expected a model class of transformers for linear blocks, got Own"):
        cut_(model, None, [], {0: a_map()})
    cut_(model, None, [0])
