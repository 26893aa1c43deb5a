import math
from dataclasses import replace

import pytest
import torch
from tokenizers import Regex, normalizers

import rectilinear
import tiny
from rectilinear.models.stack import decoder_stack, forward, watch
from rectilinear.ops.maps import FILE

PROMPT = "w5 w9 w70 w33 w1 w9"


@pytest.fixture(scope="module")
def model():
    return tiny.llama(initializer_range=0.15)


@pytest.fixture(scope="module")
def maps(model):
    return rectilinear.fit_maps(model, tiny.tokenizer(), tiny.documents(), tokens=None, window=32, batch_tokens=256)


@pytest.fixture(scope="module")
def result(model, maps):
    return rectilinear.tokens(model, tiny.tokenizer(), PROMPT, maps=maps)


def streams(model, ids):
    """Return position 0 to L of the stream, [n, d] float64 each."""
    stack, seen = decoder_stack(model), []
    with torch.inference_mode(), watch(stack, lambda i, x, y: seen.extend([x, y] if not i else [y])):
        forward(model, stack, ids, None)
    return [x.double().flatten(0, 1) for x in seen]


def windows():
    ids = tiny.tokenizer()(tiny.documents())["input_ids"]
    return [torch.tensor([row[start : start + 32]]) for row in ids for start in (0, 32)]


def solved(x, z):
    one = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    solution = torch.linalg.lstsq(one, z).solution
    return solution[:-1], solution[-1]


def test_maps_are_least_squares_of_each_layer_and_to_the_end(model, maps):
    parts = [streams(model, ids) for ids in windows()]
    every = [torch.cat(rows) for rows in zip(*parts, strict=True)]
    for i, one in enumerate(maps.layer):
        weight, bias = solved(every[i], every[i + 1] - every[i])
        assert torch.allclose(one.weight.double(), weight, atol=1e-3) and torch.allclose(
            one.bias.double(), bias, atol=1e-3
        )
        weight, bias = solved(every[i], every[-1] - every[i])
        assert torch.allclose(maps.lens[i].weight.double(), weight, atol=1e-3)
    assert torch.equal(maps.layer[-1].weight, maps.lens[-1].weight)  # the last layer is all that is left
    assert maps.thresholds[1] == pytest.approx(10 * float(every[1].norm(dim=1).median()), rel=0.03)
    assert maps.facts["tokens"] == 1200 and maps.facts["documents"] == 30


def test_values_are_those_of_the_hidden_states(model, maps, result):
    stream = streams(model, torch.tensor([tiny.tokenizer()(PROMPT)["input_ids"]]))
    assert [token.token for token in result.tokens] == PROMPT.split()
    for at, token in enumerate(result.tokens):
        for i, one in enumerate(maps.layer):
            x, y = stream[i][at], stream[i + 1][at]
            z = y - x
            said = x @ one.weight.double() + one.bias.double()
            assert token.relative_error[i] == pytest.approx(float((z - said).norm() / z.norm()), rel=1e-9)
            assert token.bias_share[i] == pytest.approx(float(one.bias.double().norm() / z.norm()), rel=1e-9)
            assert token.stream_norm[i] == pytest.approx(float(y.norm()), rel=1e-9)
            assert token.contribution_norm[i] == pytest.approx(float(z.norm()), rel=1e-9)
            assert token.cosine[i] == pytest.approx(float(x @ y / x.norm() / y.norm()), rel=1e-9)
            assert not token.sink[i]
    # A map of fresh random weights explains something, not all.
    assert all(0.01 < value < 1.5 for token in result.tokens for value in token.relative_error)


def test_both_lenses_end_in_the_models_own_prediction(model, maps, result):
    ids = torch.tensor([tiny.tokenizer()(PROMPT)["input_ids"]])
    with torch.inference_mode():
        logits = model(ids).logits[0]
        stream = streams(model, ids)
        early = model.lm_head(model.model.norm(stream[1].float()))
        mapped = model.lm_head(model.model.norm((stream[1] + maps.lens[1].to(torch.float64)(stream[1])).float()))
    for at, token in enumerate(result.tokens):
        assert token.logit_lens[-1] == token.linear_lens[-1] == token.prediction
        assert len(token.logit_lens) == len(token.linear_lens) == 4
        for guess, row in ((token.prediction, logits), (token.logit_lens[1], early), (token.linear_lens[1], mapped)):
            assert guess.token == tiny.tokenizer().decode([int(row[at].argmax())])
            assert guess.probability == pytest.approx(float(row[at].softmax(0).max()), rel=1e-4)
        if at + 1 < len(result.tokens):
            came = logits[at, ids[0, at + 1]]
            assert token.next_rank == 1 + int((logits[at] > came).sum())
            assert token.next_probability == pytest.approx(float((came - logits[at].logsumexp(0)).exp()), rel=1e-4)
    assert result.tokens[-1].next_rank is None and result.tokens[-1].next_probability is None


def test_large_vocabularies_are_read_some_tokens_at_a_time(model, maps, result, monkeypatch):
    monkeypatch.setattr("rectilinear.ops.lens.CHUNK", 4 * tiny.VOCAB)
    again = rectilinear.tokens(model, tiny.tokenizer(), PROMPT, maps=maps)
    for a, b in zip(again.tokens, result.tokens, strict=True):
        assert [g.token for g in (*a.logit_lens, *a.linear_lens)] == [g.token for g in (*b.logit_lens, *b.linear_lens)]
        assert a.next_rank == b.next_rank


def test_half_precision_is_raised_before_anything_is_measured(model, result):
    half = tiny.llama(initializer_range=0.15).to(torch.bfloat16)
    maps = rectilinear.fit_maps(half, tiny.tokenizer(), tiny.documents(), tokens=None, window=32)
    rough = rectilinear.tokens(half, tiny.tokenizer(), PROMPT, maps=maps)
    for a, b in zip(rough.tokens, result.tokens, strict=True):
        assert a.linear_lens[-1] == a.prediction
        assert a.stream_norm == pytest.approx(b.stream_norm, rel=0.05)
        assert a.relative_error == pytest.approx(b.relative_error, abs=0.1)


def test_sinks_are_marked_and_not_fitted_on():
    model = tiny.massive(initializer_range=0.15)
    plain = [text.replace("w7 ", "w8 ") + " w8" for text in tiny.documents()]
    massive = [text.removesuffix(" w8") + " w7" for text in plain]
    tokenizer = tiny.tokenizer()
    maps = rectilinear.fit_maps(model, tokenizer, massive, tokens=None, window=41)
    result = rectilinear.tokens(model, tokenizer, "w5 w7 w9", maps=maps)
    assert [token.sink for token in result.tokens] == [(False,) * 3, (True,) * 3, (False,) * 3]
    # The last token of a document has no part in the others: without it the maps are the same.
    without = rectilinear.fit_maps(
        model, tokenizer, [text.removesuffix(" w8") for text in plain], tokens=None, window=41
    )
    for a, b in zip(maps.layer, without.layer, strict=True):
        assert torch.allclose(a.weight, b.weight, atol=1e-4)
    # The maps of all tokens are least squares of all.
    ids = [torch.tensor([tokenizer(text)["input_ids"]]) for text in massive]
    every = [torch.cat(rows) for rows in zip(*(streams(model, row) for row in ids), strict=True)]
    for i, one in enumerate(maps.every):
        weight, bias = solved(every[i], every[i + 1] - every[i])
        assert torch.allclose(one.weight.double(), weight, atol=1e-3)
        assert torch.allclose(one.bias.double(), bias, atol=1e-2)
    assert all(a is b for a, b in zip(without.every, without.layer, strict=True))


def test_a_layer_that_adds_nothing_has_no_error(maps):
    model = tiny.llama(initializer_range=0.15)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    fitted = rectilinear.fit_maps(model, tiny.tokenizer(), tiny.documents(), tokens=None, window=32)
    token = rectilinear.tokens(model, tiny.tokenizer(), "w3", maps=fitted).tokens[0]
    assert token.relative_error[1] is None and token.bias_share[1] is None
    assert token.contribution_norm[1] == 0 and token.cosine[1] == pytest.approx(1)
    assert token.median_error == (token.relative_error[0] + token.relative_error[2]) / 2


def test_maps_are_read_as_they_were_written(model, maps, result, tmp_path):
    maps.save(tmp_path)
    again = rectilinear.Maps.load(tmp_path)
    assert again.facts == maps.facts and again.thresholds == maps.thresholds
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(again.lens, maps.lens, strict=True))
    assert all(a is b for a, b in zip(again.every, again.layer, strict=True))
    other = rectilinear.AffineMap(maps.layer[1].weight + 1, maps.layer[1].bias + 1)
    mixed = replace(maps, every=(maps.layer[0], other, maps.layer[2]))
    mixed.save(tmp_path)
    again = rectilinear.Maps.load(tmp_path)
    assert torch.equal(again.every[1].weight, other.weight) and again.every[0] is again.layer[0]
    for a, b in zip(rectilinear.tokens(model, tiny.tokenizer(), PROMPT, maps=again).tokens, result.tokens, strict=True):
        assert a.relative_error == pytest.approx(b.relative_error, rel=1e-5)


def test_maps_of_another_model_or_none_are_refused(maps, tmp_path):
    other = tiny.llama(initializer_range=0.2)
    with pytest.raises(rectilinear.ResultError, match=r"expected maps of LlamaForCausalLM .* leave --maps out"):
        rectilinear.tokens(other, tiny.tokenizer(), PROMPT, maps=maps)
    with pytest.raises(rectilinear.ResultError, match=f"no {FILE} there"):
        rectilinear.Maps.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(rectilinear.ResultError, match="cannot read"):
        rectilinear.Maps.load(tmp_path)
    maps.save(tmp_path)
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(rectilinear.ResultError, match="expected maps of schema"):
        rectilinear.Maps.load(tmp_path)


def test_lenses_are_those_asked_for(model, maps, result):
    told = []
    some = rectilinear.tokens(
        model, tiny.tokenizer(), PROMPT, maps=maps, lenses=[1, 4], on_progress=lambda *state: told.append(state)
    )
    for at, (a, b) in enumerate(zip(some.tokens, result.tokens, strict=True)):
        assert a.relative_error == b.relative_error and a.next_rank == b.next_rank
        whole = at in (1, 4)
        for found, all_ in ((a.logit_lens, b.logit_lens), (a.linear_lens, b.linear_lens)):
            expected = all_ if whole else all_[-1:]
            assert [guess.token for guess in found] == [guess.token for guess in expected]
            assert [g.probability for g in found] == pytest.approx([g.probability for g in expected], rel=1e-5)
    assert told[-1] == (6, 6) and told == sorted(told)
    assert len(rectilinear.tokens(model, tiny.tokenizer(), PROMPT, maps=maps, lenses=()).tokens) == 6


def test_a_prompt_beyond_the_context_is_read_in_windows(maps):
    model = tiny.llama(initializer_range=0.15, max_position_embeddings=16)
    fitted = rectilinear.fit_maps(model, tiny.tokenizer(), tiny.documents(), tokens=200, window=64)
    assert fitted.facts["window"] == 16
    prompt = " ".join(tiny.documents(1))
    result = rectilinear.tokens(model, tiny.tokenizer(), prompt, maps=fitted)
    assert [token.position for token in result.tokens] == list(range(40))
    said = " ".join(result.warnings)
    assert "has 40 tokens" in said and "context of 16" in said and "in 3 windows" in said
    assert "tokens per dimension, below 20" in said
    words = prompt.split()
    for start in (0, 16, 32):
        alone = rectilinear.tokens(model, tiny.tokenizer(), " ".join(words[start : start + 16]), maps=fitted)
        for a, b in zip(result.tokens[start : start + 16], alone.tokens, strict=True):
            assert a.relative_error == b.relative_error and a.prediction == b.prediction
            if b.next_rank is not None:
                assert a.next_rank == b.next_rank
    # What came after a window's last token is known, though the next window knows nothing of it.
    assert result.tokens[15].next_rank is not None and result.tokens[-1].next_rank is None


def test_an_empty_prompt_is_refused(model, maps):
    with pytest.raises(rectilinear.TextError, match="empty"):
        rectilinear.tokens(model, tiny.tokenizer(), " \n", maps=maps)
    silent = tiny.tokenizer()
    silent.backend_tokenizer.normalizer = normalizers.Replace(Regex("."), "")
    with pytest.raises(rectilinear.TextError, match="no tokens"):
        rectilinear.tokens(model, silent, "w1", maps=maps)


def test_not_finite_is_said(model, maps, monkeypatch):
    monkeypatch.setattr(type(maps), "check", lambda self, model, tokenizer, known: None)
    broken = tiny.llama(initializer_range=0.15)
    with torch.no_grad():
        broken.model.embed_tokens.weight[9] = math.nan
    with pytest.raises(rectilinear.NonFiniteError, match=r"the embedding gave .* at token 1 of the prompt"):
        rectilinear.tokens(broken, tiny.tokenizer(), PROMPT, maps=maps)
