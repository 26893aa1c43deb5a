import pytest
import torch

from rectilinear.core import linear
from rectilinear.core.linear import AffineMap, Change
from rectilinear.ops.pair import JUDGED, Flow, HeldOut, Pair


def judged(dtype=torch.float32):
    """Return a pair that has judged 300 rows, of them 3 sinks, after 600 with 6, and the errors of the last ones."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(900, 32, generator=g, dtype=torch.float64)
    sinks = torch.arange(900) % 100 == 0
    x[sinks, 2] += 400
    z = 0.1 * torch.tanh(x @ torch.randn(32, 32, generator=g, dtype=torch.float64))
    z[sinks, 2] -= 300
    flow = [
        Flow.between(part.to(dtype), (part + more).to(dtype))
        for part, more in zip(x.split(600), z.split(600), strict=True)
    ]
    pair = Pair(32, torch.device("cpu"))
    pair.update(flow[0], sinks[:600])
    pair.start_heldout(2)
    return pair, pair.judge(flow[1], torch.arange(300) // 150, sinks[600:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_map_told_as_a_change_judges_as_the_whole_map(dtype, monkeypatch):
    pair, errors = judged(dtype)
    assert isinstance(pair.heldout.map, Change) and isinstance(pair.heldout_ordinary.map, AffineMap)
    monkeypatch.setattr(linear, "THIN", 100)
    other, expected = judged(dtype)
    assert isinstance(other.heldout.map, AffineMap)
    torch.testing.assert_close(errors, expected, rtol=1e-3, atol=1e-3)
    for name in ("heldout", "heldout_ordinary"):
        torch.testing.assert_close(getattr(pair, name).errors, getattr(other, name).errors, rtol=1e-5, atol=1e-5)
    assert float(pair.heldout.errors.sum()) > 2 * float(pair.heldout_ordinary.errors.sum())
    for ordinary in (False, True):
        one, two = pair.fitted(ordinary=ordinary), other.fitted(ordinary=ordinary)
        torch.testing.assert_close(one.weight, two.weight, rtol=1e-4, atol=1e-5)


def test_what_judges_is_the_same_to_the_bit_when_read_again():
    pair, _ = judged()
    for held in (pair.heldout, pair.heldout_ordinary):
        again = HeldOut.from_tensors(held.to_tensors())
        assert type(again.map) is type(held.map)
        for name, tensor in held.to_tensors().items():
            assert torch.equal(again.to_tensors()[name], tensor)


def test_pairs_judge_in_full_precision_whatever_the_process_has_set():
    pair, expected = judged()
    torch.set_float32_matmul_precision("medium")
    try:
        other, errors = judged()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(errors, expected)
    for name in JUDGED:  # errors, and totals about the centers
        assert torch.equal(getattr(other.heldout, name), getattr(pair.heldout, name)), name
