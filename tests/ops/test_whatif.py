import math

import pytest
import torch

import rectilinear
import tiny
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.whatif import read

PROMPT = "w5 w9 w70 w33 w1 w9"


@pytest.fixture(scope="module")
def model():
    return tiny.llama(initializer_range=0.15, max_position_embeddings=64)


@pytest.fixture(scope="module")
def maps(model):
    return rectilinear.fit_maps(model, tiny.tokenizer(), tiny.documents(), tokens=None, window=32)


def test_a_dense_model_reads_as_it_does(model):
    tokenizer = tiny.tokenizer()
    found = read(model, tokenizer, PROMPT, new_tokens=5)
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    with torch.inference_mode():
        logits = model(ids).logits[0, :-1].log_softmax(-1)
        said = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
    expected = -logits.gather(1, ids[0, 1:, None])[:, 0]
    assert found.tokens == tuple(PROMPT.split())
    assert found.nats == pytest.approx(expected.tolist(), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(float(expected.mean())), rel=1e-5)
    assert PROMPT + found.completion == tokenizer.decode(said[0])
    assert read(model, tokenizer, "w1").perplexity is None


def test_stand_ins_change_what_is_read_and_leave_no_trace(model, maps):
    tokenizer, layers = tiny.tokenizer(), list(decoder_stack(model))
    dense = read(model, tokenizer, PROMPT, new_tokens=4)
    gone = read(model, tokenizer, PROMPT, removed=[0, 2], new_tokens=4)
    straight = read(model, tokenizer, PROMPT, maps=maps, linear=[0, 2], new_tokens=4)
    assert gone.nats != dense.nats != straight.nats != gone.nats
    assert list(decoder_stack(model)) == layers
    assert read(model, tokenizer, PROMPT, new_tokens=4) == dense
    # All layers gone: the head on the embedding, with any token predicted from the one before it alone.
    alone = read(model, tokenizer, PROMPT, removed=range(3))
    assert read(model, tokenizer, "w1 w5 w9", removed=range(3)).nats[1] == pytest.approx(alone.nats[0], rel=1e-5)


def test_a_map_that_is_exact_changes_nothing(maps):
    model = tiny.llama(initializer_range=0.15, max_position_embeddings=64)
    with torch.no_grad():
        layer = model.model.layers[1]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    fitted = rectilinear.fit_maps(model, tiny.tokenizer(), tiny.documents(), tokens=None, window=32)
    dense = read(model, tiny.tokenizer(), PROMPT)
    for same in (
        read(model, tiny.tokenizer(), PROMPT, maps=fitted, linear=[1]),
        read(model, tiny.tokenizer(), PROMPT, removed=[1]),
    ):
        assert same.nats == pytest.approx(dense.nats, rel=1e-5) and same.completion == dense.completion


def test_generation_ends_at_the_end_of_text(model):
    tokenizer = tiny.tokenizer()
    said = read(model, tokenizer, PROMPT, new_tokens=6).completion.split()
    tokenizer.eos_token = said[2]
    assert read(model, tokenizer, PROMPT, new_tokens=6).completion.split() == said[: said.index(said[2])]


def test_a_prompt_that_leaves_no_room_is_read_from_its_end(model):
    prompt = " ".join(tiny.documents(2))  # 80 tokens where 64 fit
    found = read(model, tiny.tokenizer(), prompt, new_tokens=10)
    assert list(found.tokens) == prompt.split()[-54:]
    assert len(found.completion.split()) == 10


def test_wrong_wishes_are_named(model, maps):
    tokenizer = tiny.tokenizer()
    cases = [
        ({"removed": [3]}, rectilinear.ModelError, "layers from 0 to 2, got 3"),
        ({"linear": [7], "maps": maps}, rectilinear.ModelError, "layers from 0 to 2, got 7"),
        ({"linear": [1], "removed": [1], "maps": maps}, rectilinear.ModelError, "got 1 as both"),
        ({"linear": [1]}, rectilinear.TextError, "expected maps"),
    ]
    for wishes, error, said in cases:
        with pytest.raises(error, match=said):
            read(model, tokenizer, PROMPT, **wishes)
    with pytest.raises(rectilinear.TextError, match="an empty one"):
        read(model, tokenizer, "  ")
    with pytest.raises(rectilinear.ResultError, match="expected maps of"):
        read(tiny.llama(), tokenizer, PROMPT, maps=maps)
