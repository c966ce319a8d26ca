"""Depth rules for residual networks and transformers, and the laws of lengths that they answer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import InputError

Array = NDArray[np.float64]


def _count(name: str, value: float, least: int = 1) -> int:
    if not np.isfinite(value) or int(value) != value or value < least:
        raise InputError(name, got=repr(value), expected=f"a whole number ≥ {least}")
    return int(value)


def fixup_scale(branches: int, layers_per_branch: int) -> float:
    """L^{-1/(2m-2)}: factor on the std of all but the last layer of a branch (that one starts at 0).

    Args:
        branches: Number L of residual branches.
        layers_per_branch: Number m of weight layers in one; for m = 1 the single layer is the last one, so
            nothing is left to scale and 1 is returned.

    Raises:
        InputError: Counts that are no whole numbers ≥ 1.

    References:
        zhang2019fixup
    """
    depth, m = _count("branches", branches), _count("layers per branch", layers_per_branch)
    return 1.0 if m == 1 else float(depth ** (-1.0 / (2 * m - 2)))


SKIP_GATE = 0.0
"""Start of the scalar on each branch in SkipInit (de2020skipinit) and ReZero (bachlechner2020)."""

GPT2_STD = 0.02
"""Standard deviation of every weight in GPT-2 but the residual-writing projections (radford2019)."""


def gpt2_projection_std(layers: int) -> float:
    """.02/√(2·layers): std of the projections that write to the stream (two a layer).

    References:
        radford2019
    """
    return GPT2_STD / float(np.sqrt(2.0 * _count("layers", layers)))


@dataclass(frozen=True)
class DeepNorm:
    """LN(α·x + G(x)) with feed-forward, value and output weights scaled by β (query and key are not).

    Attributes:
        alpha: Factor on the stream.
        beta: Factor on the Xavier std of feed-forward, V and output projections.
    """

    alpha: float
    beta: float


def deepnorm(layers: int) -> DeepNorm:
    """Encoder-only or decoder-only with N layers: α = (2N)^¼, β = (8N)^-¼.

    References:
        wang2022deepnet
    """
    n = _count("layers", layers)
    return DeepNorm((2.0 * n) ** 0.25, (8.0 * n) ** -0.25)


def deepnorm_encoder_decoder(encoder: int, decoder: int) -> tuple[DeepNorm, DeepNorm]:
    """(encoder, decoder) constants of an encoder-decoder with N and M layers.

    Encoder α = .81(N⁴M)^{1/16}, β = .87(N⁴M)^{-1/16}; decoder α = (3M)^¼, β = (12M)^-¼.

    References:
        wang2022deepnet
    """
    n, m = _count("encoder layers", encoder), _count("decoder layers", decoder)
    size = float(n) ** 4 * m
    return (
        DeepNorm(0.81 * size**0.0625, 0.87 * size**-0.0625),
        DeepNorm((3.0 * m) ** 0.25, (12.0 * m) ** -0.25),
    )


def tfixup_scale(layers: int, part: str = "encoder") -> float:
    """Factor on weights without LayerNorm and warm-up: encoder .67 N^-¼, decoder (9N)^-¼; V also times √2.

    Args:
        layers: Layers N of that part.
        part: "encoder" or "decoder".

    References:
        huang2020tfixup
    """
    n = _count("layers", layers)
    if part == "encoder":
        return 0.67 * n**-0.25
    if part == "decoder":
        return (9.0 * n) ** -0.25
    raise InputError("T-Fixup part", got=repr(part), expected="'encoder' or 'decoder'")


TFIXUP_VALUE_FACTOR = float(np.sqrt(2.0))
"""Additional factor on the value projections in T-Fixup (huang2020tfixup)."""


@dataclass(frozen=True)
class DepthScaling:
    """How branches and the learning rate change with the number L of branches.

    Attributes:
        branch: Factor on each branch.
        learning_rate: Factor on Adam's learning rate of the hidden layers.
    """

    branch: float
    learning_rate: float


def depth_mup(branches: int, a: float = 1.0) -> DepthScaling:
    """Depth-μP: branch a/√L, Adam's learning rate η/√L.

    References:
        yang2023depth
    """
    root = float(np.sqrt(_count("branches", branches)))
    return DepthScaling(a / root, 1.0 / root)


def completep_branch(branches: int) -> float:
    """CompleteP: branch 1/L.

    References:
        dey2025
    """
    return 1.0 / _count("branches", branches)


def scaled_branches(branches: int) -> float:
    """η = 1/√L, the uniform choice that keeps Ση² = 1 and token correlation below 1.

    References:
        hayou2021, noci2022
    """
    return 1.0 / float(np.sqrt(_count("branches", branches)))


def geometric_branches(base: float, branches: int) -> Array:
    """η_l = b^l, l = 1 … L: a bounded sum b/(1-b) at any depth.

    Raises:
        InputError: A base outside (0, 1).

    References:
        hanin2018
    """
    if not 0.0 < base < 1.0:
        raise InputError("base of the branch scales", got=repr(base), expected="a number in (0, 1)")
    return base ** np.arange(1, _count("branches", branches, 0) + 1, dtype=np.float64)


def _scales(scales: ArrayLike) -> Array:
    eta = np.atleast_1d(np.asarray(scales, dtype=np.float64))
    if not np.all(np.isfinite(eta)):
        raise InputError("branch scales", got="a non-finite scale", expected="finite numbers")
    return eta


def linear_branch_mean(scales: ArrayLike, branch_variance: float = 1.0) -> float:
    """E M_L/M_0 = Π(1 + sη²) for branches ηW₂relu(W₁x) with variances 2/n and s/n_h; exact.

    Args:
        scales: η of each branch.
        branch_variance: s.

    References:
        hanin2018, hayou2021
    """
    return float(np.exp(np.sum(np.log1p(branch_variance * np.square(_scales(scales))))))


def linear_branch_square(
    scales: ArrayLike, width: int, hidden: int | Sequence[int], branch_variance: float = 1.0
) -> float:
    """E M_L²/M_0² = Π[1 + 2sη² + 4sη²/n + s²η⁴(1+5/n_h)(1+2/n)], exact at any width.

    Args:
        scales: η of each branch.
        width: Width n of the stream.
        hidden: Width n_h inside each branch.
        branch_variance: s.

    References:
        hanin2018
    """
    n = _count("width", width)
    inner = np.asarray(hidden, dtype=np.float64)
    e = branch_variance * np.square(_scales(scales))
    steps = 2.0 * e + 4.0 * e / n + e * e * (1.0 + 5.0 / inner) * (1.0 + 2.0 / n)
    return float(np.exp(np.sum(np.log1p(steps))))


def relu_branch_path(scales: ArrayLike, mean_square: float = 1.0, mean: float = 0.0) -> tuple[Array, Array]:
    """(M, μ) of layers 0 … L for x + η·relu(Wx), He variance 2/n: wide limit, means kept.

    M' = M + 2ημ√(M/π) + η²M, μ' = μ + η√(M/π).

    Returns:
        Mean squares and means, each of shape (L + 1,).

    References:
        hanin2018
    """
    m, mu = [float(mean_square)], [float(mean)]
    for eta in _scales(scales):
        push = float(np.sqrt(m[-1] / np.pi))
        square = m[-1] + 2.0 * float(eta) * mu[-1] * push + float(eta) ** 2 * m[-1]
        mu.append(mu[-1] + float(eta) * push)
        m.append(square)
    return np.array(m), np.array(mu)


def relu_branch_limit(total: float) -> float:
    """M_L/M_0 = cosh²(Ση/√π), the limit of small η and zero-mean input: Ση must stay bounded.

    References:
        hanin2018
    """
    return float(np.cosh(total / np.sqrt(np.pi)) ** 2)
