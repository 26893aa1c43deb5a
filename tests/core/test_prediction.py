import pytest
import torch

from rectilinear.core import prediction
from rectilinear.core.bootstrap import mean_interval
from rectilinear.core.prediction import divergences, leading, predictions, standing

G = torch.Generator().manual_seed(0)
LOGITS, OTHER = (torch.randn(40, 11, generator=G) * 4 for _ in range(2))
ROWS = torch.tensor([0, 3, 5, 39, 7, 8])
TARGETS = torch.tensor([1, 2, 3, 4, 10, 0])


@pytest.fixture(params=[1, 25, 1 << 23])
def chunk(request, monkeypatch):
    monkeypatch.setattr(prediction, "CHUNK", request.param)


def test_nats_are_torch_cross_entropy(chunk):
    nats, hits = predictions(LOGITS, ROWS, TARGETS)
    expected = torch.nn.functional.cross_entropy(LOGITS[ROWS].double(), TARGETS, reduction="none")
    assert nats.dtype == torch.float64
    torch.testing.assert_close(nats, expected, rtol=1e-6, atol=1e-6)
    assert hits.tolist() == (LOGITS[ROWS].argmax(1) == TARGETS).tolist()


def test_divergence_is_the_sum_of_p_log_p_over_q(chunk):
    kl, agree = divergences(LOGITS, OTHER, ROWS)
    p, q = OTHER[ROWS].double().softmax(1), LOGITS[ROWS].double().softmax(1)
    torch.testing.assert_close(kl, (p * (p / q).log()).sum(1), rtol=1e-5, atol=1e-6)
    assert agree.tolist() == (LOGITS[ROWS].argmax(1) == OTHER[ROWS].argmax(1)).tolist()
    assert (kl - divergences(OTHER, LOGITS, ROWS)[0]).abs().max() > 0.1  # it has a direction


def test_divergence_from_itself_is_zero_exactly(chunk):
    kl, agree = divergences(LOGITS, LOGITS, ROWS)
    assert kl.tolist() == [0.0] * 6
    assert agree.all()


def test_a_token_both_rule_out_makes_no_nan():
    model, other = LOGITS.clone(), OTHER.clone()
    model[:, 4] = other[:, 4] = -torch.inf
    kl, _ = divergences(model, other, ROWS)
    kept = [i for i in range(11) if i != 4]
    torch.testing.assert_close(kl, divergences(LOGITS[:, kept], OTHER[:, kept], ROWS)[0])


def test_half_precision_is_raised_before_the_sum():
    half = LOGITS.bfloat16()
    nats, _ = predictions(half, ROWS, TARGETS)
    expected = torch.nn.functional.cross_entropy(half[ROWS].double(), TARGETS, reduction="none")
    torch.testing.assert_close(nats, expected, rtol=1e-6, atol=1e-6)


def test_no_float32_copy_of_more_than_a_chunk(monkeypatch):
    monkeypatch.setattr(prediction, "CHUNK", 33)
    seen = []
    raised = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda self: seen.append(self.numel()) or raised(self))
    predictions(LOGITS, ROWS, TARGETS)
    divergences(LOGITS, OTHER, ROWS)
    assert max(seen) == 33 < LOGITS.numel()


def test_mean_interval_covers_the_mean():
    counts = torch.randint(5, 20, (200,), generator=G).double()
    sums = counts * (3 + torch.randn(200, generator=G).double())
    low, high = mean_interval(sums, counts)
    assert low < float(sums.sum() / counts.sum()) < high
    assert mean_interval(sums[:1], counts[:1]) == (None, None)


def test_the_leading_token_and_the_standing_of_another():
    logits, targets = LOGITS[ROWS], TARGETS
    p = logits.double().softmax(1)
    token, probability = leading(logits)
    assert token.tolist() == p.argmax(1).tolist()
    torch.testing.assert_close(probability.double(), p.max(1).values, rtol=1e-5, atol=1e-7)
    rank, own = standing(logits, targets)
    order = p.argsort(1, descending=True)
    assert rank.tolist() == [1 + row.tolist().index(t) for row, t in zip(order, targets.tolist(), strict=True)]
    torch.testing.assert_close(own.double(), p.gather(1, targets[:, None])[:, 0], rtol=1e-5, atol=1e-9)
    assert [part.tolist() for part in standing(logits[:0], targets[:0])] == [[], []]
