"""Sums of tensors of which sites have much of the one and little of the other, against sampled sites."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from firstlight.graph.ir import Node
from firstlight.graph.signal import Cotangent, replace
from firstlight.graph.sites import Sites
from firstlight.rules.chains.source import as_source, from_values
from firstlight.rules.gradients import leaning, unlike
from firstlight.rules.gradients.along import fresh, of_view, uneven
from firstlight.rules.gradients.seeds import random_direction
from firstlight.rules.linear.contraction import energy_cube, scatter_of
from firstlight.rules.moves.structural import like_shape
from firstlight.rules.pointwise.products import multiply
from firstlight.rules.reductions.reduction import reduced
from firstlight.rules.registry import Call
from firstlight.rules.state.empirical import uniform
from firstlight.rules.state.layout import axis_atoms
from tests.rules.test_along import INSIDE, Gated, Stream, against

SITES, UNITS = 400_000, 32


def _lengths(rng, scatter):
    """Variances of sites, of mean 1."""
    s2 = math.log1p(scatter)
    return np.exp(s2**0.5 * rng.standard_normal((SITES, 1)) - 0.5 * s2)


@pytest.mark.parametrize(
    ("other", "scatter", "lean", "known"),
    [
        (0.36, 0.3, -1.0, 0.0),
        (1.0, 0.3, -1.0, 0.0),
        (0.36, 0.3, 0.0, 1.0),
        (0.36, 0.3, -1.0, 0.5),
        (2.0, 0.0, -0.7, 0.2),
    ],
)
def test_what_the_terms_of_a_sum_have_of_its_gradient(other, scatter, lean, known):
    """Means over sites of (g·x)² and (g·y)², with |g|² ~ |z|^2λ and (g·z)² = known·|g|²|z|²/n."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((SITES, UNITS), dtype=np.float32)
    y = (other * _lengths(rng, scatter)) ** 0.5 * rng.standard_normal((SITES, UNITS), dtype=np.float32)
    z = x + y
    square = np.square(z).sum(axis=1, keepdims=True)
    g = rng.standard_normal((SITES, UNITS), dtype=np.float32)
    g += z * (g * z).sum(axis=1, keepdims=True) / square * (known**0.5 - 1.0)
    g *= (square / UNITS) ** (0.5 * lean)
    level = np.square(g).sum(axis=1).mean()
    one, two = uniform((64, UNITS), 0.0, 1.0), replace(uniform((64, UNITS), 0.0, other), scatter=scatter)
    found = unlike.shares(one, two, 1.0, other, 0.0, lean, known)
    total = ((g * z).sum(axis=1) ** 2).mean()
    for term, first in ((x, found.first), (y, 1.0 - found.first)):
        rows = (g * term).sum(axis=1) ** 2
        told = level * found.across + total * (first**2 + found.spread)
        error = rows.std() / SITES**0.5
        assert abs(told - rows.mean()) <= 4.0 * error + 0.004 * rows.mean()  # χ² of 32 units is taken as log-normal


def test_a_norm_before_a_gated_branch_knows_that_sites_differ():
    """Without it the gradients inside the norm were 10 to 25 % too large: long branches have short gradients."""
    torch.manual_seed(0)
    for name, off, error in against(Stream(Gated(UNITS)), torch.randn(24, UNITS), INSIDE, 96):
        assert abs(off) <= 0.08 + 3.0 * error, (name, off, error)


def test_products_scatter_as_products_of_squares():
    """E x⁴y⁴/(E x²y²)² = 9 of two normals: a map of 64 products has rows whose length scatters by 8/64."""
    x, y = uniform((16, 64), 0.0, 1.0), uniform((16, 64), 0.0, 2.0)
    both = multiply(Call(Node("m", "mul")), replace(x, gaussian=True), replace(y, gaussian=True))
    assert energy_cube(both).flat[0] == pytest.approx(8.0)
    rng = np.random.default_rng(0)
    lengths = np.square(rng.standard_normal((50_000, 64)) * rng.standard_normal((50_000, 64))).mean(axis=1)
    drawn = lengths.var() / lengths.mean() ** 2
    error = np.square(lengths / lengths.mean() - 1.0).std() / lengths.size**0.5
    assert abs(scatter_of(both, axis_atoms(both, 1)) - drawn) <= 4.0 * error


def test_entries_of_another_law_scatter_with_their_fourth_moment():
    """Uniform entries have E x⁴/(E x²)² = 1.8: a table of them has rows of more even length than one of normals."""
    fourth = 1.8 - 3.0
    assert energy_cube(uniform((16, 64), 0.0, 1.0, cumulants=(0.0, fourth))).flat[0] == pytest.approx(0.8)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.3)])
def test_rows_that_are_added_scatter_less_than_one(weights):
    """Two rows of lengths of their own: Σq²/(Σq)² of the scatter of one."""
    rng = np.random.default_rng(5)
    v = np.stack([q * _lengths(rng, 0.4)[:, 0] for q in weights]).sum(axis=0)
    drawn = v.var() / v.mean() ** 2
    error = np.square(v / v.mean() - 1.0).std() / SITES**0.5
    rows = replace(uniform((64, 2, UNITS), 0.0, 1.0), scatter=0.4)
    q = np.array(weights).reshape([2 if i in axis_atoms(rows, 1) else 1 for i in range(len(rows.atoms))])
    added = reduced(replace(rows, q=q), 1, False, mean=False)
    assert abs(added.scatter - drawn) <= 4.0 * error


def test_whole_rows_keep_their_lengths():
    """Rows chosen from a normalised tensor have one length as well, and gradients keep how they go with it."""
    rows = replace(uniform((16, UNITS), 0.0, 1.0), scatter=-2.0 / UNITS, lean=-0.5)
    assert like_shape(rows, (40, UNITS)).scatter == rows.scatter
    assert like_shape(rows, (40, UNITS)).lean == rows.lean
    assert like_shape(rows, (40, 8)).scatter == 0.0


def test_heads_that_share_an_axis_with_samples_come_together():
    """(tokens, samples × heads, d) seen as (tokens, samples, heads × d), as in nn.MultiheadAttention."""
    g = random_direction(uniform((5, 6, 8), 0.0, 1.0))
    found = of_view(Cotangent(g, along=fresh(2.0)), uniform((5, 3, 16), 0.0, 1.0))
    assert found is not None
    assert found.variance == pytest.approx(4.0)
    assert of_view(Cotangent(g, along=fresh(2.0)), uniform((5, 4, 12), 0.0, 1.0)) is None


@pytest.mark.parametrize("power", [1.0, -1.0])
def test_a_branch_hands_on_how_its_gradient_goes_with_the_stream(power):
    """E |g|²V_x^p behind a norm of z = x + y, |g|² ~ 1/V_z, to first order in the share of x."""
    rng = np.random.default_rng(7)
    scatter, share = 0.12, 0.7
    v, other = _lengths(rng, scatter), _lengths(rng, 0.3)
    g = 1.0 / (share * v + (1.0 - share) * other)
    drawn = (g * v**power).mean() / g.mean() / (v**power).mean()
    x = uniform((64, UNITS), 0.0, share)
    at = replace(random_direction(x), lean=-1.0)
    branch = leaning.shared(Cotangent(at), 1.0 - share, x).base
    assert branch.beside == (x.ident, pytest.approx(-share), pytest.approx(share))
    told = leaning.with_length(branch, x, scatter, power)
    assert math.log(told) == pytest.approx(math.log(drawn), rel=0.15)  # d ln V_z/d ln V_x is .7 in the mean only
    assert leaning.with_length(branch, uniform((64, UNITS), 0.0, 1.0), scatter, power) == 1.0


@pytest.mark.parametrize("own", [1.0, 0.4])
def test_what_goes_along_a_branch_goes_with_both_lengths(own):
    """(g·y)² ~ V_x V_y/V_z², λ' = 1 - 2w with a norm behind; s/|x| on the nodes of 1/|x|, and times |x|⁻³ behind it.

    Where attention has brought a part of it from other sites, that part goes with no length of this one.
    """
    rng = np.random.default_rng(9)
    scatter, share = 0.12, 0.7
    v, other = share * _lengths(rng, scatter), (1.0 - share) * _lengths(rng, 0.3)
    s = v * other / np.square(v + other)
    s = own * s / s.mean() + 1.0 - own
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    s2 = math.log1p(scatter)
    r = np.exp(-0.5 * (s2**0.5 * nodes - 0.5 * s2))[None]
    weights = weights / weights.sum()
    at = replace(random_direction(uniform((64, UNITS), 0.0, 1.0)), beside=(11, -own * share, share))
    inverse, on = uniform((64, 1), 0.0, 1.0, tag=("inverse rms", 11, 1.0)), SimpleNamespace(grid=SimpleNamespace())
    on.grid.weights = weights
    for power in (1.0, -2.0):  # of |x|²: behind 1/|x| and behind the mean square
        drawn = (s * v**power).mean() / s.mean() / (v**power).mean()
        one = leaning.along_length(at, inverse, on, r)
        told = (np.square(one * r ** (1.0 - power)) @ weights / (r ** (-2.0 * power) @ weights)).item()
        assert math.log(told) == pytest.approx(math.log(drawn), abs=0.03)
    for other in (replace(inverse, tag=("inverse rms", 12, 1.0)), replace(inverse, sites=Sites(heavy=True))):
        assert np.array_equal(leaning.along_length(at, other, on, r), 1.0 / r)


def test_short_gradients_sit_where_a_rectifier_is_open():
    """E |g·f'|² of |g|² ~ |y|^2λ behind y = relu(u): 1 + λ/n of independent ones, since open units make y long."""
    rng = np.random.default_rng(11)
    lean, units, sites = -0.7, 128, 200_000  # of first order in 1/n
    u = rng.standard_normal((sites, units), dtype=np.float32)
    square = np.square(np.maximum(u, 0.0)).mean(axis=1, keepdims=True) + 1e-6
    g = square**lean
    rows = (g * (u > 0.0)).mean(axis=1) / g.mean() / 0.5
    y = uniform((64, units), 0.0, 0.5)
    at = replace(random_direction(y), lean=lean)
    told = uneven(Cotangent(at, along=fresh(units * 0.5)), y, units, 2.0)
    assert abs(told - rows.mean()) <= 4.0 * rows.std() / sites**0.5
    assert told < 1.0 + 0.9 * lean / units


def test_behind_a_norm_no_open_unit_makes_a_tensor_long():
    """Of u on the sphere the length of relu(u) hardly scatters: stacks of norms lost 10^3 of the gradient over 60."""
    units = 32
    u = replace(uniform((64, units), 0.0, 1.0), scatter=-2.0 / units)
    source, values = as_source(u)
    y = from_values(u, source, np.maximum(values, 0.0))
    told = [
        uneven(Cotangent(replace(random_direction(y), lean=lean), along=fresh(units * y.mean_q)), y, units, 2.0)
        for lean in (0.0, -1.0)
    ]
    assert told[0] == told[1]
