"""In every family: the MLP's output projection is found, and what it adds to the stream is what is said."""

import pytest
import torch
from families import ENCODERS, FAMILIES, VOCAB
from torch import nn

from rectilinear.errors import ModelError
from rectilinear.models.projection import Additive, Normed, contribution, output_projection
from rectilinear.models.stack import decoder_stack, forward

EXPERTS = {"mixtral", "qwen3_moe"}
NORMED = {"gemma2", "gemma3", "olmo2"}
DENSE = [name for name in FAMILIES if name not in EXPERTS]
IDS = torch.randint(3, VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def call_of(model, index):
    """Return a layer with what the model hands it."""
    stack, seen = decoder_stack(model), []
    hook = stack[index].register_forward_pre_hook(lambda m, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    forward(model, stack, IDS, None)
    hook.remove()
    return stack[index], *seen[0]


def run(layer, args, kwargs):
    out = layer(*args, **kwargs)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("name", DENSE)
def test_the_projection_is_what_the_mlp_ends_in(name):
    layer, args, kwargs = call_of(FAMILIES[name](), 1)
    projection, seen = output_projection(layer), []
    projection.module.register_forward_hook(lambda m, args, out: seen.append((args[0].flatten(0, -2), out.clone())))
    run(layer, args, kwargs)
    inner, out = seen[0]
    assert projection.weight.shape == (projection.in_features, 32) and projection.in_features > 32
    expected = inner @ projection.weight + (projection.bias if projection.has_bias else 0)
    torch.testing.assert_close(expected, out.reshape(expected.shape), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DENSE)
def test_what_is_written_is_what_the_layer_adds(name):
    model = FAMILIES[name]()
    layer, args, kwargs = call_of(model, 1)
    projection = output_projection(layer)
    if name == "opt_350m":
        with pytest.raises(ModelError, match="cannot repair OPTDecoderLayer by its output projection"):
            contribution(layer, projection, args, kwargs)
        return
    how, seen = contribution(layer, projection, args, kwargs), []
    assert isinstance(how, Normed if name in NORMED else Additive)
    assert isinstance(how, Normed) or how.scale == pytest.approx(0.5 if name == "granite" else 1)
    projection.module.register_forward_hook(lambda m, args, out: seen.append(out.clone()))
    outputs = []
    for factor in (0, -2):
        bias = factor * projection.bias if projection.has_bias else None
        projection.write_(factor * projection.weight, bias)
        outputs.append(run(layer, args, kwargs))
        projection.module.load_state_dict(output_projection(call_of(FAMILIES[name](), 1)[0]).module.state_dict())
    out = seen[1].reshape(outputs[0].shape)
    added = how.scale * out if isinstance(how, Additive) else out * how.gain / how.divisor(out)
    torch.testing.assert_close(outputs[0] + added, outputs[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "falcon"])
def test_half_precision_is_told_apart_too(name):
    layer, args, kwargs = call_of(FAMILIES[name]().to(torch.bfloat16), 1)
    how = contribution(layer, output_projection(layer), args, kwargs)
    if isinstance(how, Additive):
        assert how.scale == pytest.approx(0.5 if name == "granite" else 1, abs=2e-3)
    else:
        assert how.gain.dtype == torch.float32 and how.divisor(torch.ones(3, 32)).shape == (3, 1)


@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_experts_are_refused(name):
    with pytest.raises(ModelError, match=r"expected one MLP in .*, got experts in mlp: use a repair"):
        output_projection(decoder_stack(FAMILIES[name]())[0])


def test_layers_without_one_projection_are_refused():
    with pytest.raises(ModelError, match="expected a layer with an MLP, got BertLayer"):
        output_projection(decoder_stack(ENCODERS["bert"]())[0])
    layer = decoder_stack(FAMILIES["llama"]())[0]
    layer.mlp = nn.ModuleList(nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 32)) for _ in range(2))
    with pytest.raises(ModelError, match=r"got mlp\.0\.1, mlp\.1\.1: use a repair"):
        output_projection(layer)
    layer.mlp = nn.LayerNorm(32)
    with pytest.raises(ModelError, match="got none"):
        output_projection(layer)


def test_an_mlp_as_wide_as_the_stream_ends_in_its_last_projection():
    layer = decoder_stack(FAMILIES["llama"]())[0]
    layer.mlp = nn.ModuleDict({"up": nn.Linear(32, 32), "down": nn.Linear(32, 32)})
    assert output_projection(layer).module is layer.mlp.down


def test_wrong_shapes_biases_and_weights_are_refused():
    projection = output_projection(decoder_stack(FAMILIES["llama"]())[0])
    with pytest.raises(ModelError, match=r"expected a weight of shape \(48, 32\), got \(32, 48\)"):
        projection.write_(torch.zeros(32, 48))
    with pytest.raises(ModelError, match="expected no bias: this projection has none, got one of shape"):
        projection.write_(torch.zeros(48, 32), torch.zeros(32))
    layer = decoder_stack(FAMILIES["opt"]())[0]
    with pytest.raises(ModelError, match="expected a bias of shape"):
        output_projection(layer).write_(torch.zeros(48, 32), torch.zeros(31))
    layer.fc2.weight = nn.Parameter(torch.zeros(32, 48, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"expected plain weights, got torch\.int8"):
        output_projection(layer)
