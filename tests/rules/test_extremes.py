"""Correlations of the largest of groups of Gaussians, against drawn ones."""

import numpy as np
import pytest

from firstlight.graph.ir import Node
from firstlight.graph.signal import Signal
from firstlight.rules.chains.source import as_source, from_values
from firstlight.rules.reductions import extremes
from firstlight.rules.registry import Call

DRAWN = 200_000
RESOLUTION = 3e-3  # of a law of 64 values on 24 nodes


@pytest.mark.parametrize("entries", [2, 4, 9])
@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize(
    ("same", "within", "other"), [(0.3, 0.3, 0.3), (0.6, 0.6, 0.6), (0.8, 0.6, 0.4), (0.5, 0.0, 0.0), (0.95, 0.9, 0.9)]
)
def test_correlations_of_the_largest(entries: int, bent: bool, same: float, within: float, other: float) -> None:
    one = np.full((entries, entries), within) + (1.0 - within) * np.eye(entries)
    two = np.full((entries, entries), other) + (same - other) * np.eye(entries)
    root = np.linalg.cholesky(np.block([[one, two], [two, one]]) + 1e-9 * np.eye(2 * entries))
    u = np.random.default_rng(0).standard_normal((DRAWN, 2 * entries)) @ root.T
    f = (lambda v: np.maximum(v, 0.0)) if bent else (lambda v: v)
    a, b = f(u[:, :entries]).max(axis=1), f(u[:, entries:]).max(axis=1)
    level = float(np.mean(a * a) + np.mean(b * b)) / 2.0
    drawn, error = float(np.mean(a * b)) / level, float(np.std(a * b)) / level / DRAWN**0.5

    x = Signal(((DRAWN,),), np.zeros(1), np.ones(1), np.array([1.0, within]), (False,), gaussian=True)
    source, values = as_source(x)
    x = from_values(x, source, f(values))
    call = Call(Node("largest", "max"))
    big, _ = extremes.largest(call, x, entries, within)
    mean = np.array([(1.0 + (entries - 1.0) * within) / entries, (same + (entries - 1.0) * other) / entries])
    found = extremes.alike(big, x, entries, within, mean, np.array([1.0, same]))
    assert np.isclose(found[0], 1.0, atol=1e-3)
    between = 0.0 if same == other else 0.01  # what deviations of the same index have in common is taken as a square
    assert abs(found[1] - drawn) < 5.0 * error + RESOLUTION + between
