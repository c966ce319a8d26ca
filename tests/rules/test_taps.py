"""Which taps pairs of windows share, counted one by one; what zeros around an image do, against drawn convolutions."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstlight
from firstlight.graph.signal import Signal, replace
from firstlight.rules.convolutions import borders, taps
from firstlight.rules.convolutions.taps import Taps
from firstlight.rules.state.layout import profile, promote

WINDOWS = [
    Taps(6, 6, 3, 1, 1, 1),
    Taps(7, 4, 3, 2, 1, 1),
    Taps(9, 9, 3, 1, 2, 2),
    Taps(4, 8, 2, 2, 0, 1, transposed=True),
    Taps(5, 9, 3, 2, 1, 1, transposed=True),
    Taps(4, 4, 4, 1, 0, 1, transposed=True),
]


def state(i: int, j: int) -> int:
    return 0 if i == j else 2 if abs(i - j) == 1 else 1


@pytest.mark.parametrize("windows", WINDOWS)
def test_shared_taps_are_those_counted_pair_by_pair(windows: Taps) -> None:
    read = taps.inputs(windows)
    counted, pairs = np.zeros((3, 3)), np.zeros(3)
    for s, r in itertools.product(range(windows.out), repeat=2):
        pairs[state(s, r)] += 1
        for i, j in zip(read[s], read[r], strict=True):
            if i >= 0 and j >= 0:
                counted[state(s, r), state(i, j)] += 1
    expected = counted / np.maximum(pairs, 1)[:, None]
    for row in (0, 1, 2):
        if pairs[row]:
            assert np.allclose(taps.shared(windows, 3)[row], expected[row]), row


@pytest.mark.parametrize("windows", WINDOWS)
def test_windows_are_those_of_torch(windows: Taps) -> None:
    x = torch.randn(1, 1, windows.size, dtype=torch.float64)
    w = torch.ones(1, 1, windows.kernel, dtype=torch.float64)
    given = {"stride": windows.stride, "padding": windows.padding, "dilation": windows.dilation}
    y = (F.conv_transpose1d if windows.transposed else F.conv1d)(x, w, **given)[0, 0, : windows.out]
    assert np.allclose(taps.matrix(windows) @ x[0, 0].numpy(), y.numpy())
    back = taps.turned(taps.turned(windows))
    assert back == windows


def image(samples: int, size: int, alike: float, between: float) -> tuple[np.ndarray, Signal]:
    """Pair moments of one channel of an image, and the signal that says them."""
    corr = np.array([1.0, alike])
    cube = np.stack([np.multiply.outer(corr, corr), np.full((2, 2), between)])[:, None]
    cube = np.concatenate([cube, np.zeros_like(cube)], axis=1)
    x = Signal(
        ((samples,), (8,), (size,), (size,)), np.zeros((1,) * 4), np.ones((1,) * 4), cube, (True,) + (False,) * 3
    )
    i = np.arange(size)
    line = np.where(i[:, None] == i[None, :], 1.0, alike)
    inside = np.multiply.outer(line, line).transpose(0, 2, 1, 3).reshape(size**2, size**2)
    whole = np.full((samples, samples, size**2, size**2), between)
    whole[np.arange(samples), np.arange(samples)] = inside
    return whole.transpose(0, 2, 1, 3).reshape(samples * size**2, -1), x


@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize(("size", "alike", "between"), [(4, 0.7, 0.6), (6, 0.9, 0.3)])
def test_what_centring_leaves_of_a_convolution_with_zeros_around(
    size: int, alike: float, between: float, states: int
) -> None:
    """κ of a 3×3 convolution written out as a matrix: the mean square of each place, and the variance of their mean."""
    samples = 3
    pairs, x = image(samples, size, alike, between)
    x = replace(x, corr=promote(x.corr, (2, 2, states, states)))
    windows = Taps(size, size, 3, 1, 1)
    read = taps.inputs(windows)
    moments = np.zeros((samples, size, size, samples, size, size))
    whole = pairs.reshape(samples, size, size, samples, size, size)
    padded = np.zeros((samples, size + 1, size + 1, samples, size + 1, size + 1))
    padded[:, :size, :size, :, :size, :size] = whole  # the last line, -1, stands for outside
    for a, b in itertools.product(range(3), repeat=2):
        moments += padded[:, read[:, a]][:, :, read[:, b]][:, :, :, :, read[:, a]][..., read[:, b]]
    kernel = moments.reshape(samples * size**2, -1)
    n = len(kernel)
    centre = np.eye(n) - 1.0 / n
    kappa = centre @ kernel @ centre
    q = np.einsum("bhwbhw->bhw", moments).mean(axis=0)[None, None]
    y = replace(x, q=q, ident=x.ident + 10**9)
    y = replace(y, border=(y.ident, borders.border(x, 1, {2: windows, 3: windows}, 1.0)))
    found = borders.centred(y, [0, 2, 3], float(kernel.mean()))
    assert found is not None
    assert np.allclose(found.q[0, 0], np.diag(kappa).reshape(samples, size, size).mean(axis=0), rtol=1e-9)
    assert np.isclose(found.spread, 2.0 * np.square(kappa).sum() / np.trace(kappa) ** 2, rtol=1e-9)
    sample, *places = np.indices((samples, size, size)).reshape(3, n)
    apart = [np.abs(p[:, None] - p) for p in places]
    near = x.corr.shape[2] - 1  # same, far, next
    state = [np.where(d == 0, 0, np.where(d == 1, near, 1)) for d in apart]
    for b, i, j in itertools.product(range(2), range(near + 1), range(near + 1)):
        pairs = ((sample[:, None] != sample) == b) & (state[0] == i) & (state[1] == j)
        left = kernel[pairs].mean() - kernel.mean() * found.taken[0, 0, i, j]
        assert np.isclose(left, kappa[pairs].mean(), atol=1e-9), (b, i, j)


def test_a_border_belongs_to_the_convolution_alone() -> None:
    _, x = image(2, 4, 0.5, 0.5)
    windows = Taps(4, 4, 3, 1, 1)
    x = replace(x, border=(x.ident, borders.border(x, 1, {2: windows, 3: windows}, 1.0)))
    assert borders.known(x) is not None
    assert borders.known(replace(x, ident=x.ident + 1)) is None


def test_two_kinds_of_windows_of_a_transposed_convolution_share_nothing() -> None:
    """Of 2×2 windows of stride 2 a quarter of the positions share their one tap: the others are alike by nothing."""
    torch.manual_seed(0)
    stack = nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1, bias=False), nn.ReLU(), nn.ConvTranspose2d(48, 48, 2, stride=2, bias=False)
    )
    x = torch.randn(4, 3, 8, 8)
    told = firstlight.predict(stack, x, scheme="he").nodes[-1].output.c_position
    draws = []
    for _ in range(60):
        for m in (stack[0], stack[2]):
            nn.init.normal_(m.weight, std=0.1)
        with torch.no_grad():
            y = F.normalize(stack(x).flatten(2), dim=1)
        n = y.shape[-1]
        draws.append(float(((y.sum(-1).square().sum(-1) - n) / (n * (n - 1))).mean()))
    error = np.std(draws) / len(draws) ** 0.5
    assert told is not None
    assert abs(told - np.mean(draws)) < 4.0 * error + 0.01  # the cosine of 48 entries is not quite the correlation


def test_sizes_that_are_no_products_over_the_axes() -> None:
    """Four large corners: what a place has in common goes with its own size, and centring takes away what it takes."""
    _, x = image(2, 4, 0.9, 0.9)
    cube = np.full(x.corr.shape, 0.9)
    cube[0, :, 0, 0], cube[:, 1] = 1.0, 0.0
    x, q = replace(x, corr=cube), np.full((1, 1, 4, 4), 0.2)
    q[..., ::3, ::3] = 1.8
    alone = Taps(4, 4, 1)
    y = replace(x, q=q)
    y = replace(y, border=(y.ident, borders.border(y, 1, {2: alone, 3: alone}, float(q.mean()))))
    root = np.sqrt(q)
    common = 0.9 * float(root.mean()) ** 2
    found = borders.centred(y, [0, 2, 3], common)
    assert found is not None
    assert np.isclose(found.q.mean(), q.mean() - common)
    exact = q - 2.0 * 0.9 * root * root.mean() + common  # but for the pairs of each entry with itself, one in 32
    assert np.allclose(found.q, exact, atol=2.0 * (1.0 - 0.9) * q.max() / 32), (found.q, exact)


@pytest.mark.parametrize(("sizes", "states"), [((5, 4), (3, 3)), ((6, 3), (3, 2)), ((2, 5), (2, 3)), ((7, 1), (3, 2))])
def test_the_profile_of_a_field_is_its_mean_over_the_pairs_of_each_kind(
    sizes: tuple[int, int], states: tuple[int, int]
) -> None:
    """Neighbours lie further inside than other pairs: where the middle is large, they are."""
    q = np.random.default_rng(0).uniform(0.2, 2.0, sizes)
    found = np.broadcast_to(profile(q, states), states)
    places = np.indices(sizes).reshape(2, -1)
    kinds = []
    for p, count in zip(places, states, strict=True):
        apart = np.abs(p[:, None] - p)
        kinds.append(np.where(apart == 0, 0, np.where((apart == 1) & (count == 3), 2, 1)))
    pairs = np.sqrt(np.outer(q.ravel(), q.ravel())) / q.mean()
    for i, j in itertools.product(*map(range, states)):
        chosen = (kinds[0] == i) & (kinds[1] == j)
        if chosen.any():
            assert np.isclose(found[i, j], pairs[chosen].mean()), (i, j)
