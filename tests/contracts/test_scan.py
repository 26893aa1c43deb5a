import pytest
import torch
from families import ENCODERS, FAMILIES, VOCAB

import rectilinear
from rectilinear.models.stack import decoder_stack, forward, watch

ALL = {**FAMILIES, **ENCODERS}
IDS = torch.randint(1, VOCAB, (8, 32), generator=torch.Generator().manual_seed(1))


def two_pass(x, y):
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    basis, values, _ = torch.linalg.svd(x, full_matrices=False)
    basis = basis[:, values > values[0] * 1e-6]
    return float(1 - (y - basis @ (basis.T @ y)).square().sum() / y.square().sum())


def streams(model, ids):
    seen = {}
    stack = decoder_stack(model)
    with torch.inference_mode(), watch(stack, lambda i, x, y: seen.update({i: (x.clone(), y.clone())})):
        forward(model, stack, ids, None)
    return seen


@pytest.mark.parametrize("name", ALL)
def test_paper_scores_equal_two_pass_svd(name):
    model = ALL[name]()
    result = rectilinear.scan(model, input_ids=IDS, submodules=True)
    for i, (x, y) in streams(model, IDS).items():
        x, y = (part.reshape(-1, part.shape[-1]) for part in (x, y))
        assert result.layers[i].score.paper == pytest.approx(two_pass(x, y), abs=1e-6)
        assert result.layers[i].increment.paper == pytest.approx(two_pass(x, y.double() - x.double()), abs=1e-5)
        assert [part.name for part in result.layers[i].submodules] == ["attention", "mlp"]
        for part in result.layers[i].submodules:
            assert 0 <= part.score.paper <= 1


@pytest.mark.parametrize("name", ALL)
def test_padding_does_not_count(name):
    model = ALL[name]()
    short = rectilinear.scan(model, input_ids=IDS[:, :20], holdout=0)
    padded, mask = IDS.clone(), torch.ones_like(IDS)
    padded[:, 20:] = 0
    mask[:, 20:] = 0
    masked = rectilinear.scan(model, input_ids=padded, attention_mask=mask, holdout=0)
    for a, b in zip(short.layers, masked.layers, strict=True):
        assert a.score.paper == pytest.approx(b.score.paper, abs=1e-5)
