from itertools import pairwise

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import cosine_similarity

from rectilinear.core.linear import scores
from rectilinear.core.moments import Moments
from rectilinear.core.penalties import cosine_penalty, increment_penalty, mse_penalty
from rectilinear.errors import RectilinearError

MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]])


def stream(layers=3, b=4, w=5, d=3, dtype=torch.float64, seed=0, grad=True):
    torch.manual_seed(seed)
    steps = torch.randn(layers + 1, b, w, d, dtype=dtype).cumsum(0)
    return [step.clone().requires_grad_(grad) for step in steps]


def by_hand(positions, mask, layers, distance):
    """The paper's formula, token by token."""
    total = 0.0
    real = mask.nonzero().tolist()
    for row, place in real:
        for i in layers:
            total += distance(positions[i][row, place], positions[i + 1][row, place])
    return total / len(real)


@pytest.mark.parametrize(
    ("penalty", "distance"),
    [
        (cosine_penalty, lambda x, y: 1 - cosine_similarity(x, y, dim=0)),
        (mse_penalty, lambda x, y: (y - x).square().sum()),
    ],
)
@pytest.mark.parametrize("layers", [None, (1,), (0, 2)])
def test_a_penalty_is_the_papers_formula_averaged_over_real_tokens(penalty, distance, layers):
    positions = stream()
    wanted = by_hand(positions, MASK, range(3) if layers is None else layers, distance)
    found = penalty(positions, MASK, layers=layers)
    torch.testing.assert_close(found, wanted)
    every = by_hand(positions, torch.ones_like(MASK), range(3) if layers is None else layers, distance)
    torch.testing.assert_close(penalty(positions, layers=layers), every)
    assert not torch.isclose(found, every)
    for ours, theirs in zip(
        torch.autograd.grad(found, positions, allow_unused=True),
        torch.autograd.grad(wanted, positions, allow_unused=True),
        strict=True,
    ):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "penalty",
    [cosine_penalty, mse_penalty, lambda positions, mask: increment_penalty(positions, mask, target=0.1)],
    ids=["cosine", "mse", "increment"],
)
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_gradients_are_those_of_the_value(penalty, mask):
    assert gradcheck(lambda *positions: penalty(positions, mask), stream())


@pytest.mark.parametrize("penalty", [cosine_penalty, mse_penalty])
def test_halves_are_computed_in_float32_and_get_gradients_of_their_own_type(penalty):
    halves = stream(layers=1, d=64, dtype=torch.bfloat16)
    wide = [h.detach().float().requires_grad_() for h in halves]
    with torch.autocast("cpu", torch.bfloat16):
        found = penalty(halves)
    wanted = penalty(wide)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    found.backward()
    wanted.backward()
    for half, whole in zip(halves, wide, strict=True):
        assert half.grad.dtype == torch.bfloat16
        torch.testing.assert_close(half.grad.float(), whole.grad, rtol=0.01, atol=1e-6)


def test_a_row_of_zeros_counts_as_orthogonal_and_pulls_at_nothing():
    x = torch.zeros(1, 2, 4, requires_grad=True)
    y = torch.ones(1, 2, 4, requires_grad=True)
    found = cosine_penalty([x, y])
    assert found == 1
    found.backward()
    assert not x.grad.any() and not y.grad.any()


def test_the_increment_penalty_is_the_scans_score_on_the_same_rows():
    positions = stream(layers=2, b=8, w=16, d=4)
    mask = torch.ones(8, 16)
    mask[:, 10:] = 0
    found = increment_penalty(positions, mask, target=0.25)
    wanted = 0.0
    for x, y in pairwise(positions):
        moments = Moments.empty(4, 4)
        a, b = (v.detach()[mask != 0] for v in (x, y))
        moments.update(a, b - a)
        wanted += (scores(moments).increment - 0.25) ** 2
    assert found.item() == pytest.approx(wanted, rel=1e-9)


def test_the_increment_penalty_moves_the_score_to_its_target():
    torch.manual_seed(0)
    x = torch.randn(4, 64, 8)
    z = (x @ torch.randn(8, 8) + 0.1 * torch.randn(4, 64, 8)).requires_grad_()
    optimizer = torch.optim.Adam([z], 0.05)

    def score():
        moments = Moments.empty(8, 8)
        moments.update(x.flatten(0, 1), z.detach().flatten(0, 1))
        return scores(moments).increment

    assert score() > 0.95
    for _ in range(300):
        optimizer.zero_grad()
        increment_penalty([x, x + z], target=0.4).backward()
        optimizer.step()
    assert score() == pytest.approx(0.4, abs=0.01)


def test_a_contribution_that_does_not_vary_scores_nothing_and_pulls_at_nothing():
    x = torch.randn(2, 16, 4)
    y = (x + 1).requires_grad_()
    found = increment_penalty([x, x.clone().requires_grad_()], target=0.5)
    assert found.item() == pytest.approx(0.25)
    increment_penalty([x, y], target=0.0).backward()
    assert torch.isfinite(y.grad).all()


def test_too_few_tokens_for_an_increment_score_are_refused():
    with pytest.raises(RectilinearError, match=r"expected 12 tokens or more .* width 3, got 10"):
        increment_penalty(stream(b=2), target=0.0)
