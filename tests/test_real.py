"""The claims that need the real 135M-parameter model and real text."""

import gzip

import pytest
import torch

import rectilinear
from rectilinear.models.stack import decoder_stack, forward, watch

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def wikitext(data):
    model, tokenizer = rectilinear.load("demo")
    with gzip.open(data / "wikitext2" / "wikitext2_valid.txt.gz", "rt", encoding="utf-8") as file:
        ids = tokenizer(file.read()[:120_000], verbose=False)["input_ids"][:16_384]
    ids = torch.tensor(ids).view(-1, 512)
    return model, ids, rectilinear.scan(model, tokenizer, input_ids=ids)


def explained(basis, y):
    y = y - y.mean(0)
    return float(1 - (y - basis @ (basis.T @ y)).square().sum() / y.square().sum())


def test_scores_of_all_layers_equal_two_pass_svd(wikitext):
    model, ids, result = wikitext
    stack = decoder_stack(model)
    kept = []
    with torch.inference_mode(), watch(stack, lambda i, x, y: kept[-1].append((x, y))):
        for part in ids.split(4):
            kept.append([])
            forward(model, stack, part, None)
    for i, layer in enumerate(result.layers):
        x, y = (torch.cat([batch[i][j].reshape(-1, 576) for batch in kept]).double() for j in (0, 1))
        # Two passes in float64: centre, then project on the singular vectors of x.
        basis = torch.linalg.svd(x - x.mean(0), full_matrices=False).U
        assert layer.score.paper == pytest.approx(explained(basis, y), abs=1e-6)
        assert layer.increment.paper == pytest.approx(explained(basis, y - x), abs=1e-6)


def test_linearity_of_the_middle_layers_is_the_work_of_few_named_tokens(wikitext):
    _, _, result = wikitext
    for layer in result.layers[12:28]:
        assert layer.score.paper > 0.99
        assert layer.score.ordinary < layer.score.paper - 0.03
        assert layer.sinks.share_of_tokens < 0.005
        assert layer.sinks.variance_share > 0.8
        assert layer.sinks.tokens[0]["position"] == 0
