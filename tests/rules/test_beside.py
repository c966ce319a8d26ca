"""Gradients that go with the length of the stream beside their branch, behind sums over rows (attention)."""

import numpy as np
import pytest

from firstlight.graph.signal import Signal, replace
from firstlight.rules.gradients.leaning import of_keys, of_rows, with_length
from firstlight.rules.state.empirical import uniform

SAMPLES, ROWS, WIDTH, LEAN, SCATTER = 40_000, 6, 4, -0.8, 0.15


@pytest.mark.parametrize("causal", [True, False])
def test_of_a_key_its_own_row_goes_with_its_length(causal):
    """Σ_i p_ij g_i with |g_i|² ~ V_i^λ against V_j: as far as the energy of row j's own part goes."""
    rng = np.random.default_rng(int(causal))
    s2 = np.log1p(SCATTER)
    v = np.exp(s2**0.5 * rng.standard_normal((SAMPLES, ROWS)) - 0.5 * s2)
    g = v[..., None] ** (0.5 * LEAN) * rng.standard_normal((SAMPLES, ROWS, WIDTH))
    logits = rng.standard_normal((SAMPLES, ROWS, ROWS))
    logits[:, ~np.tri(ROWS, dtype=bool) if causal else np.zeros((ROWS, ROWS), dtype=bool)] = -np.inf
    p = np.exp(logits)
    p /= p.sum(-1, keepdims=True)
    energy = np.square(np.einsum("bij,bid->bjd", p, g)).mean(-1)
    drawn = (energy / v).mean(1) / (energy.mean() * (1.0 / v).mean())
    weights = uniform((SAMPLES, ROWS, ROWS), 0.0, 1.0)
    weights = replace(weights, q=np.square(p).mean(0, keepdims=True))
    stream = uniform((SAMPLES, ROWS, WIDTH), 0.0, 1.0)
    rows = replace(uniform((SAMPLES, ROWS, WIDTH), 0.0, 1.0), beside=(stream.ident, LEAN, 1.0))
    found = [of_keys(rows_of(stream), rows, weights, rows), of_rows(rows_of(stream), rows)]
    known, whole = (with_length(k, stream, SCATTER, -1.0) for k in found)
    assert abs(known - drawn.mean()) < 4.0 * drawn.std() / SAMPLES**0.5 + 0.005
    assert whole > known + 0.02


def rows_of(x: Signal) -> Signal:
    return uniform(x.shape, 0.0, 1.0)
