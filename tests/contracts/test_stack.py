"""In every family: the stack is found, its stream is watched, and attention and MLP add up to what a layer adds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from families import ENCODERS, FAMILIES, LAYERS, PAD, VOCAB
from torch import Tensor, nn
from transformers import PreTrainedModel

from rectilinear.errors import ModelError
from rectilinear.models.stack import base_model, decoder_stack, first, forward, watch, width
from rectilinear.models.submodules import adders, find_parts, watch_parts

# The norm comes after the sum, so no two tensors of the layer add up to what it adds to the stream.
POST_NORM = {"opt_350m"}
PARALLEL = {"gpt_neox", "gptj", "falcon", "phi", "cohere"}
# The two without a final norm, beside the encoders; OPT-350m's last hidden state is projected to another size.
NO_FINAL_NORM = {"opt_350m", *ENCODERS}
ALL = {**FAMILIES, **ENCODERS}


@pytest.fixture(params=ALL)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(family: str) -> PreTrainedModel:
    return ALL[family]()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


def stream(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Return positions 0..L, and check that each layer reads what the one before gave."""
    stack, seen = decoder_stack(model), []

    def on_layer(index: int, x: Tensor, y: Tensor) -> None:
        if index:
            assert torch.equal(x, seen[index])
        else:
            seen.append(x)
        seen.append(y)

    with watch(stack, on_layer):
        forward(model, stack, ids, mask)
    return seen


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def final_norm(model: PreTrainedModel) -> nn.Module:
    stack = decoder_stack(model)
    parent = next(m for m in model.modules() if any(child is stack for child in m.children()))
    (norm,) = (m for n, m in parent.named_children() if ("norm" in n or n == "ln_f") and "embed" not in n)
    return norm


def test_the_stack_is_found(model: PreTrainedModel) -> None:
    stack = decoder_stack(model)
    path = next(name for name, module in model.named_modules() if module is stack)
    assert len(stack) == LAYERS
    assert decoder_stack(model, path) is stack


def test_positions_are_the_hidden_states_but_for_the_last(family: str, model: PreTrainedModel, ids: Tensor) -> None:
    seen = stream(model, ids)
    hidden = base_model(model, decoder_stack(model))(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(seen) == len(hidden) == LAYERS + 1
    assert all(position.shape == (*ids.shape, width(model)) for position in seen)
    for position, expected in zip(seen[:-1], hidden[:-1], strict=True):
        torch.testing.assert_close(position, expected)
    if family not in NO_FINAL_NORM:
        assert not torch.allclose(seen[-1], hidden[-1], atol=1e-3)
        torch.testing.assert_close(final_norm(model)(seen[-1]), hidden[-1])
    elif family != "opt_350m":
        torch.testing.assert_close(seen[-1], hidden[-1])


def test_the_head_is_not_computed(model: PreTrainedModel, ids: Tensor) -> None:
    calls: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    stream(model, ids)
    assert not calls
    model(input_ids=ids)
    assert calls


def test_hooks_are_removed(model: PreTrainedModel, ids: Tensor) -> None:
    before, stack = hooks(model), decoder_stack(model)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    for watcher in (watch, watch_parts):
        with watcher(stack, lambda *_: None):
            assert hooks(model) > before
            forward(model, stack, ids, None)
        assert hooks(model) == before
        with pytest.raises(ZeroDivisionError), watcher(stack, fail):
            forward(model, stack, ids, None)
        assert hooks(model) == before


@pytest.mark.parametrize("name", FAMILIES)
def test_pads_on_the_left_change_nothing(name: str, ids: Tensor) -> None:
    model = FAMILIES[name]()
    pads = 3
    padded = torch.cat([torch.full((1, pads), PAD), ids[:1, pads:]], dim=1)
    batch, mask = torch.cat([padded, ids[1:]]), torch.ones_like(ids)
    mask[0, :pads] = 0
    alone, full, together = stream(model, ids[:1, pads:]), stream(model, ids[1:]), stream(model, batch, mask)
    for short, long, both in zip(alone, full, together, strict=True):
        torch.testing.assert_close(both[:1, pads:], short, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(both[1:], long, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_attention_and_mlp_add_up(name: str, ids: Tensor) -> None:
    model = ALL[name]()
    stack, outputs, seen = decoder_stack(model), {}, []

    def on_parts(i: int, x: Tensor, a: Tensor, h: Tensor, m: Tensor, exact: bool) -> None:
        seen.append(i)
        assert exact == (name not in POST_NORM)
        assert torch.equal(h, x) == (name in PARALLEL)
        added = outputs[i] - x
        assert bool(((x + a + m) - outputs[i]).norm() <= 1e-4 * added.norm()) == exact
        assert min(a.norm(), m.norm()) > 1e-3 * added.norm()

    # The second batch is of another shape: what the first decided holds for it.
    with watch(stack, lambda i, x, y: outputs.__setitem__(i, y)), watch_parts(stack, on_parts):
        forward(model, stack, ids, None)
        forward(model, stack, ids[:1, :5], None)
    assert seen == 2 * list(range(LAYERS))


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "falcon", "bloom"])
def test_parts_add_up_in_half_precision(name: str, ids: Tensor) -> None:
    model = FAMILIES[name]().to(torch.bfloat16)
    stack, verdicts = decoder_stack(model), []
    with watch_parts(stack, lambda i, x, a, h, m, exact: verdicts.append(exact)):
        forward(model, stack, ids, None)
    assert verdicts == [True] * LAYERS


def test_a_layer_that_adds_nothing_is_exact(ids: Tensor) -> None:
    model = FAMILIES["llama"]()
    stack, seen = decoder_stack(model), []
    stack[1].self_attn.o_proj.weight.zero_()
    stack[1].mlp.down_proj.weight.zero_()
    with watch_parts(stack, lambda i, x, a, h, m, exact: seen.append(exact)):
        forward(model, stack, ids, None)
    assert all(seen)


def test_layers_whose_children_add_up_to_nothing_known_are_passed_over(ids: Tensor) -> None:
    model = ENCODERS["bert"]()
    stack, seen = decoder_stack(model), []
    assert find_parts(nn.Sequential(nn.Linear(2, 2))) is None
    assert adders(stack[0], (torch.ones(1, 2, 32),), {}) is None  # a norm comes after each sum
    for layer in stack:
        layer.register_forward_hook(lambda module, inputs, output: first(output) * 2)
    with watch_parts(stack, lambda i, *_: seen.append(i)):
        forward(model, stack, ids, None)
    assert not seen


def test_a_list_of_experts_inside_the_stack_is_no_rival() -> None:
    model = FAMILIES["llama"]()
    stack = decoder_stack(model)
    for layer in stack:
        layer.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(LAYERS))
    assert decoder_stack(model) is stack


def test_two_stacks_are_named() -> None:
    model = FAMILIES["llama"]()
    stack = decoder_stack(model)
    model.second = nn.ModuleList(nn.Linear(2, 2) for _ in range(LAYERS))
    with pytest.raises(ModelError, match=r"got 2: model\.layers, second; .*--layers-path"):
        decoder_stack(model)
    assert decoder_stack(model, "model.layers") is stack


def test_no_stack_names_the_lists_there_are() -> None:
    model = FAMILIES["llama"]()
    model.config.num_hidden_layers = LAYERS + 1
    with pytest.raises(ModelError, match=rf"got none; .*model\.layers \({LAYERS} LlamaDecoderLayer\)"):
        decoder_stack(model)


@pytest.mark.parametrize("path", ["model.layer", "model.norm", ""])
def test_a_wrong_path_is_refused(path: str) -> None:
    with pytest.raises(ModelError, match=r"expected a .*lists of modules here: model\.layers"):
        decoder_stack(FAMILIES["llama"](), path)
