import numpy as np
import pytest
import torch

import rectilinear
import tiny
from rectilinear.core.grams import Grams
from rectilinear.core.linear import fit, scores
from rectilinear.core.moments import Moments
from rectilinear.errors import ModelError, TextError
from rectilinear.models.stack import decoder_stack, forward, watch
from rectilinear.ops.pairs import Spans, widest


def test_moments_of_a_pair_are_those_of_its_rows():
    draw = torch.Generator().manual_seed(0)
    stream = [torch.randn(300, 8, generator=draw) + 5]
    for _ in range(3):
        stream.append(stream[-1] + torch.tanh(stream[-1] @ torch.randn(8, 8, generator=draw)))
    grams = Grams(4, 8, width=2)
    for part in zip(*(x.split(100) for x in stream), strict=True):
        grams.update(part)
    assert len(grams._products) == Grams.blocks(4, 2) == 9
    for start, stop in ((0, 1), (1, 3), (2, 3)):
        direct = Moments.empty(8, 8)
        direct.update(stream[start], stream[stop] - stream[start])
        ours = grams.moments(start, stop)
        assert scores(ours).increment == pytest.approx(scores(direct).increment, abs=1e-5)
        torch.testing.assert_close(fit(ours).weight, fit(direct).weight, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(fit(ours).bias, fit(direct).bias, atol=1e-3, rtol=1e-3)
    with pytest.raises(KeyError):
        grams.moments(0, 3)


@pytest.fixture(scope="module")
def model():
    return tiny.llama(num_hidden_layers=4, initializer_range=0.1)


IDS = torch.randint(1, tiny.VOCAB, (40, 16), generator=torch.Generator().manual_seed(3))


def test_a_state_that_was_read_goes_where_the_rows_are():
    spans, device = Spans(2, 2), torch.device("meta")
    spans.fitted, spans.heldout = Grams(3, 4, width=2), Grams(3, 4, width=2)
    rows = torch.ones(5, 4, device=device)
    for layer in range(2):
        spans.take(layer, rows, rows, None, heldout=False)
    assert spans.fitted.n == 5 and spans.fitted.moments(0, 2).xx.device == device


def streams(model):
    stack, seen = decoder_stack(model), {}
    with torch.inference_mode(), watch(stack, lambda i, x, y: seen.update({i: x, i + 1: y})):
        forward(model, stack, IDS, None)
    return [seen[i].reshape(-1, seen[i].shape[-1]).double() for i in range(len(stack) + 1)]


def affine(x, y):
    one = torch.cat([x, torch.ones(len(x), 1).double()], 1)
    weight = torch.linalg.lstsq(one, y).solution
    return lambda rows: torch.cat([rows, torch.ones(len(rows), 1).double()], 1) @ weight


def test_spans_are_scored_on_unseen_rows_as_one_map_and_as_many(model):
    result = rectilinear.scan(model, input_ids=IDS, holdout=0.25, pairs=True)
    x = streams(model)
    fitted = 30 * 16
    single = [affine(x[i][:fitted], x[i + 1][:fitted]) for i in range(4)]
    for first, last in ((0, 0), (0, 3), (1, 2)):
        start, goal = x[first][fitted:], x[last + 1][fitted:]
        total = (goal - goal.mean(0)).square().sum()
        whole = affine(x[first][:fitted], x[last + 1][:fitted])(start)
        assert result.arrays["span_score"][first, last] == pytest.approx(
            1 - float((goal - whole).square().sum() / total), abs=1e-4
        )
        turn = start
        for layer in range(first, last + 1):
            turn = single[layer](turn)
        assert result.arrays["span_composed"][first, last] == pytest.approx(
            1 - float((goal - turn).square().sum() / total), abs=1e-4
        )
    below = np.tril_indices(4, -1)
    assert np.isnan(result.arrays["span_score"][below]).all()
    assert result.arrays["span_increment"][2, 2] == pytest.approx(result.layers[2].increment.ordinary, abs=1e-4)


def test_the_folder_has_a_figure_of_the_spans(model, tmp_path):
    out = rectilinear.scan(model, input_ids=IDS, pairs=True).save(tmp_path / "scan")
    assert (out / "plots" / "pairs.svg").exists()
    assert "figure-pairs" in (out / "report.html").read_text()
    plain = rectilinear.scan(model, input_ids=IDS).save(tmp_path / "plain")
    assert not (plain / "plots" / "pairs.svg").exists()


def test_a_limit_of_memory_cuts_the_longest_span(model):
    full = 2 * 8 * 32 * 32 / 2**30  # a block of both sets
    assert widest(4, 32, full * Grams.blocks(5, 4)) == 4
    assert widest(4, 32, full * Grams.blocks(5, 3)) == 3
    with pytest.raises(ModelError, match="GiB"):
        widest(4, 32, full)
    result = rectilinear.scan(model, input_ids=IDS, pairs=True, pairs_memory=full * Grams.blocks(5, 2))
    known = ~np.isnan(result.arrays["span_score"])
    assert known.sum() == 4 + 3
    assert any("two layers" in note or "2 layers" in note for note in result.warnings)


def test_spans_need_text_held_out(model):
    with pytest.raises(TextError, match="holdout"):
        rectilinear.scan(model, input_ids=IDS, holdout=0, pairs=True)
