"""In every family: the decoder taken apart is the decoder, repairs do what they say, and what is left loads."""

import copy

import pytest
import torch
from families import FAMILIES, LAYERS, VOCAB

import rectilinear
import tiny
from rectilinear.errors import ModelError
from rectilinear.models.runner import Runner
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.cut.registry import REPAIRS
from rectilinear.ops.cut.repairs import Work, repaired
from rectilinear.ops.cut.streams import Teacher
from rectilinear.ops.prune import prune_

EXPERTS = {"mixtral", "qwen3_moe"}
# The norm comes after the sum: no projection reaches the stream by itself.
POST_NORM = {"opt_350m"}
# Attention and MLP read the stream as it is, so its size matters.
NO_PRE_NORM = {"olmo2"}
REFUSED = {
    **dict.fromkeys(("refit", "fold", "fold-cosine"), EXPERTS | POST_NORM),
    "scalar": EXPERTS | POST_NORM | NO_PRE_NORM,
}
IDS = torch.randint(3, VOCAB, (16, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_run_one_by_one_are_the_model(name):
    model = FAMILIES[name]()
    stack = decoder_stack(model)
    runner = Runner(model, stack)
    x = runner.embed(IDS)
    for index in range(LAYERS):
        x = runner.layer(index, x)
    expected = model(input_ids=IDS).logits
    torch.testing.assert_close(runner.logits(x), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(input_ids=IDS).logits, expected)  # nothing is left behind
    assert runner.passed == LAYERS * IDS.numel()


def cut(model, repair, removed=(1,)):
    runner = Runner(model, decoder_stack(model))
    work = Work(runner, Teacher(runner, IDS, batch=4, keep=True), frozenset(removed))
    return work, repaired(work, REPAIRS[repair])


@pytest.mark.parametrize("repair", REPAIRS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_repair_brings_the_stream_closer_and_can_be_undone(name, repair):
    model = FAMILIES[name]()
    before = copy.deepcopy(model.state_dict())
    if name in REFUSED.get(repair, ()):
        with pytest.raises(ModelError):
            cut(model, repair)
        return
    work, student = cut(model, repair)
    dense = work.teacher.at(LAYERS)
    again = work.through([work.runner.embed(part) for part in IDS.split(4)])
    for x, y in zip(student, again, strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)
    angle = mean_cosine(student, dense)
    work.undo()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    if repair in ("refit", "patch", "linear"):
        assert angle > mean_cosine(cut(model, "none")[1], dense)


def mean_cosine(a, b):
    return float(torch.cosine_similarity(torch.cat(a), torch.cat(b), dim=-1).mean())


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - EXPERTS - POST_NORM - NO_PRE_NORM))
def test_a_scaled_stream_is_the_same_function(name):
    """`scalar` divides what the layers above add: the logits are those of the multiplied stream."""
    model = FAMILIES[name]()
    work, student = cut(model, "scalar")
    assert work.scale != 1
    scaled = work.through([work.runner.embed(part) for part in IDS.split(4)])
    torch.testing.assert_close(torch.cat(student), torch.cat(scaled), atol=1e-4, rtol=1e-4)
    work.undo()
    # The same by multiplying the stream itself, weights untouched.
    x = work.runner.layer(0, work.runner.embed(IDS[:4])) * work.scale
    for index in (2, 3):
        x = work.runner.layer(index, x)
    torch.testing.assert_close(scaled[0] * work.scale, x, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("repair", REPAIRS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_pruned_model_is_loaded_with_the_same_logits(name, repair, tmp_path):
    model, tokenizer = FAMILIES[name](), tiny.tokenizer()
    options = {"texts": tiny.documents(), "layers": [1, 2], "repair": repair, "window": 16, "tokens": None}
    if name in REFUSED.get(repair, ()):
        with pytest.raises(ModelError):
            prune_(model, tokenizer, **options)
        return
    made = prune_(model, tokenizer, **options)
    folder = made.save(tmp_path / "cut")
    loaded, _ = rectilinear.load(str(folder))
    torch.testing.assert_close(loaded(input_ids=IDS).logits, made.model(input_ids=IDS).logits)
    assert (folder / "plan.json").is_file()
    gone = {"linear": 0, "patch": 1}.get(repair, 2)  # maps stand in the places of layers
    assert loaded.config.get_text_config().num_hidden_layers == LAYERS - gone
