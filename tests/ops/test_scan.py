import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers as hf
from sklearn.metrics import r2_score

import rectilinear
import tiny
from rectilinear.models.load import fingerprint, load
from rectilinear.models.stack import decoder_stack, forward, watch


@pytest.fixture(scope="module")
def model():
    return tiny.llama()


@pytest.fixture(scope="module")
def result(model):
    return rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), window=32)


def rows_of(model, ids):
    stack, seen = decoder_stack(model), {}
    with torch.inference_mode(), watch(stack, lambda i, x, y: seen.update({i: (x.double(), y.double())})):
        forward(model, stack, ids, None)
    return {i: tuple(t.reshape(-1, t.shape[-1]) for t in pair) for i, pair in seen.items()}


def test_heldout_score_is_r2_on_unseen_rows_of_the_map_of_the_rest(model):
    ids = torch.randint(1, tiny.VOCAB, (40, 16), generator=torch.Generator().manual_seed(3))
    result = rectilinear.scan(model, input_ids=ids, holdout=0.25)
    assert result.provenance["tokens_fit"] == 30 * 16
    for i, (x, y) in rows_of(model, ids).items():
        one = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        for target, ours in ((y, result.layers[i].score), (y - x, result.layers[i].increment)):
            weight = torch.linalg.lstsq(one[:480], target[:480]).solution
            judged = r2_score(target[480:], one[480:] @ weight, multioutput="variance_weighted")
            assert ours.heldout == pytest.approx(judged, abs=1e-5)
            assert ours.heldout_low <= ours.heldout <= ours.heldout_high
            assert ours.paper > ours.heldout  # in-sample flatters


def test_geometry_is_the_mean_over_tokens(model):
    ids = torch.randint(1, tiny.VOCAB, (10, 16), generator=torch.Generator().manual_seed(3))
    result = rectilinear.scan(model, input_ids=ids)
    for i, (x, y) in rows_of(model, ids).items():
        layer = result.layers[i]
        assert layer.norm_ratio == pytest.approx(float(((y - x).norm(dim=1) / y.norm(dim=1)).mean()), rel=1e-5)
        cosine = torch.cosine_similarity(x, y)
        assert layer.cosine == pytest.approx(float(cosine.mean()), abs=1e-5)
        assert layer.cosine_std == pytest.approx(float(cosine.std(correction=0)), abs=1e-4)
        assert layer.stream_norm_max == pytest.approx(float(y.norm(dim=1).max()), rel=1e-5)


def test_batching_does_not_change_the_result(model, result):
    again = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), window=32, batch_tokens=100)
    for a, b in zip(result.layers, again.layers, strict=True):
        assert a.score.paper == pytest.approx(b.score.paper, abs=1e-6)
        assert a.increment.heldout == pytest.approx(b.increment.heldout, abs=1e-6)


def test_sinks_are_found_named_and_set_apart():
    model = tiny.massive()
    texts = [t + " w7" for t in tiny.documents()]
    result = rectilinear.scan(model, tiny.tokenizer(), texts)
    for layer in result.layers:
        assert layer.sinks.tokens[0]["token"] == "w7"
        assert layer.sinks.tokens[0]["position"] == 40
        assert layer.sinks.variance_share > 0.9
        assert layer.score.paper > 0.999 > layer.score.ordinary
    plain = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), sink_multiple=1e9)
    assert plain.layers[0].sinks.count == 0
    assert plain.layers[0].score.ordinary == plain.layers[0].score.heldout


def test_triggers_are_the_worst_heldout_tokens(result):
    for layer in result.layers:
        errors = [t["error"] for t in layer.triggers]
        assert errors == sorted(errors, reverse=True)
        assert errors[0] == pytest.approx(layer.tails.max, rel=1e-6)
        assert all(t["document"] >= 22 for t in layer.triggers)


def test_submodules_and_determinism(model, result):
    again = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), window=32, submodules=True)
    assert [s.name for s in again.layers[0].submodules] == ["attention", "mlp"]
    assert again.layers[0].score == result.layers[0].score


def test_half_precision_is_raised_before_the_moments(model):
    import copy

    half = copy.deepcopy(model).to(torch.bfloat16)
    result = rectilinear.scan(half, tiny.tokenizer(), tiny.documents())
    assert result.provenance["dtype"] == "bfloat16"
    assert all(0 < layer.score.paper <= 1 for layer in result.layers)


def test_rows_kept_in_bfloat16_give_the_same_scores(monkeypatch):
    half = tiny.llama(initializer_range=0.3).to(torch.bfloat16)
    options = {"window": 32, "submodules": True, "sink_multiple": 1.2}
    raised = rectilinear.scan(half, tiny.tokenizer(), tiny.documents(), **options)
    monkeypatch.setattr("rectilinear.ops.positions.sums_halves", lambda kind: True)
    kept = rectilinear.scan(half, tiny.tokenizer(), tiny.documents(), **options)
    assert any(layer.sinks.count for layer in kept.layers)
    for a, b in zip(raised.layers, kept.layers, strict=True):
        assert b.sinks.tokens == a.sinks.tokens and b.cosine == pytest.approx(a.cosine, abs=2e-3)
        for one, other in ((a.score, b.score), (a.increment, b.increment)):
            for kind in ("paper", "heldout", "heldout_low", "ordinary"):
                assert getattr(other, kind) == pytest.approx(getattr(one, kind), abs=2e-4)
        for one, other in zip(a.submodules, b.submodules, strict=True):
            assert other.score.heldout == pytest.approx(one.score.heldout, abs=2e-4)


def test_what_a_device_tells_later_is_taken_in_all_the_same(model, monkeypatch):
    options = {"window": 32, "sink_multiple": 1.2, "batch_tokens": 128}
    at_once = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), **options)
    monkeypatch.setattr("rectilinear.ops.layers.runs_ahead", lambda device: True)
    later = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), **options)
    assert any(layer.sinks.count for layer in later.layers)
    assert later.layers == at_once.layers and later.passage == at_once.passage
    for name, array in at_once.arrays.items():
        np.testing.assert_array_equal(later.arrays[name], array)


def test_not_finite_names_layer_and_document():
    model, texts = tiny.not_finite()
    with pytest.raises(rectilinear.NonFiniteError, match=r"the embedding gave .* document 3 at token 1"):
        rectilinear.scan(model, tiny.tokenizer(), texts, window=16)


def test_an_activation_beyond_float16_names_its_layer_and_document():
    model = tiny.llama(initializer_range=0.15)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= 1e6
    documents = tiny.documents()
    assert rectilinear.scan(model, tiny.tokenizer(), documents, window=32)
    with pytest.raises(
        rectilinear.NonFiniteError, match=r"layer 1 gave a NaN or infinite .* document 0 at token .*bfloat16"
    ):
        rectilinear.scan(model.half(), tiny.tokenizer(), documents, window=32)


def test_warnings_say_what_to_distrust(model):
    few = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(3), window=16, tokens=1000)
    said = " ".join(few.warnings)
    assert "The text has 120 tokens, fewer than the 1,000 asked for" in said
    assert "tokens per dimension, below 20" in said
    assert "Fewer than 20 documents" in said
    assert few.provenance["unit"] == "window"
    none = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(3), window=16, holdout=0)
    assert none.layers[0].score.heldout is None
    assert "Nothing was held out" in " ".join(none.warnings)


def test_window_beyond_the_model_is_cut_with_a_note():
    model = tiny.llama(max_position_embeddings=16)
    result = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), window=64)
    assert result.provenance["window"] == 16
    assert "cut from 64 to 16" in " ".join(result.warnings)


def test_bad_input_is_one_clear_line(model):
    for options, said in (
        ({}, "expected texts with a tokenizer"),
        ({"input_ids": torch.ones(3)}, "expected integer input_ids"),
        ({"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 4)}, "mask of shape"),
        ({"input_ids": torch.ones(2, 3, dtype=torch.long), "holdout": 1.0}, "holdout"),
        ({"input_ids": torch.ones(2, 3, dtype=torch.long), "layers_path": "nope"}, "nope"),
    ):
        with pytest.raises(rectilinear.RectilinearError, match=said):
            rectilinear.scan(model, **options)


def test_import_loads_neither_torch_nor_transformers():
    code = "import sys, rectilinear; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layers_without_recognised_submodules_are_named(model, monkeypatch):
    ids = torch.randint(1, tiny.VOCAB, (4, 16))
    assert not any("recognised" in note for note in rectilinear.scan(model, input_ids=ids, submodules=True).warnings)
    monkeypatch.setattr("rectilinear.models.submodules.ATTENTION", ())
    result = rectilinear.scan(model, input_ids=ids, submodules=True)
    assert "No attention and MLP recognised in 3 of 3 layers (LlamaDecoderLayer): not scored apart." in result.warnings
    assert not result.layers[0].submodules


@pytest.mark.parametrize("layers", [[1], "0,2", [0, 1]])
def test_some_layers_measured_are_as_among_all(model, result, layers):
    calls = []
    handle = model.model.layers[2].register_forward_hook(lambda *_: calls.append(1))
    some = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), window=32, layers=layers, submodules=True)
    handle.remove()
    numbers = [layer.layer for layer in some.layers]
    assert numbers == ([0, 2] if layers == "0,2" else layers)
    assert bool(calls) == (2 in numbers)  # what lies above is not computed
    for layer in some.layers:
        among = result.layers[layer.layer]
        assert layer.score == among.score and layer.spectrum == among.spectrum and layer.tails == among.tails
        assert len(layer.submodules) == 2
    assert len(some.arrays["error_histogram"]) == len(numbers)


def test_all_layers_are_needed_for_pairs_and_moments(model, tmp_path):
    for options in ({"pairs": True}, {"keep_moments": tmp_path / "moments"}):
        with pytest.raises(rectilinear.ModelError, match="expected all layers"):
            rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), layers=[1], **options)


def test_weights_on_disk_give_the_scores_of_those_in_memory(folder, tmp_path):
    on_disk = dict.fromkeys(("model.layers.1", "model.layers.2", "lm_head"), "disk")
    held = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb"), "cpu")
    away = hf.AutoModelForCausalLM.from_pretrained(folder, device_map={**held, **on_disk}, offload_folder=tmp_path)
    assert sum(weight.device.type == "meta" for weight in away.parameters()) == 19
    whole, again = (
        rectilinear.scan(each, tiny.tokenizer(), tiny.documents(), window=32) for each in (tiny.llama(), away)
    )
    assert again.layers == whole.layers
    assert fingerprint(away) == fingerprint(load(str(folder), device="cpu")[0])
