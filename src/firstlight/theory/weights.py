"""Constants of weight laws: kurtosis, truncation, orthogonality, dynamical isometry, looks-linear."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import InputError
from firstlight.theory import special
from firstlight.theory.activations import Activation, get
from firstlight.theory.gaussian import expectations, shape_of
from firstlight.theory.mean_field import critical_point

Array = NDArray[np.float64]

TORCH_LINEAR_FACTOR = 1.0 / 3.0
"""c in the variance c/fan_in of torch.nn.Linear's default: times 1/6 per ReLU layer (paszke2019)."""

GAUSSIAN_S1 = -1.0
"""First coefficient s₁ of the S-transform of WᵀW for Gaussian weights (pennington2017)."""

ORTHOGONAL_S1 = 0.0
"""The same for orthogonal weights (pennington2017)."""


def truncated_normal_variance(cut: float = 2.0) -> float:
    """Variance of N(0,1) cut to [-a, a]: 1 - 2aφ(a)/(2Φ(a)-1); 0.7737413 at a = 2.

    Raises:
        InputError: A cut that is not positive.
    """
    if not cut > 0:
        raise InputError("cut", got=repr(cut), expected="a number > 0 (in standard deviations)")
    if not np.isfinite(cut):
        return 1.0
    density = float(special.normal_density(cut))
    return 1.0 - 2.0 * cut * density / (2.0 * float(special.ndtr(cut)) - 1.0)


def truncated_normal_kurtosis(cut: float = 2.0) -> float:
    """E w⁴/(E w²)² of N(0,1) cut to [-a, a]; 2.36554 at a = 2."""
    second = truncated_normal_variance(cut)
    if not np.isfinite(cut):
        return 3.0
    mass = 2.0 * float(special.ndtr(cut)) - 1.0
    fourth = 3.0 * second - 2.0 * cut**3 * float(special.normal_density(cut)) / mass
    return fourth / second**2


def kurtosis(law: str) -> float:
    """E w⁴/(E w²)² of a weight law: normal 3, truncated (±2 sd) 2.36554, uniform 1.8, rademacher 1.

    Raises:
        InputError: Another law.
    """
    table = {"normal": 3.0, "truncated": truncated_normal_kurtosis(2.0), "uniform": 1.8, "rademacher": 1.0}
    if law not in table:
        raise InputError("weight law", got=repr(law), expected=" or ".join(map(repr, table)))
    return table[law]


def singular_value_variance(
    act: str | Activation, depth: int, q: float, s1: float = GAUSSIAN_S1, *, chi: float = 1.0
) -> float:
    """Variance of the squared singular values of the input-output Jacobian: χ^{2L}·L(μ₂/μ₁² - 1 - s₁).

    μ_k = Eφ′(√q z)^{2k}. Dynamical isometry needs it to stay bounded as L grows: only for orthogonal weights
    (s₁ = 0) and φ that is nearly linear at q.

    Args:
        act: Name or record.
        depth: L.
        q: Fixed point of the length map.
        s1: -1 for Gaussian, 0 for orthogonal weights.
        chi: χ₁ (1 on the critical line).

    References:
        pennington2017
    """
    act = get(act)
    one, two = expectations([lambda u: act.df(u) ** 2, lambda u: act.df(u) ** 4], q, **shape_of(act))
    return chi ** (2 * depth) * depth * (float(two / one**2) - 1.0 - s1)


DELTA_ORTHOGONAL_TANH = (1.05, 2.01e-5)
"""(σ_w², σ_b²) of the 10,000-layer tanh conv nets with delta-orthogonal kernels (xiao2018)."""


def delta_orthogonal_point(act: str | Activation = "tanh", bias_variance: float = 2.01e-5) -> tuple[float, float]:
    """(q*, σ_w²) on the critical line for a delta-orthogonal kernel, σ_w² = 1.05 for tanh at σ_b² = 2.01e-5.

    References:
        xiao2018
    """
    return critical_point(act, bias_variance)


def looks_linear(block: Array) -> Array:
    """[[W0, -W0], [-W0, W0]]: with zero bias a ReLU net of these is exactly linear at the start.

    Mirrored activations (relu(z), relu(-z)) of a block enter with opposite signs, so that
    W0(relu(z) - relu(-z)) = W0 z.

    Args:
        block: W0, shape (n, m).

    Returns:
        Shape (2n, 2m).

    References:
        balduzzi2017, burkholz2018
    """
    return np.block([[block, -block], [-block, block]])
