"""What a normalisation's adjoint leaves of a gradient's sums over positions, against simulation."""

import numpy as np
import pytest

from firstlight.graph.signal import Array, Signal
from firstlight.rules.state.projection import composed, divided, projected

GROUPS, CHANNELS, PLACES, DRAWS = 2, 4, 9, 10_000


def signal(cube: Array) -> Signal:
    one = np.ones((1, 1, 1))
    return Signal(((GROUPS,), (CHANNELS,), (PLACES,)), 0.0 * one, one, cube, (True, False, False))


def cube_of(x: Array) -> tuple[Array, Array]:
    """Mean pair moments at each index of the cube, with their standard errors; x has a row per draw."""
    out, error = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    for d in np.ndindex(2, 2, 2):
        y = x
        for axis, other in enumerate(d):
            # all pairs, less the equal ones
            y = y if not other else y.sum(axis=axis + 1, keepdims=True) - y
        pairs = (GROUPS - 1) ** d[0] * (CHANNELS - 1) ** d[1] * (PLACES - 1) ** d[2]
        rows = (x * y).reshape(len(x), -1).mean(axis=1) / pairs
        out[d], error[d] = rows.mean(), rows.std() / len(rows) ** 0.5
    return out, error


def gaussian(rng: np.random.Generator, common: float) -> Array:
    """Unit variance, of which positions of one channel have a share in common."""
    apart = rng.standard_normal((DRAWS, GROUPS, CHANNELS, PLACES))
    return common**0.5 * rng.standard_normal((DRAWS, GROUPS, CHANNELS, 1)) + (1.0 - common) ** 0.5 * apart


@pytest.mark.parametrize(("common_x", "common_g"), [(0.0, 0.0), (0.3, 0.0), (0.6, 0.0), (0.0, 0.4)])
def test_cube_of_a_projected_gradient(common_x: float, common_g: float) -> None:
    """A tensor that channels have in common over positions takes of the gradient's sums more than of its entries."""
    rng = np.random.default_rng(4)
    x, g = gaussian(rng, common_x), gaussian(rng, common_g)
    x = x - x.mean(axis=(2, 3), keepdims=True)
    hat = x / np.sqrt(np.square(x).mean(axis=(2, 3), keepdims=True))
    left = g - g.mean(axis=(2, 3), keepdims=True) - hat * (g * hat).mean(axis=(2, 3), keepdims=True)
    mine = np.zeros((2, 2, 2))
    mine[0, 0] = 1.0, common_g
    share, corr = projected(signal(mine), signal(cube_of(hat)[0]), (1, 2), centre=True, kept=1.0)
    drawn, error = cube_of(left)
    assert np.all(np.abs(share * corr - drawn) < 4.0 * error + 1e-12), (share * corr, drawn, error)
    total = share * (1.0 + (PLACES - 1.0) * corr[0, 0, 1])  # of one channel's sum over positions
    sums = np.square(left.sum(axis=3)).mean(axis=(1, 2)) / PLACES
    assert abs(total - sums.mean()) < 4.0 * sums.std() / DRAWS**0.5


def test_composition_is_a_matrix_product() -> None:
    """On exchangeable indices cubes multiply like the matrices that they stand for."""
    rng = np.random.default_rng(5)
    f, h = rng.standard_normal((2, 2, 2)), rng.standard_normal((1, 2, 2))

    def matrix(cube: Array) -> Array:
        index = np.array(list(np.ndindex(GROUPS, CHANNELS, PLACES)))
        apart = (index[:, None] != index[None]).astype(int)
        full = cube if cube.shape[0] == 2 else np.concatenate([cube, 0.0 * cube])
        return full[apart[..., 0], apart[..., 1], apart[..., 2]]

    got = composed(f, h, (GROUPS, CHANNELS, PLACES), (1, 2))
    np.testing.assert_allclose(matrix(got), matrix(f) @ matrix(h), atol=1e-9)


def test_next_neighbours_keep_row_sums() -> None:
    """With a third state, for next neighbours, what is composed has the product of the row sums."""
    f, h, n = np.array([1.0, 0.1, 0.5]), np.array([1.0, -0.05, 0.3]), 7
    weights = np.array([1.0, n - 1.0 - 2.0 * (n - 1.0) / n, 2.0 * (n - 1.0) / n])
    got = composed(f, h, (n,), (0,))
    assert float(got @ weights) == pytest.approx(float(f @ weights) * float(h @ weights))
    assert got[0] == pytest.approx(float(f * h @ weights))


@pytest.mark.parametrize(("samples", "places", "common"), [(4, 16, 0.6), (8, 4, 0.3), (2, 16, 0.3)])
def test_pairs_of_a_tensor_divided_by_its_length(samples: int, places: int, common: float) -> None:
    """Few samples with places that are alike: what goes along with all others is divided by more.

    What is left out is of second order in the variance of v̂, and the sum over a group is nothing in every draw.
    """
    rng = np.random.default_rng(6)
    apart = rng.standard_normal((2 * DRAWS, samples, places))
    x = common**0.5 * rng.standard_normal((2 * DRAWS, samples, 1)) + (1.0 - common) ** 0.5 * apart
    x -= x.mean(axis=(1, 2), keepdims=True)
    v = np.square(x).mean(axis=(1, 2))
    spread = float(v.var() / v.mean() ** 2)

    def pairs(y: Array) -> tuple[Array, Array]:
        """Another place, another sample's, and its standard errors."""
        mine = np.square(y.sum(axis=2)).sum(axis=1)
        square, total = np.square(y).sum(axis=(1, 2)), np.square(y.sum(axis=(1, 2)))
        rows = np.stack([
            (mine - square) / (samples * places * (places - 1)),
            (total - mine) / (samples * (samples - 1) * places**2),
        ])  # fmt: skip
        return rows.mean(axis=1), rows.std(axis=1) / len(y) ** 0.5

    raw = pairs(x)[0] / v.mean()
    cube = np.array([[1.0, raw[0]], [raw[1], raw[1]]])
    found = divided(cube, (samples, places), (0, 1), spread)
    drawn, error = pairs(x / np.sqrt(v)[:, None, None])
    assert np.all(np.abs(found[[0, 1], [1, 0]] - drawn) < 4.0 * error + spread**2)
    assert np.all(np.abs(raw - drawn) > 4.0 * error)
    weights = np.multiply.outer([1.0, samples - 1.0], [1.0, places - 1.0])
    assert abs(float((found * weights).sum())) < 1e-9 * samples * places


@pytest.mark.parametrize(("channels", "places", "common"), [(8, 16, 0.5), (4, 8, 0.3), (16, 4, 0.7)])
def test_pairs_of_two_tensors_each_divided_by_its_length(channels: int, places: int, common: float) -> None:
    """Two samples whose few channels have a part in common: long where that is large, so that less of it is left."""
    rng = np.random.default_rng(7)
    apart = rng.standard_normal((2 * DRAWS, 2, channels, places))
    x = common**0.5 * rng.standard_normal((2 * DRAWS, 1, channels, 1)) + (1.0 - common) ** 0.5 * apart
    x -= x.mean(axis=(2, 3), keepdims=True)
    v = np.square(x).mean(axis=(2, 3), keepdims=True)
    spread = float(v[:, 0].var() / v.mean() ** 2)

    def cube(y: Array) -> tuple[Array, Array]:
        """Pairs by sample, channel and place, the same one or another; standard errors."""
        found = np.empty((len(y), 2, 2, 2))
        for b, c, p in np.ndindex(2, 2, 2):
            one, two = y[:, 0], y[:, b]
            each = (one * two).sum(axis=(1, 2))
            rows = (one.sum(axis=2) * two.sum(axis=2)).sum(axis=1)
            columns = (one.sum(axis=1) * two.sum(axis=1)).sum(axis=1)
            total = one.sum(axis=(1, 2)) * two.sum(axis=(1, 2))
            kinds = {(0, 0): each, (0, 1): rows - each, (1, 0): columns - each, (1, 1): total - rows - columns + each}
            count = channels * places * (channels - 1.0) ** c * (places - 1.0) ** p
            found[:, b, c, p] = kinds[c, p] / count
        return found.mean(axis=0), found.std(axis=0) / len(y) ** 0.5

    raw = cube(x)[0] / float(v.mean())
    found = divided(raw / raw[0, 0, 0], (2, channels, places), (1, 2), spread)
    drawn, error = cube(x / np.sqrt(v))
    assert np.all(np.abs(found - drawn)[1] < 4.0 * error[1] + spread**2)
    assert abs(raw[1, 0, 0] - drawn[1, 0, 0]) > 4.0 * error[1, 0, 0]
    alike = raw[1, 0, 0] * (1.0 - (1.0 - raw[1, 0, 0] ** 2) * spread / 4.0)  # were all entries independent
    assert abs(found[1, 0, 0] - drawn[1, 0, 0]) < abs(alike - drawn[1, 0, 0])
