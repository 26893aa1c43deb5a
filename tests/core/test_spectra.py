import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from rectilinear.core.spectra import anisotropy, effective_rank, two_nn


def cube(dimension, n=1_500, ambient=50, seed=0):
    """Points [n, ambient] of a uniform cube, turned into a larger space."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(ambient, dimension)))[0]
    return torch.tensor(rng.random((n, dimension)) @ basis.T, dtype=torch.float32)


def neighbours(points):
    """Distances and indices [n, 2] of the two nearest others, float64."""
    nearest = NearestNeighbors(n_neighbors=3, algorithm="brute", metric="sqeuclidean").fit(points)
    index = nearest.kneighbors(points)[1][:, 1:]
    return np.linalg.norm(points[index] - points[:, None], axis=2), index


def brute_force(points, discard=0.1):
    """Facco's fit, written out in float64."""
    distances, _ = neighbours(np.unique(points.double().numpy(), axis=0))
    x = np.log(np.sort(distances[:, 1] / distances[:, 0]))
    kept = int(len(x) * (1 - discard))
    y = -np.log1p(-np.arange(1, kept + 1) / len(x))
    return x[:kept] @ y / (x[:kept] @ x[:kept])


def right_by_products(points):
    """Share of points whose nearest neighbour plain float32 products find."""
    squares = points.square().sum(1)
    distances = squares[:, None] + squares - 2 * points @ points.T
    found = distances.fill_diagonal_(torch.inf).argmin(1).numpy()
    return (found == neighbours(points.double().numpy())[1][:, 0]).mean()


@pytest.mark.parametrize(("dimension", "tolerance"), [(2, 0.1), (5, 0.1), (10, 0.15)])
def test_two_nn_finds_the_dimension_of_a_cube(dimension, tolerance):
    # Boundaries lower the estimate, the more the higher the dimension.
    assert two_nn(cube(dimension)) == pytest.approx(dimension, rel=tolerance)


@pytest.mark.parametrize("block", [7, 512, 4096])
@pytest.mark.parametrize("discard", [0.0, 0.1, 0.5])
def test_two_nn_equals_brute_force_in_any_block(block, discard):
    points = cube(5, n=400)
    kept_below_one = max(discard, 1 / 400)  # F = 1 is always left out
    expected = brute_force(points, kept_below_one)
    assert two_nn(points, discard=discard, block=block) == pytest.approx(expected, rel=1e-5)


def test_an_offset_breaks_products_but_not_two_nn():
    near = cube(5, n=600).double()
    far = (near + 1e4).float()
    expected = brute_force(far)
    assert right_by_products(near.float()) == 1
    assert right_by_products(far) < 0.1
    assert two_nn(far) == pytest.approx(expected, rel=1e-5)
    assert two_nn(near + 1e4) == pytest.approx(two_nn(near), rel=1e-3)


def test_massive_rows_break_centred_products_but_not_two_nn():
    points = cube(5, n=600)
    points[:200, 3] += 3e4  # centring cannot bring both groups near zero
    expected = brute_force(points)
    assert right_by_products(points - points.mean(0)) < 0.1
    assert two_nn(points) == pytest.approx(expected, rel=1e-5)


def test_repeated_points_count_once():
    points = cube(3, n=300)
    repeated = torch.cat([points, points[:1].expand(50, -1), points[:40]])
    assert two_nn(repeated) == pytest.approx(two_nn(points), rel=1e-4)


def test_two_nn_ignores_scale_shift_and_rotation():
    points = cube(4, n=500)
    turn = torch.linalg.qr(torch.randn(50, 50, generator=torch.Generator().manual_seed(0)))[0]
    assert two_nn((3 * points + 1) @ turn) == pytest.approx(two_nn(points), rel=1e-3)


def test_two_nn_is_none_where_points_do_not_tell():
    assert two_nn(cube(2, n=9)) is None
    assert two_nn(cube(2, n=9).repeat(5, 1)) is None
    assert two_nn(torch.zeros(0, 4)) is None
    assert two_nn(torch.eye(20)) is None  # all equally far: every ratio is 1
    assert two_nn(cube(2, n=10)) > 0


def test_figures_of_known_spectra():
    flat, line = torch.full((8,), 3.0), torch.tensor([5.0, 0.0, 0.0])
    assert (anisotropy(flat), effective_rank(flat)) == (pytest.approx(1 / 8), pytest.approx(8))
    assert (anisotropy(line), effective_rank(line)) == (1, pytest.approx(1))
    assert effective_rank(torch.tensor([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)


def test_spectra_ignore_scale_order_and_rounding_below_zero():
    values = torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    other = torch.cat([1e6 * values.flip(0), torch.tensor([-1e-9, 0.0, 1e-320], dtype=torch.float64)])
    assert anisotropy(other) == pytest.approx(anisotropy(values), rel=1e-12)
    assert effective_rank(other) == pytest.approx(effective_rank(values), rel=1e-12)


def test_no_variance_has_no_shape():
    for nothing in (torch.zeros(4), torch.tensor([-1e-12, 0.0]), torch.zeros(0)):
        assert anisotropy(nothing) is None
        assert effective_rank(nothing) is None
