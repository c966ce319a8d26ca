"""The largest entries by rank, counts, and what a law beyond mean and variance says."""

import numpy as np
import pytest

from firstlight.graph.ir import Law, Parameter, TensorSpec
from firstlight.rules.pointwise.elementwise import Pointwise, apply
from firstlight.rules.pointwise.merge import plus
from firstlight.rules.reductions.ordering import _top_normals, _top_shares
from firstlight.rules.registry import Call
from firstlight.rules.state.empirical import from_parameter, uniform

DRAWS = 200_000


def within(mean, samples, k=4.0):
    """Whether a mean is that of the samples, up to k of their standard errors and as many of a table's own."""
    error = samples.std() / len(samples) ** 0.5
    return abs(mean - samples.mean()) <= k * error * (1.0 + (DRAWS / 16384) ** 0.5)


@pytest.mark.parametrize(("n", "count"), [(4, 2), (8, 1), (16, 4)])
def test_the_largest_normals(n, count):
    first, second = _top_normals(n, count, 0.3, 2.0)
    z = 0.3 + 2.0 * np.random.default_rng(1).standard_normal((DRAWS, n))
    top = np.sort(z, axis=1)[:, ::-1][:, :count]
    for i in range(count):
        assert within(first[i], top[:, i])
        for j in range(count):
            assert within(second[i, j], top[:, i] * top[:, j])


@pytest.mark.parametrize(("n", "count", "sd"), [(4, 2, 1.0), (8, 2, 2.0)])
def test_the_largest_shares_of_a_softmax(n, count, sd):
    e = np.exp(sd * np.random.default_rng(1).standard_normal((DRAWS, n)))
    p = e / e.sum(axis=1, keepdims=True)
    first, second = _top_shares(n, count, float(np.square(p).mean()) * n * n)
    top = np.sort(p, axis=1)[:, ::-1][:, :count]
    for i in range(count):
        assert within(first[i], top[:, i])
        assert within(second[i, i], top[:, i] ** 2)
    assert within(second[0, 1], top[:, 0] * top[:, 1])


def test_a_uniform_bias_keeps_its_flat_law():
    """E u⁴ of Gaussian + uniform is 3v² - 1.2·v_b²: the cumulants of independent terms add."""
    bias = from_parameter(Parameter("bias", TensorSpec((64,), "float32")), Law(0.0, 1.0, 1.8, source="torch-default"))
    y = uniform((16, 64), 0.0, 0.25, batch_axis=0, gaussian=True)
    call = Call.__new__(Call)
    square = apply(call, plus(call, y, bias), Pointwise(np.square, lambda x: 2.0 * x))
    # the law is bent to first order in the fourth cumulant: the rest is of order (1.2/1.25²)²/16
    assert square.mean_q == pytest.approx(3.0 * 1.25**2 - 1.2, rel=(1.2 / 1.25**2) ** 2 / 16.0)


def test_rows_that_are_alike_are_known():
    row = np.log(np.arange(1.0, 9.0))
    law = Law(float(row.mean()), float(row.var()), structure="rows alike", row=row)
    x = from_parameter(Parameter("A_log", TensorSpec((32, 8), "float32")), law)
    assert x.shape == (32, 8)
    np.testing.assert_allclose(np.broadcast_to(x.mean, (1, 8))[0], row)
    out = apply(Call.__new__(Call), x, Pointwise(np.exp, np.exp))
    np.testing.assert_allclose(out.mean_q, np.square(np.arange(1.0, 9.0)).mean(), rtol=1e-6)
