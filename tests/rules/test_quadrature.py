"""A function that is linear on each side of zero: the quadrature of one length serves all lengths."""

import numpy as np
import pytest

from firstlight.graph.ir import Node
from firstlight.graph.signal import Signal, Source
from firstlight.rules.chains.grids import Bend
from firstlight.rules.chains.source import as_source, from_values
from firstlight.rules.pointwise.elementwise import apply, of
from firstlight.rules.registry import Call
from firstlight.rules.state import quadrature
from firstlight.theory.activations import get


def gaussian(q: float, scatter: float) -> Signal:
    corr = np.array([[1.0, 0.0], [0.4, 0.0]])
    one = (1, 1)
    return Signal(((8,), (16,)), np.zeros(one), np.full(one, q), corr, (True, False), gaussian=True, scatter=scatter)


def plain(source: Source, values: np.ndarray) -> quadrature.Law:
    return quadrature.Law(source, values)


@pytest.mark.parametrize("scatter", [0.0, 0.7])
@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_what_was_remembered_is_what_the_nodes_say(name: str, scatter: float) -> None:
    p = of(get(name))
    for q in (0.01, 1.0, 300.0):
        out = apply(Call(Node("x", name)), gaussian(q, scatter), p)
        assert out.source is not None
        assert out.values is not None
        assert out.values == pytest.approx(p.f(out.source.values), rel=1e-13)
        known, a = quadrature.reading(out.source, out.values)
        assert a == pytest.approx(q**0.5)  # of the source of length 1
        fresh = plain(out.source, out.values)
        assert known.total * a * a == pytest.approx(fresh.total, rel=1e-12)
        assert known.power * a * a == pytest.approx(fresh.power, rel=1e-10, abs=1e-14 * q)
        assert known.cumulants[1] * a**4 == pytest.approx(fresh.cumulants[1], rel=1e-10)
        assert known.inherited[0] == pytest.approx(fresh.inherited[0], rel=1e-12)
        assert known.energies[0] == pytest.approx(fresh.energies[0], rel=1e-10, abs=1e-13)
        assert known.of_unit(0.3).third == pytest.approx(fresh.of_unit(0.3).third, rel=1e-10)


def test_a_multiple_is_known_by_the_function_and_unknown_on_other_nodes() -> None:
    p = of(get("relu"))
    out = apply(Call(Node("x", "relu")), gaussian(2.0, 0.0), p)
    assert out.source is not None
    assert out.values is not None
    twice = quadrature.scaled(out.source, out.values, 2.0)
    assert quadrature.reading(out.source, twice)[1] == pytest.approx(2.0 * 2.0**0.5)
    other = out.source.values + 1.0
    assert quadrature.reading(out.source, other)[0].total == pytest.approx(3.0)


def test_sources_with_a_mean_or_skewed_have_no_unit() -> None:
    x = gaussian(1.0, 0.0)
    source, _ = as_source(x, Bend((0.0,), slopes=(1.0, 0.0)))
    assert quadrature.unit(source) is not None
    values = np.square(source.values)
    shifted, _ = as_source(from_values(x, source, values))
    assert shifted is source
    moved = Signal(x.groups, np.full((1, 1), 0.5), x.q, x.corr, x.batch, gaussian=True)
    assert quadrature.unit(as_source(moved)[0]) is None


def test_entries_that_do_not_vary_go_with_no_length() -> None:
    """Of two places, one far from zero with no variance: its squares had gone with the length by rounding errors."""
    mean, q = np.array([[3.0, 486.5]]), np.array([[10.0, 486.5**2]])
    x = Signal(((8,), (2,)), mean, q, np.ones((2, 2)), (True, False), gaussian=True, scatter=0.1)
    source, values = as_source(x)
    slopes = quadrature.by_length(source, np.square(values))
    assert slopes[int(np.argmax(source.mean))] == 0.0
    assert np.all(np.abs(slopes) <= 1.1 * q.max())
