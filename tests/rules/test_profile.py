"""Mean products of the entries of a field over pairs of each kind, against all pairs one by one."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest

from firstlight.graph.signal import Array
from firstlight.rules.state.profile import profile


def _pair_by_pair(q: Array, states: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """Mean of √(q_i q_j) by kind: same, other and, with three states, next; over the mean of q."""
    found: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for i, j in itertools.product(np.ndindex(q.shape), repeat=2):
        kind = tuple(
            0 if a == b else 2 if s == 3 and abs(a - b) == 1 else 1 for a, b, s in zip(i, j, states, strict=True)
        )
        found[kind].append(float(q[i] * q[j]) ** 0.5)
    return {kind: float(np.mean(values)) / float(q.mean()) for kind, values in found.items()}


@pytest.mark.parametrize(
    ("shape", "states"),
    [
        ((7,), (2,)),
        ((7,), (3,)),
        ((2,), (3,)),
        ((4, 5), (3, 3)),
        ((2, 3), (3, 3)),
        ((3, 4, 2), (3, 2, 3)),
        ((3, 3, 3), (3, 3, 3)),
    ],
)
def test_is_what_all_pairs_say(shape, states):
    q = np.random.default_rng(0).random(shape) ** 2
    found = profile(q, states)
    for kind, mean in _pair_by_pair(q, states).items():
        assert found[kind] == pytest.approx(mean, rel=1e-12)


def test_axes_of_one_entry_and_long_fields():
    q = np.random.default_rng(1).random((1, 160, 1, 130))  # beyond the length at which nothing is copied
    found = profile(q, (2, 3, 2, 3))
    assert found.shape == (1, 3, 1, 3)
    root = np.sqrt(q[0, :, 0])
    both = [(root[1:, 1:] * root[:-1, :-1]).mean(), (root[1:, :-1] * root[:-1, 1:]).mean()]
    assert found[0, 2, 0, 2] == pytest.approx(np.mean(both) / q.mean(), rel=1e-12)


def test_one_entry_and_nothing_at_all():
    assert np.array_equal(profile(np.full((1, 1), 3.0), (2, 3)), np.ones((1, 1)))
    assert np.array_equal(profile(np.zeros((1, 4)), (2, 3)), np.ones((1, 1)))
