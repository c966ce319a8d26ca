"""Integrals of a softmax of Gaussian logits against draws, at any sharpness and in bounded memory."""

import tracemalloc

import numpy as np
import pytest

from firstlight.rules.attention import participation


@pytest.mark.parametrize("keys", [2, 16, 300])
@pytest.mark.parametrize("variance", [0.05, 4.0, 60.0, 2400.0, 1e4, 1e8])
def test_participation_and_jacobian_are_those_of_draws(keys, variance):
    logits = np.random.default_rng(keys).standard_normal((4_000_000 // (20 * keys), keys)) * variance**0.5
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    square = (p**2).sum(1)
    bent = square - 2.0 * (p**3).sum(1) + square**2
    for found, drawn in zip(participation._sums(variance, keys), (square, bent), strict=True):
        assert abs(found - drawn.mean()) <= 4.0 * drawn.std() / len(drawn) ** 0.5 + 1e-6


def test_memory_does_not_grow_with_the_logits():
    participation._transforms.cache_clear()
    participation._sums.cache_clear()
    tracemalloc.start()
    for exponent in range(-6, 30):
        share = participation.participation(10.0**exponent, np.array([1.0, 16.0, 128.0]))
        assert np.all(np.isfinite(share))
        assert share[0] == pytest.approx(1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6
    assert share[1] == pytest.approx(1.0, abs=1e-6)
