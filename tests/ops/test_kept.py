import json

import pytest
import torch

import rectilinear
import tiny
from disk import flip
from rectilinear.core.linear import AffineMap, error_of, fit, in_turn, ratio, scores
from rectilinear.core.moments import Moments
from rectilinear.ops.kept import Group, KeptMoments

FIT, SEEN = Group("fit", "ordinary"), Group("heldout", "ordinary")


def massive():
    return tiny.massive(initializer_range=0.15)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A scan with sink tokens that kept its moments, its model and its folder."""
    place = tmp_path_factory.mktemp("kept")
    model = massive()
    result = rectilinear.scan(
        model, tiny.tokenizer(), tiny.documents(60), tokens="all", window=40, keep_moments=place / "raw"
    )
    return model, result, result.save(place / "out")


def test_every_group_is_kept_apart_and_together_they_are_all(scanned):
    _, result, out = scanned
    kept = KeptMoments.load(out)
    facts = result.provenance
    assert kept.layers == 3 and kept.facts["fingerprint"] == facts["fingerprint"]
    assert kept.facts["tokenizer_fingerprint"] == facts["tokenizer_fingerprint"]
    for layer in result.layers:
        groups = kept.groups(layer.layer)
        counts = {(group.part, group.tokens): moments.n for group, moments in groups.items()}
        assert counts["fit", "ordinary"] + counts["fit", "sink"] == facts["tokens_fit"]
        assert counts["heldout", "ordinary"] + counts["heldout", "sink"] == facts["tokens_heldout"]
        assert counts["fit", "sink"] + counts["heldout", "sink"] == layer.sinks.count > 0
        every = Moments.empty(32, 32)
        for moments in groups.values():
            every = every.merge(moments)
        assert scores(every).score == pytest.approx(layer.score.paper, abs=1e-9)
        # The same maps on the same unseen tokens: the score that the scan found row by row.
        unseen = groups[SEEN]
        judged = ratio(error_of(fit(groups[FIT]), unseen), float(unseen.szz))
        assert judged == pytest.approx(layer.increment.ordinary, abs=1e-5)


def test_sizes_are_those_that_a_forecast_names(scanned):
    from rectilinear.ops.forecast import forecast

    model, _, out = scanned
    told = forecast(model, keep_moments=True)
    files = list((out / "moments").glob("*.safetensors"))
    assert len(files) == 12  # three layers, two parts, sinks apart
    assert sum(file.stat().st_size for file in files) == pytest.approx(told.kept_bytes_most, rel=0.1)
    assert forecast(model).kept_bytes_most == 0


def test_a_scan_gives_the_maps_of_its_ordinary_tokens(scanned):
    model, _, out = scanned
    maps = rectilinear.Maps.load(out)
    fitted = rectilinear.fit_maps(model, tiny.tokenizer(), tiny.documents(60), tokens=None, window=40)
    assert maps.thresholds == pytest.approx(fitted.thresholds, rel=0.02)  # of other first batches
    for a, b in zip(maps.layer, fitted.layer, strict=True):
        assert torch.allclose(a.weight, b.weight, atol=2e-3) and torch.allclose(a.bias, b.bias, atol=2e-3)
    for a, b, c in zip(maps.every, fitted.every, maps.layer, strict=True):
        assert torch.allclose(a.weight, b.weight, atol=2e-3)
        assert not torch.allclose(a.weight, c.weight, atol=2e-3)  # there are sinks in every layer
    result = rectilinear.tokens(model, tiny.tokenizer(), "w5 w9 w70", maps=maps)
    assert result.provenance["maps"]["lens"] == "composed"
    assert all(token.linear_lens[-1] == token.prediction for token in result.tokens)


def test_the_lens_of_a_scan_is_its_layers_maps_in_turn(scanned):
    maps = rectilinear.Maps.load(scanned[2])
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    for start, lens in enumerate(maps.lens):
        y = x
        for one in maps.layer[start:]:
            y = y + one(y)
        assert torch.allclose(x + lens(x), y, atol=1e-3)
    zero = AffineMap(torch.zeros(32, 32), torch.zeros(32))
    assert torch.equal(in_turn(maps.layer[0], zero).weight, maps.layer[0].weight)


def test_without_anything_held_out_all_is_fit(tmp_path):
    rectilinear.scan(
        tiny.llama(), tiny.tokenizer(), tiny.documents(), window=32, holdout=0, keep_moments=tmp_path / "m"
    ).save(tmp_path / "out")
    kept = KeptMoments.load(tmp_path / "out")
    assert list(kept.groups(0)) == [FIT] and kept.merged(0)[0].n == 1200


def test_moments_travel_with_the_result(scanned, tmp_path):
    _, result, out = scanned
    again = rectilinear.load_result(out).save(tmp_path / "copy")
    assert {file.name for file in (again / "moments").iterdir()} == {file.name for file in result.moments.iterdir()}
    assert rectilinear.Maps.load(again).facts == rectilinear.Maps.load(out).facts
    rectilinear.load_result(again).save(again, force=True)  # from the folder that is replaced
    assert (again / "moments" / "moments.json").is_file()


def test_several_texts_keep_theirs_apart(tmp_path):
    texts = {"one": tiny.documents(20), "two": tiny.documents(20, seed=1)}
    result = rectilinear.scan_texts(tiny.llama(), tiny.tokenizer(), texts, window=32, keep_moments=tmp_path / "m")
    out = result.save(tmp_path / "out")
    one, two = (KeptMoments.load(out / name).merged(0)[0] for name in texts)
    assert one.n == two.n == 800 and not torch.equal(one.sum_x, two.sum_x)


def test_what_is_missing_or_damaged_is_named(scanned, tmp_path):
    model, result, out = scanned
    with pytest.raises(rectilinear.ResultError, match="new or empty folder"):
        rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), window=32, keep_moments=result.moments)
    plain = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(), window=32).save(tmp_path / "plain")
    with pytest.raises(rectilinear.ResultError, match="--keep-moments"):
        rectilinear.Maps.load(plain)
    copy = rectilinear.load_result(out).save(tmp_path / "copy")
    file = copy / "moments" / "layer-001.fit.ordinary.safetensors"
    before = flip(file)
    with pytest.raises(rectilinear.ResultError, match=r"layer-001\.fit\.ordinary\.safetensors is damaged"):
        rectilinear.Maps.load(copy)
    file.unlink()
    with pytest.raises(rectilinear.ResultError, match=r"layer-001\.fit\.ordinary\.safetensors is missing"):
        rectilinear.Maps.load(copy)
    file.write_bytes(before)
    document = copy / "moments" / "moments.json"
    facts = json.loads(document.read_text())
    document.unlink()
    document.write_text(json.dumps({**facts, "layers": 2}))
    with pytest.raises(rectilinear.ResultError, match=r"moments\.json is damaged"):
        rectilinear.Maps.load(copy)
    document.write_text(json.dumps({k: v for k, v in facts.items() if k not in ("files", "sha256")}))  # as before
    rectilinear.Maps.load(copy)
    for file in (copy / "moments").glob("layer-001.*"):
        file.unlink()
    with pytest.raises(rectilinear.ResultError, match="moments of layer 1"):
        rectilinear.Maps.load(copy)
    for damage in ('{"schema": 99, "kind": "moments"}', "[]", "no json", json.dumps({"schema": 1, "kind": "moments"})):
        document.unlink()  # it is linked: what it was linked from must stay
        document.write_text(damage)
        with pytest.raises(rectilinear.ResultError, match="scan again"):
            rectilinear.Maps.load(copy)


def test_maps_of_another_model_or_tokenizer_are_refused(scanned):
    model, _, out = scanned
    maps = rectilinear.Maps.load(out)
    with pytest.raises(rectilinear.ResultError, match="expected maps of Llama"):
        rectilinear.tokens(tiny.llama(), tiny.tokenizer(), "w1", maps=maps)
    other = tiny.tokenizer()
    other.add_tokens(["w1 w2"])
    with pytest.raises(rectilinear.ResultError, match="expected maps fitted with the tokenizer of Llama"):
        rectilinear.tokens(model, other, "w1", maps=maps)
